"""Put values into sentences."""

from __future__ import annotations

from collections.abc import Sequence


def listed(names: Sequence[str]) -> str:
    """Join names as in a sentence: ``a, b and c``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def clip(value: object, longest: int = 60) -> str:
    """Return the `repr` of a value, shortened in the middle if it is long."""
    text = repr(value)
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} … {text[-half:]}"
