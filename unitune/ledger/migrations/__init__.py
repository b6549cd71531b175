"""Versions of the ledger's schema, applied by `database` when it is behind."""
