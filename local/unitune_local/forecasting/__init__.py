"""Forecast the time and memory of a training."""
