"""Tokens, counted before anything is sent: exact where a tokenizer is here, a range where not."""

from unitune.cost.tokens.by_vendor import VendorCounter
from unitune.cost.tokens.count import Count, RowCount
from unitune.cost.tokens.counter import TokenCounter, counter_for
from unitune.cost.tokens.rows import count_rows

__all__ = ["Count", "RowCount", "TokenCounter", "VendorCounter", "count_rows", "counter_for"]
