"""Describe data files in figures and findings, as `unitune check` prints them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Literal, Self

from unitune._shown import Printed
from unitune.data.overlap import Kind
from unitune.data.quality.findings import Quality
from unitune.documents import Closed
from unitune.findings import Finding

Purpose = Literal["train", "validation", "test"]


class Lengths(Closed):
    """Characters per row, over all messages (`unitune plan` counts tokens)."""

    shortest: int
    median: int
    longest: int

    @classmethod
    def of(cls, counts: Mapping[int, int]) -> Self | None:
        """Summarise a count of lengths; None if it is empty."""
        if not counts:
            return None
        lengths = sorted(counts)
        before = list(accumulate(counts[length] for length in lengths))
        median = lengths[bisect_right(before, (before[-1] - 1) // 2)]
        return cls(shortest=lengths[0], median=median, longest=lengths[-1])


class SourceRows(Closed):
    """Rows of one source of a mixture."""

    name: str
    rows: int
    """Rows that may be trained on."""
    used: int
    """Rows that are trained on."""


class FileReport(Closed):
    """Figures of one data file."""

    name: str
    """Path as given on the command line or in the job."""
    purpose: Purpose | None = None
    """Purpose in the job; None outside a job."""
    read_as: str = ""
    """One line on the file format, the kind of rows and the keys that were read."""
    rows: int
    """Usable rows."""
    messages: int
    """Messages in all rows."""
    roles: dict[str, int]
    """Messages by role."""
    duplicates: int
    """Rows equal to an earlier row apart from their id."""
    contradictions: int
    """Rows with the input of an earlier row and another answer."""
    shared: dict[Kind, int] = {}  # noqa: RUF012 - pydantic copies it
    """Rows whose question is in an earlier file of the job, by kind of match."""
    characters: Lengths | None
    """Lengths of the rows."""
    images: int = 0
    """Images in all rows."""
    parts: dict[Purpose, int] = {}  # noqa: RUF012 - pydantic copies it
    """Rows of a training file by purpose, if parts of it are held out."""
    sources: tuple[SourceRows, ...] = ()
    """Sources of a mixture."""


class DataReport(Printed, Closed):
    """Result of a check; `unitune check --json` prints it unchanged."""

    schema_version: Literal[1] = 1
    files: tuple[FileReport, ...]
    findings: tuple[Finding, ...]
    """Findings by file and line, then findings about several files."""
    quality: Quality | None = None
    """Suspicious rows in the training data; only `unitune check` looks for them."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that must be corrected before a launch."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def __repr__(self) -> str:
        return f"<DataReport {len(self.files)} files, {len(self.errors)} errors>"
