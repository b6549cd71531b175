"""Several comparisons at once: p-values adjusted so that looking often does not find by luck.

`holm` for what is declared beforehand: secondary metrics, or several candidates. All its claims
together are wrong with at most the level's probability. `benjamini_hochberg` for what is looked at
to get ideas: slices of the cases. Of its finds, at most the level's share is wrong on average, so
they are marked exploratory. The primary metric is no part of any family.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that the probability of any false find stays at the level.

    Returns:
        Adjusted p-values in the same order: a comparison holds at 5 % when its own is 0.05 or less.

    Source:
        Holm 1979, Scand J Stat 6:65.
    """
    order = _ascending(p_values)
    scaled = [(len(order) - rank) * p_values[at] for rank, at in enumerate(order)]
    return _in_place(order, list(accumulate(scaled, max)))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that the expected share of false finds stays at the level.

    Args:
        p_values: Of all comparisons of the family; independent, or positively dependent as slices
            that overlap are.

    Returns:
        Adjusted p-values in the same order.

    Source:
        Benjamini and Hochberg 1995, J R Stat Soc B 57:289; dependence: Benjamini and Yekutieli
        2001, Ann Stat 29:1165.
    """
    order = _ascending(p_values)
    scaled = [len(order) / (rank + 1) * p_values[at] for rank, at in enumerate(order)]
    return _in_place(order, list(accumulate(reversed(scaled), min))[::-1])


def _ascending(p_values: Sequence[float]) -> list[int]:
    if wrong := [p for p in p_values if not 0 <= p <= 1]:
        raise ValueError(f"p-values lie from 0 to 1, not {wrong[0]}")
    return sorted(range(len(p_values)), key=p_values.__getitem__)


def _in_place(order: Sequence[int], adjusted: Sequence[float]) -> list[float]:
    placed = dict(zip(order, adjusted, strict=True))
    return [min(1.0, placed[at]) for at in range(len(order))]
