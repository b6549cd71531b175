"""A file of examples: the one object that training, cost and evaluation share.

Rows are a tuple, or, of a file that is large, read from disk when they are wanted
(`unitune.data.spool`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from unitune.data.example import Example, digest_all

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """An example and the line of the file that it came from."""

    line: int
    example: Example


@dataclass(frozen=True, slots=True)
class Dataset:
    """Examples with their place of origin.

    Args:
        name: File name, for messages.
        rows: In the file's order.
    """

    name: str
    rows: Sequence[Row]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Example]:
        return (row.example for row in self.rows)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the rendered rows, whatever file format they came from."""
        return digest_all(row.content for row in self)

    @property
    def jsonl(self) -> str:
        """The rows as canonical JSON Lines, as backends receive them."""
        return "".join(row.line + "\n" for row in self)


def spread(rows: Sequence[T], most: int) -> Sequence[T]:
    """Return at most so many rows, evenly spread over all."""
    return rows[:: max(1, -(-len(rows) // most))]
