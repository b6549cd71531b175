"""Vendors' rows as pure functions; no SDK is imported here."""
