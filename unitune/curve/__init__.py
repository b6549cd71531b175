"""Measure and show what more training rows bring."""
