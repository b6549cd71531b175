"""Estimate what a job costs."""
