"""Find repeated rows, contradictory answers and repeated ids in one file.

Each row takes 48 bytes on disk. By 64-bit hashes, two of 10⁷ rows collide in one of 370,000 files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from unitune.data.example import Example, called, digest
from unitune.data.number_table import NumberTable, later_and_first
from unitune.findings import Finding, error, warning

if TYPE_CHECKING:
    from unitune.data.dataset import Row


def key(text: str) -> int:
    """Return 64 bits of a text's hash."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])


class Repeats:
    """Hashes of a file's rows, for finding repeats."""

    def __init__(self) -> None:
        self._rows = NumberTable(4)
        self._ids = NumberTable(2)

    def add(self, row: Row, input_key: str) -> None:
        """Add the next row with its `Example.input_key`."""
        example = row.example
        turns = (*example.messages, *(example.non_preferred_output or ()))
        calls = [called(turn.tool_calls) for turn in turns]
        bare = example
        if any(calls):
            without = [replace(turn, tool_calls=None, tool_call_id=None) for turn in turns]
            bare = example.model_copy(
                update={"messages": tuple(without), "non_preferred_output": None}
            )
        content = bare.content
        content.pop("id", None)
        if example.id:
            self._ids.append(len(self._rows), key(example.id))
        answer = _key([example.answer, called(example.messages[-1].tool_calls)])
        self._rows.append(row.line, _key([content, calls]), _question(example, input_key), answer)

    def findings(
        self, words: Callable[[int], str] = "line {}".format, *, ids_are_cases: bool
    ) -> Iterator[tuple[int, Finding]]:
        """Yield findings about repeats, each with the position of the later row."""
        lines, rows, questions, answers = map(self._rows.column, range(4))
        equal = bytearray(len(rows))
        for at, first in later_and_first(rows):
            equal[at] = True
            finding = warning(
                "duplicate",
                f"the row equals the one on {words(lines[first])}.",
                "Keep one, and give it a weight if it should count more.",
            )
            yield at, finding.at(line=lines[at])
        for at, first in later_and_first(questions):
            if answers[at] != answers[first]:
                finding = warning(
                    "contradiction",
                    f"the row has the input of the one on {words(lines[first])}, but another "
                    "answer.",
                    "If only one answer is right, remove the other row.",
                )
                yield at, finding.at(line=lines[at])
        severity = error if ids_are_cases else warning
        named, ids = self._ids.column(0), self._ids.column(1)
        for entry, first in later_and_first(ids):
            if not equal[at := named[entry]]:
                finding = severity(
                    "repeated-id",
                    f"the id is already used on {words(lines[named[first]])}.",
                    "Give every case a unique id or none.",
                )
                yield at, finding.at(line=lines[at])


def _question(example: Example, input_key: str) -> int:
    """Return the key that two contradictory rows share: for preferences, input and answer pair."""
    if example.non_preferred_output is None:
        return int(input_key[:16], 16)
    turns = (example.messages[-1], *example.non_preferred_output)
    return _key([input_key, sorted(digest([turn.text, called(turn.tool_calls)]) for turn in turns)])


def _key(value: list[object]) -> int:
    return int(digest(value)[:16], 16)
