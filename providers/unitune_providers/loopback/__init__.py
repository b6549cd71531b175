"""Servers that play the vendors in tests, each on its vendor's own wire."""
