"""The servers that play the vendors: each answers, and refuses, as its vendor's API does."""
