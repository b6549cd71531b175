"""Putting questions to models: at what pace, at what price, and where the answers are kept."""
