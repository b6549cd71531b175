"""A figure with its name and what it means: what reports are made of."""

from __future__ import annotations

from dataclasses import dataclass

from unitune.evaluate.results import Comparison


@dataclass(frozen=True, slots=True)
class Fact:
    """A figure with its name and what it means.

    Args:
        term: What it is.
        value: The figure.
        meaning: One or two sentences for somebody who knows no statistics.
    """

    term: str
    value: str
    meaning: str = ""


def level(comparison: Comparison) -> str:
    """Return the level of the intervals, e.g. ``95 %``."""
    return f"{100 * comparison.level:g} %"
