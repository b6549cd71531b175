"""Count tokens before anything is sent: exactly with an installed tokenizer, else as a range."""

from unitune.cost.tokens.count import Count, RowCount, TokenCounter
from unitune.cost.tokens.counter import VendorCounter, counter_for

__all__ = ["Count", "RowCount", "TokenCounter", "VendorCounter", "counter_for"]
