"""Make training rows from a better model's answers to unanswered questions."""
