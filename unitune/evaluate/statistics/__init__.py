"""Compute intervals, tests, sample sizes, corrections and economics of paired scores."""
