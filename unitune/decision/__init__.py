"""Decide whether to tune or to prompt."""
