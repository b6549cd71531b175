"""Define what a backend is, describe what it offers and find it by name."""
