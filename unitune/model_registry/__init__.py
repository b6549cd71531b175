"""Manage registered models: versions, aliases, promotion, rollback and verification."""
