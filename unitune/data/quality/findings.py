"""Define the report on suspicious training rows: causes, and rows in order of doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unitune.data.privacy.redaction import without_secrets
from unitune.data.questions import Turns
from unitune.documents import Closed

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
