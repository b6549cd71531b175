"""Secrets and personal data in rows: found, reported without being shown, replaced in a copy."""
