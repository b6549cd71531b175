"""What is worth a look in training rows: causes, the rows of each in the order of doubt.

No score is given: how good a file is depends on what it is for. A cause lists the rows that a
person should look at first, each beside the rows that it is held against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unitune.data.privacy.masking import without_secrets
from unitune.data.questions import Turns
from unitune.security.spec import Closed

MOST_ISSUES = 1000  # of each cause, so that a page of all still opens at once; the total is said
MOST_LETTERS = 300  # of a text that is shown; the row itself stands in its file
# Letters of it in which secrets are looked for, so that none of those shown is half of one
LOOKED_THROUGH = 4000


@dataclass(frozen=True, slots=True)
class QualityRow:
    """What is looked at of a training row.

    Args:
        line: Counted over all files.
        question: Normalised, as `unitune.data.questions.question` has it.
        text: The question as it stands.
        answer: The answer, or its tool calls; empty where there is none, None where the row weighs
            or rates answers.
        characters: Of all messages together.
    """

    line: int
    question: Turns
    text: str
    answer: str | None
    characters: int


@dataclass(frozen=True, slots=True)
class RowIssue:
    """Why a row is worth a look.

    Args:
        at: Its position.
        why: One sentence.
        beside: Positions of the rows that it is held against.
    """

    at: int
    why: str
    beside: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RowIssues:
    """The rows of one cause.

    Args:
        code: Stable name, e.g. ``label-error``.
        title: The cause in a few words.
        fix: What to do.
        rows: The most doubtful first.
        likely: How many rows of the file are probably wrong.
    """

    code: str
    title: str
    fix: str
    rows: Sequence[RowIssue]
    likely: int = 0


class ShownRow(Closed):
    """A row as a person sees it: where it stands, and the beginning of its texts."""

    file: str
    line: int
    question: str
    answer: str


class ShownIssue(Closed):
    """A row that is worth a look."""

    row: ShownRow
    why: str
    """One sentence."""
    beside: tuple[ShownRow, ...] = ()
    """Rows that it is held against, the nearest first."""


class Cause(Closed):
    """What several rows are worth a look for."""

    code: str
    """Stable name, e.g. ``label-error``; tools may rely on it."""
    title: str
    fix: str
    """What to do."""
    total: int
    """How many rows there are; at most 1,000 of them are listed."""
    likely: int = 0
    """How many of them are probably wrong, where that is estimated."""
    cases: int = 0
    """How many of these are kept for the test."""
    issues: tuple[ShownIssue, ...]
    """The most doubtful first."""


class Quality(Closed):
    """What is worth a look in a training file."""

    rows: int
    """How many rows were looked at: those at the beginning."""
    cases: int = 0
    """How many of these are kept for the test."""
    is_whole: bool
    """Whether these are all; of a large file only the beginning is looked at."""
    causes: tuple[Cause, ...]
    """The most pressing first."""
    answers: dict[str, int] = {}  # noqa: RUF012 - pydantic copies it
    """Rows by answer, the most frequent first; only where answers are labels."""


def clipped(text: str) -> str:
    """Return a text on one line, cut where it is long, without what looks like a secret."""
    line = " ".join(without_secrets(text[:LOOKED_THROUGH]).split())
    return line if len(line) <= MOST_LETTERS else f"{line[:MOST_LETTERS].rstrip()}…"
