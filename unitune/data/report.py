"""Describe data files in figures and findings, as `unitune check` prints them.

The report on suspicious training rows has their causes, and the rows in order of doubt.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, Self

from unitune._shown import Printed
from unitune.data.overlap import Kind
from unitune.data.privacy.redaction import without_secrets
from unitune.data.questions import Turns
from unitune.documents import Closed
from unitune.findings import Finding

MOST_ISSUES = 1000  # per cause, so that the page opens quickly; the total is reported
MOST_LETTERS = 300  # of each text shown
# Letters searched for secrets, so that the shown part never ends within one
LOOKED_THROUGH = 4000


@dataclass(frozen=True, slots=True)
class QualityRow:
    """Training row as the quality checks see it.

    `line` counts over all files; `answer` is None in a preference or rated row.
    """

    line: int
    question: Turns
    text: str
    answer: str | None
    characters: int
    has_images: bool


@dataclass(frozen=True, slots=True)
class RowIssue:
    """A suspicious row: its position, the reason, and positions of rows to compare it with."""

    at: int
    why: str
    related: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RowIssues:
    """Suspicious rows of one cause, most doubtful first, and the estimated number of wrong ones."""

    code: str
    title: str
    fix: str
    rows: Sequence[RowIssue]
    likely: int = 0


class ShownRow(Closed):
    """A row as shown to people: its place and the beginning of its texts."""

    file: str
    line: int
    question: str
    answer: str


class ShownIssue(Closed):
    """A suspicious row."""

    row: ShownRow
    why: str
    """Reason in one sentence."""
    related: tuple[ShownRow, ...] = ()
    """Rows to compare it with, nearest first."""


class Cause(Closed):
    """A cause for suspicion and its rows."""

    code: str
    """Stable name, e.g. ``label-error``."""
    title: str
    fix: str
    """Instruction."""
    total: int
    """Number of rows; at most 1,000 are listed."""
    likely: int = 0
    """Estimated number of wrong rows among them."""
    cases: int = 0
    """Number of these rows that are reserved for the test."""
    issues: tuple[ShownIssue, ...]
    """Rows, most doubtful first."""


class Quality(Closed):
    """Suspicious rows in a training file."""

    rows: int
    """Number of rows examined, from the beginning."""
    cases: int = 0
    """Number of these rows that are reserved for the test."""
    is_whole: bool
    """True if all rows were examined, not only the beginning of a large file."""
    causes: tuple[Cause, ...]
    """Causes, most urgent first."""
    answers: dict[str, int] = {}  # noqa: RUF012 - pydantic copies it
    """Rows per answer, most frequent first, if the answers are labels."""


def clipped(text: str) -> str:
    """Return a text on one line, shortened and with apparent secrets masked."""
    line = " ".join(without_secrets(text[:LOOKED_THROUGH]).split())
    return line if len(line) <= MOST_LETTERS else f"{line[:MOST_LETTERS].rstrip()}…"


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
