"""Compute what a training minimises: losses of rows and pairs, and rewards of answers."""
