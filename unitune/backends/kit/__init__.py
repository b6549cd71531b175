"""Shared parts of hosted backends."""
