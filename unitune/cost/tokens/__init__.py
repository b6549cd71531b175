"""Counting tokens before anything is sent: exact where a model's tokenizer is here, else a range."""

from unitune.cost.tokens.count import Count, RowCount
from unitune.cost.tokens.counter import TokenCounter, counter_for

__all__ = ["Count", "RowCount", "TokenCounter", "counter_for"]
