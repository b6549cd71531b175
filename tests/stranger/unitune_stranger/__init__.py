"""A backend for unitune that answers like the most similar training row."""
