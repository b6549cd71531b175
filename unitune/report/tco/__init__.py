"""What owning a tuned model costs, for people: in the terminal, and as a page with its plot."""
