"""Row formats of vendors, as pure functions without SDKs."""
