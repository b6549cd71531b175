"""Turn scores into a verdict, and a verdict into an exit code."""
