"""Tokens, counted before anything is sent: exact where a tokenizer is here, a range where not."""

from unitune.cost.tokens.count import Count, RowCount
from unitune.cost.tokens.counter import TokenCounter, counter_for

__all__ = ["Count", "RowCount", "TokenCounter", "counter_for"]
