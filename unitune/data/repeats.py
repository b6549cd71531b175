"""What repeats itself in one file: equal rows, questions answered twice, ids given twice.

Of each row some 60 bytes of hashes are kept, whatever its length.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain

from pydantic_core import PydanticSerializationError

from unitune.data.dataset import Row
from unitune.data.example import Example, digest
from unitune.data.seen import KEY_BYTES, FirstSeen
from unitune.findings import Finding, clip, error, warning

ANSWER_BYTES = 8
"""Of a hash; it is only held against those of rows that ask the same."""


class Repeats:
    """The rows of a file so far, as far as later ones may repeat them."""

    def __init__(self) -> None:
        self._lines = array("Q")
        self._answers = bytearray()
        self._rows = FirstSeen()
        self._questions = FirstSeen()
        self._ids = FirstSeen()

    def found(
        self, rows: Sequence[Row], asked: Sequence[str], *, ids_are_cases: bool
    ) -> Iterator[Iterable[Finding]]:
        """Yield for each of the next rows what there is to say beside the rows before it.

        Args:
            rows: The next ones.
            asked: `Example.input_key` of each.
            ids_are_cases: Whether two rows of one id are an error.
        """
        numbers = range(len(self._lines), len(self._lines) + len(rows))
        self._lines.extend(row.line for row in rows)
        equal = self._rows.firsts([_row_key(row.example) for row in rows], numbers)
        questions = [_question_key(row.example, key) for row, key in zip(rows, asked, strict=True)]
        same_question = self._questions.firsts(questions, numbers)
        self._answers += b"".join(_answer_key(row.example) for row in rows)
        named = [at for at, row in enumerate(rows) if row.example.id]
        ids = [_id_key(rows[at].example) for at in named]
        same_id = dict(
            zip(named, self._ids.firsts(ids, [numbers[at] for at in named]), strict=True)
        )
        tell = error if ids_are_cases else warning
        for at, row in enumerate(rows):
            first = self._lines[equal[at]]
            yield chain(
                self._duplicate(row, first),
                self._contradiction(row, numbers[at], same_question[at]),
                self._repeated_id(row, same_id.get(at), tell) if first == row.line else (),
            )

    def _duplicate(self, row: Row, first: int) -> Iterator[Finding]:
        if first != row.line:
            yield warning(
                "duplicate",
                f"the row equals the one on line {first}.",
                "Keep one, or give it a weight if it is meant to count more.",
            )

    def _contradiction(self, row: Row, number: int, first: int) -> Iterator[Finding]:
        if self._answer(first) != self._answer(number):
            how = "answers" if row.example.non_preferred_output is None else "prefers"
            yield warning(
                "contradiction",
                f"the row asks the same as the one on line {self._lines[first]}, but {how} "
                f"differently: {clip(row.example.answer)}.",
                "Decide which answer is right and leave the other out.",
            )

    def _answer(self, number: int) -> bytearray:
        return self._answers[number * ANSWER_BYTES : (number + 1) * ANSWER_BYTES]

    def _repeated_id(
        self, row: Row, first: int | None, tell: Callable[[str, str, str], Finding]
    ) -> Iterator[Finding]:
        if first is None or self._lines[first] == row.line:
            return
        yield tell(
            "repeated-id",
            f"the id {clip(row.example.id)} is that of another row, on line {self._lines[first]}.",
            "Give every case an id of its own, or none.",
        )


def _row_key(example: Example) -> bytes:
    """Return what two rows share that are equal in all but their ids."""
    if example.is_plain:
        with suppress(PydanticSerializationError):  # half of a character, in a row made in Python
            line = example.model_dump_json(exclude={"id"}, exclude_defaults=True)
            return hashlib.sha256(line.encode()).digest()[:KEY_BYTES]
    content = example.content
    content.pop("id", None)
    return _short_digest(content, KEY_BYTES)


def _id_key(example: Example) -> bytes:
    return _short_digest(example.id, KEY_BYTES)


def _question_key(example: Example, asked: str) -> bytes:
    """Return what two rows must share to contradict each other.

    One question may well have several pairs of answers, so a preference contradicts another only
    where both weigh the same two.

    Args:
        example: The row.
        asked: Its `input_key`.
    """
    if example.non_preferred_output is None:
        return bytes.fromhex(asked)[:KEY_BYTES]
    turns = (example.messages[-1], *example.non_preferred_output)
    answers = sorted(digest([turn.text, turn.tool_calls]) for turn in turns)
    return _short_digest([asked, answers], KEY_BYTES)


def _answer_key(example: Example) -> bytes:
    answer = [example.answer, example.messages[-1].tool_calls]
    return _short_digest(answer, ANSWER_BYTES)


def _short_digest(value: object, size: int) -> bytes:
    """Return a hash of JSON values, short enough to keep one for every row of a big file."""
    return bytes.fromhex(digest([value]))[:size]
