"""Store examples for training, cost and evaluation, in memory or on disk (`Spool`)."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, overload

from unitune.data.example import Example, digest_all
from unitune.data.number_table import NumberTable, temporary_file
from unitune.findings import Finding
from unitune.workspace.progress import counted

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """An example and its line in the file."""

    line: int
    example: Example


@dataclass(frozen=True, slots=True)
class Dataset:
    """Examples with their places of origin.

    Args:
        name: File name, for messages.
        rows: Rows in file order.
        source: Maps a line counted over several files to the file and its line there.
    """

    name: str
    rows: Sequence[Row]
    source: Callable[[int], tuple[str, int]] | None = field(default=None, compare=False, repr=False)

    def place(self, row: Row) -> tuple[str, int]:
        """Return the file name and the line of a row."""
        if self.source is None:
            return self.name, row.line
        file, line = self.source(row.line)
        return Path(file).name, line

    def located(self, finding: Finding, row: Row) -> Finding:
        """Return a finding at the place of a row."""
        file, line = self.place(row)
        return finding.at(file=file, line=line)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Example]:
        return (row.example for row in self.rows)

    def picked(self, positions: Sequence[int]) -> Dataset:
        """Return a dataset of the rows at some ascending positions."""
        if isinstance(self.rows, SpooledRows):
            return replace(self, rows=self.rows.picked(positions))
        return replace(self, rows=tuple(self.rows[at] for at in positions))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the rendered rows, independent of the file format."""
        content = (row.content for row in self)
        return digest_all(counted(content, "hashing rows", len(self)))

    @property
    def jsonl(self) -> str:
        """The rows as canonical JSON Lines, the form that backends receive."""
        lines = (row.line + "\n" for row in self)
        return "".join(counted(lines, "writing rows", len(self)))


def spread(rows: Sequence[T], most: int) -> Sequence[T]:
    """Return at most `most` rows, evenly spread."""
    return rows[:: max(1, -(-len(rows) // most))]


class Spool:
    """Temporary file of rows, deleted when nothing refers to it."""

    def __init__(self) -> None:
        self._file = temporary_file(self)
        self._size = 0
        self._index = NumberTable(3)

    def add(self, row: Row) -> None:
        """Append a row."""
        size = self._file.write(row.example.line.encode())
        self._index.append(row.line, self._size, size)
        self._size += size

    @property
    def rows(self) -> SpooledRows:
        """All rows added until now."""
        self._file.flush()
        return SpooledRows(self, range(len(self._index)))

    def read(self, at: int) -> Row:
        """Return the row at a position. Threads may read at the same time."""
        line, start, size = self._index[at]
        text = os.pread(self._file.fileno(), size, start)
        return Row(line, Example.model_validate_json(text))


class SpooledRows(Sequence[Row]):
    """Rows read from disk on demand."""

    def __init__(self, spool: Spool, positions: Sequence[int]) -> None:
        self._spool = spool
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def picked(self, positions: Iterable[int]) -> SpooledRows:
        """Return the rows at some ascending positions."""
        return SpooledRows(self._spool, array("I", (self._positions[at] for at in positions)))

    def __iter__(self) -> Iterator[Row]:
        return map(self._spool.read, self._positions)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> SpooledRows: ...
    def __getitem__(self, index: int | slice) -> Row | SpooledRows:
        if isinstance(index, slice):
            return SpooledRows(self._spool, self._positions[index])
        return self._spool.read(self._positions[index])
