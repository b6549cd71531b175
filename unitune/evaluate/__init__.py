"""Evaluate contenders on test cases, compare them and apply the gate."""
