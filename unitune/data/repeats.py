"""What repeats itself in one file: equal rows, questions answered twice, ids given twice.

Of each row 40 bytes are kept, whatever its length: 64 bits of each hash, of which two of 10⁷ rows
are equal by chance once in 370,000 such files.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from unitune.data.example import Example, digest
from unitune.findings import Finding, error, warning

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unitune.data.dataset import Row


def key(text: str) -> int:
    """Return 64 bits of a text's hash."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])


class Repeats:
    """The rows of a file, as far as they may repeat one another."""

    def __init__(self) -> None:
        self._lines = array("Q")
        self._rows = array("Q")
        self._questions = array("Q")
        self._answers = array("Q")
        self._ids = array("Q")

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, row: Row, input_key: str) -> None:
        """Take in the next row, with its `Example.input_key`."""
        example = row.example
        content = example.content
        content.pop("id", None)
        self._lines.append(row.line)
        self._rows.append(_key([content]))
        self._questions.append(_question(example, input_key))
        self._answers.append(_key([example.answer, example.messages[-1].tool_calls]))
        self._ids.append(key(example.id) if example.id else 0)

    def findings(
        self, words: Callable[[int], str] = "line {}".format, *, ids_are_cases: bool
    ) -> Iterator[tuple[int, Finding]]:
        """Yield what repeats an earlier row, with the position of the later row.

        Args:
            words: Where a row stands, by its number.
            ids_are_cases: Whether two rows of one id are an error.
        """
        equal = _firsts(self._rows)
        for at, line in self._later(equal):
            yield (
                at,
                warning(
                    "duplicate",
                    f"the row equals the one on {words(line)}.",
                    "Keep one, or give it a weight if it is meant to count more.",
                ).at(line=self._lines[at]),
            )
        first = _firsts(self._questions)
        for at, line in self._later(first):
            if self._answers[at] != self._answers[first[at]]:
                yield (
                    at,
                    warning(
                        "contradiction",
                        f"the row asks the same as the one on {words(line)}, with another answer.",
                        "Decide which answer is right and leave the other out.",
                    ).at(line=self._lines[at]),
                )
        for at, line in self._later(_firsts(self._ids)):
            if self._ids[at] and equal[at] == at:
                yield (
                    at,
                    (error if ids_are_cases else warning)(
                        "repeated-id",
                        f"the id is that of another row, on {words(line)}.",
                        "Give every case an id of its own, or none.",
                    ).at(line=self._lines[at]),
                )

    def _later(self, first: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Yield the positions of rows that repeat something, with the line that had it first."""
        import numpy as np  # noqa: PLC0415 - slow to import

        for at in (first != np.arange(len(first))).nonzero()[0].tolist():
            yield at, self._lines[first[at]]


def _firsts(keys: array[int]) -> NDArray[np.int64]:
    """Return for each key where it stood first."""
    import numpy as np  # noqa: PLC0415 - slow to import

    _, first, group = np.unique(np.array(keys), return_index=True, return_inverse=True)
    return first[group]


def _question(example: Example, input_key: str) -> int:
    """Return what two rows must share to contradict each other.

    A question may well have several pairs of answers, so a preference contradicts another only
    where both weigh the same two.
    """
    if example.non_preferred_output is None:
        return int(input_key[:16], 16)
    turns = (example.messages[-1], *example.non_preferred_output)
    return _key([input_key, sorted(digest([turn.text, turn.tool_calls]) for turn in turns)])


def _key(value: list[object]) -> int:
    return int(digest(value)[:16], 16)
