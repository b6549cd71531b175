"""How long the rows of a file are, in characters.

Characters and not tokens, because tokens depend on the model; `unitune plan` counts those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict

BINS = 10
"""Bars that the bulk of the rows is spread over; a screen shows them at a glance."""
BULK = 0.95
"""Share of the rows that sets the width of a bar, so that a few long rows do not flatten it."""


class Bin(BaseModel):
    """The rows of about the same length."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    shortest: int
    """Fewest characters that belong here."""
    longest: int
    """Most characters that belong here."""
    count: int

    @property
    def label(self) -> str:
        """The range as a person writes it."""
        if self.shortest == self.longest:
            return f"{self.shortest:,}"
        return f"{self.shortest:,}-{self.longest:,}"


class Lengths(BaseModel):
    """Characters of all messages of a row together, over all rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    shortest: int
    median: int
    longest: int
    bins: tuple[Bin, ...]
    """Equally wide but for the last, which reaches to the longest row."""

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Self | None:
        """Sum up the lengths of some rows; None when there are none."""
        import numpy as np  # noqa: PLC0415 - slow to import

        if not lengths:
            return None
        ordered = np.sort(np.array(lengths, np.int64))
        middle, most = (len(ordered) - 1) // 2, math.ceil(BULK * len(ordered)) - 1
        shortest, median, bulk, longest = (int(ordered[at]) for at in (0, middle, most, -1))
        width = _round_width(max(1, bulk - shortest + 1) / BINS)
        starts = range(shortest // width * width, bulk + 1, width)
        ends = [*(start + width - 1 for start in starts[:-1]), max(longest, starts[-1] + width - 1)]
        counts = np.diff(np.searchsorted(ordered, ends, "right"), prepend=0).tolist()
        return cls(
            shortest=shortest,
            median=median,
            longest=longest,
            bins=tuple(
                Bin(shortest=start, longest=end, count=count)
                for start, end, count in zip(starts, ends, counts, strict=True)
            ),
        )


def _round_width(width: float) -> int:
    """Return the next larger of 1, 2, 5, 10, 20, 50, …."""
    power = 10 ** max(0, math.floor(math.log10(width)))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= width)
