"""Versions of the ledger's schema, applied by `unitune.ledger` when a database is behind."""
