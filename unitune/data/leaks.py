"""Test cases that a model may have seen in training.

Two rows share a question when their user turns are equal after normalisation (Unicode NFKC, case,
white space). System prompts never count: all rows of a job tend to share one. A shared question is
a leak whatever its answer, and worse with the same answer. Only hashes are kept, so an index of a
big file stays small. `refuse` is what `evaluate.leaks: refuse` means, before a training is paid for
and again before a comparison.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example, digest
from unitune.errors import Leak

SHOWN_CASES = 5
"""Leaking cases named in a refusal; `unitune check` names all."""

KEY_BYTES = 16
"""128 bits of a hash: two of 10⁹ rows meet by chance once in 10²⁰ such files."""


@dataclass(frozen=True, slots=True)
class SharedCase:
    """A test case whose question stands in the training rows.

    Args:
        case: `Example.case_id` of the test row.
        line: Of the test row.
        train_line: Of the first training row with this question; with the same answer if there is
            one.
        same_answer: Whether a training row has the same answer too.
    """

    case: str
    line: int
    train_line: int
    same_answer: bool


@dataclass(slots=True)
class SeenRows:
    """An index of rows by question and answer."""

    _questions: dict[bytes, int] = field(default_factory=dict[bytes, int])
    _answered: dict[bytes, int] = field(default_factory=dict[bytes, int])

    def add(self, row: Row) -> None:
        """Remember a row."""
        question = _question_key(row.example)
        self._questions.setdefault(question, row.line)
        self._answered.setdefault(_answered_key(question, row.example), row.line)

    def shared(self, row: Row) -> SharedCase | None:
        """Return where a row's question was seen, or None."""
        question = _question_key(row.example)
        if question not in self._questions:
            return None
        same = self._answered.get(_answered_key(question, row.example))
        line = self._questions[question] if same is None else same
        return SharedCase(row.example.case_id, row.line, line, same_answer=same is not None)


def leaks(train: Dataset, test: Dataset) -> tuple[SharedCase, ...]:
    """Return the test cases whose question stands in the training rows.

    Args:
        train: Every row that the model or its prompt was made from, held-out rows included.
        test: The cases.

    Returns:
        In the order of the cases.
    """
    seen = SeenRows()
    for row in train.rows:
        seen.add(row)
    found = (seen.shared(row) for row in test.rows)
    return tuple(shared for shared in found if shared is not None)


def leaking_cases(seen: Iterable[Dataset], test: Dataset) -> dict[str, str]:
    """Return the test cases that stand in any of several sets of rows.

    Args:
        seen: Rows that the model or its prompt was made from.
        test: The cases.

    Returns:
        By `Example.case_id`: where the case and its first double stand, in words.
    """
    found: dict[str, str] = {}
    for rows in seen:
        for leak in leaks(rows, test):
            place = f"{test.name}:{leak.line} (as {rows.name}:{leak.train_line})"
            found.setdefault(leak.case, place)
    return found


def refuse(found: dict[str, str], test: Dataset) -> None:
    """Raise when test cases leak.

    Args:
        found: From `leaking_cases`.
        test: The cases.

    Raises:
        Leak: There is any.
    """
    if not found:
        return
    first = ", ".join(list(found.values())[:SHOWN_CASES])
    more = ", …" if len(found) > SHOWN_CASES else ""
    raise Leak(
        f"{len(found)} of {len(test)} test cases stand in training or validation rows: "
        f"{first}{more}. Take them out of one of the files, or set evaluate.leaks to `drop` "
        "(they are left out and counted) or `allow` (they count, and the report says so)."
    )


def short_digest(value: object) -> bytes:
    """Return a hash of JSON values, short enough to keep one for every row of a big file."""
    return bytes.fromhex(digest([value]))[:KEY_BYTES]


def _question_key(example: Example) -> bytes:
    prompt = example.prompt
    asked = (
        [turn for turn in prompt if turn.role == "user"]
        or [turn for turn in prompt if turn.role not in ("system", "developer")]
        or prompt
    )
    return short_digest([_normal(turn.text) for turn in asked])


def _answered_key(question: bytes, example: Example) -> bytes:
    return short_digest([question.hex(), _normal(example.answer or "")])


def _normal(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())
