"""Figures of data files and the findings about them: what `unitune check` prints."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Literal, Self

from unitune._shown import Printed
from unitune.data.overlap import Kind
from unitune.data.quality.findings import Quality
from unitune.findings import Finding
from unitune.security.spec import Closed

Purpose = Literal["train", "validation", "test"]


class Lengths(Closed):
    """Characters of all messages of a row together, over all rows.

    Characters and not tokens, because tokens depend on the model; `unitune plan` counts those.
    """

    shortest: int
    median: int
    longest: int

    @classmethod
    def of(cls, counts: Mapping[int, int]) -> Self | None:
        """Sum up the lengths of some rows; None when there are none."""
        if not counts:
            return None
        lengths = sorted(counts)
        before = list(accumulate(counts[length] for length in lengths))
        median = lengths[bisect_right(before, (before[-1] - 1) // 2)]
        return cls(shortest=lengths[0], median=median, longest=lengths[-1])


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
    parts: dict[Purpose, int] = {}  # noqa: RUF012 - pydantic copies it
    """Of a training file from which parts are kept: its rows by what they are used for."""


class DataReport(Printed, Closed):
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
