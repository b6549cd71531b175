"""Tokens, counted before anything is sent: exact where a tokenizer is here, a range where not."""

from unitune.cost.tokens.asked import AskedCounter
from unitune.cost.tokens.count import Count, RowCount
from unitune.cost.tokens.counter import TokenCounter, counter_for
from unitune.cost.tokens.counting import count_rows

__all__ = ["AskedCounter", "Count", "RowCount", "TokenCounter", "count_rows", "counter_for"]
