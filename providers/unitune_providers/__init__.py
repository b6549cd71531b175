"""Hosted vendors: a backend, an offer and, where its rows differ, a format for each."""
