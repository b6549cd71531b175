"""Describe comparisons, plans, runs and other documents for terminals, pages and CI."""
