"""Compute the total cost of ownership of a job's tuned model, compared with prompting."""
