"""Find secrets and personal data in rows, report them masked, and replace them in a copy."""
