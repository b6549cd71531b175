"""Figures of data files and the findings about them: what `unitune check` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Literal, Self

from unitune.data.overlap import Kind
from unitune.data.quality.findings import Quality
from unitune.findings import Finding
from unitune.security.spec import Closed

Purpose = Literal["train", "validation", "test"]

BINS = 10
"""Bars that the bulk of the rows is spread over; a screen shows them at a glance."""
BULK = 0.95
"""Share of the rows that sets the width of a bar, so that a few long rows do not flatten it."""


class Bin(Closed):
    """The rows of about the same length, from the fewest to the most characters."""

    shortest: int
    longest: int
    count: int

    @property
    def label(self) -> str:
        """The range as a person writes it."""
        if self.shortest == self.longest:
            return f"{self.shortest:,}"
        return f"{self.shortest:,}-{self.longest:,}"


class Lengths(Closed):
    """Characters of all messages of a row together, over all rows.

    Characters and not tokens, because tokens depend on the model; `unitune plan` counts those.
    """

    shortest: int
    median: int
    longest: int
    bins: tuple[Bin, ...]
    """Equally wide but for the last, which reaches to the longest row."""

    @classmethod
    def of(cls, counts: Mapping[int, int]) -> Self | None:
        """Sum up the lengths of some rows; None when there are none."""
        import numpy as np  # noqa: PLC0415 - slow to import

        if not counts:
            return None
        lengths, rows = np.array(sorted(counts.items()), np.int64).T
        total = np.cumsum(rows)
        places = (0, (total[-1] - 1) // 2, math.ceil(BULK * total[-1]) - 1, total[-1] - 1)
        at = np.searchsorted(total, places, "right")
        shortest, median, bulk, longest = lengths[at].tolist()
        width = _round_width(max(1, bulk - shortest + 1) / BINS)
        starts = [*range(shortest // width * width, bulk + 1, width)]
        ends = [*starts[1:], max(longest + 1, starts[-1] + width)]
        in_bins, _ = np.histogram(lengths, [*starts, ends[-1]], weights=rows)
        bins = tuple(
            Bin(shortest=start, longest=end - 1, count=count)
            for start, end, count in zip(starts, ends, in_bins.tolist(), strict=True)
        )
        return cls(shortest=shortest, median=median, longest=longest, bins=bins)


def _round_width(width: float) -> int:
    """Return the next larger of 1, 2, 5, 10, 20, 50, …."""
    power = 10 ** max(0, math.floor(math.log10(width)))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= width)


class FileReport(Closed):
    """One data file in figures."""

    name: str
    """Path, as it was given or as the job gives it."""
    purpose: Purpose | None = None
    """What the job uses it for; None outside a job."""
    read_as: str = ""
    """What kind of file it is, what its rows are, and which keys were read: one line."""
    rows: int
    """Rows that can be used."""
    messages: int
    """Messages in all rows together."""
    roles: dict[str, int]
    """Messages by role."""
    duplicates: int
    """Rows that equal an earlier row in all but their id."""
    contradictions: int
    """Rows that answer an earlier row's input differently."""
    shared: dict[Kind, int] = {}  # noqa: RUF012 - pydantic copies it
    """Rows whose question stands in an earlier file of the job, by the kind of match."""
    characters: Lengths | None
    """Length of the rows."""

    @property
    def histogram(self) -> list[tuple[str, int]]:
        """Ranges of characters, as a person writes them, with the rows in each."""
        return [(bar.label, bar.count) for bar in self.characters.bins] if self.characters else []


class DataReport(Closed):
    """The result of a check; printed by `unitune check`, with ``--json`` as it stands here."""

    schema_version: Literal[1] = 1
    files: tuple[FileReport, ...]
    findings: tuple[Finding, ...]
    """File by file, each in the order of its lines; what concerns several files comes last."""
    quality: Quality | None = None
    """What is worth a look in the rows to train on; only `unitune check` looks."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that must be corrected before a launch."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def __repr__(self) -> str:
        return f"<DataReport {len(self.files)} files, {len(self.errors)} errors>"

    def __str__(self) -> str:
        """A line for each file and each finding."""
        files = [f"{file.name}: {file.rows:,} rows" for file in self.files]
        return "\n".join((*files, *(f"{each.severity}: {each}" for each in self.findings)))

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"
