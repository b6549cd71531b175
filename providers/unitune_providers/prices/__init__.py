"""Readers of vendors' prices and dates, used when the user requests a refresh."""
