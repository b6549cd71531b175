"""Total cost of ownership, for people: in the terminal, and as a page with its plot."""
