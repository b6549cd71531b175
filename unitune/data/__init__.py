"""Training rows and cases: the canonical example, reading, checking, splitting."""
