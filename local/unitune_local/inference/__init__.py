"""Answers of a model on this machine, and what they take."""
