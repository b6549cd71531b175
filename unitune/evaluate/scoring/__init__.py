"""Score answers, one by one and over all cases."""
