"""Handle untrusted input safely: addresses, secrets in texts, terminal control characters, JSON."""
