"""Rows as token ids, laid out for the model."""
