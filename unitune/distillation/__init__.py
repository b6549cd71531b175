"""Training rows from a better model: its answers to questions that have none."""
