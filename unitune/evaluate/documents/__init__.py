"""Define what a comparison leaves behind: its parts, its history and the change between two."""
