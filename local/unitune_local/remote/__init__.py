"""Train on other machines: launches, their storage, and what a worker does there."""
