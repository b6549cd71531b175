"""Prices: which row applies, where rows are written, how old they are, and their refreshing."""
