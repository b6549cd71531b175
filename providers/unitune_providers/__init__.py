"""Backends, offers and row formats of hosted vendors."""
