"""Import results of promptfoo."""
