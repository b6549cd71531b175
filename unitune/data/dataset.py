"""Store examples for training, cost and evaluation, in memory or on disk (`Spool`).

Numbers of every row are in memory while rows are few, then in a temporary file (`NumberTable`).
"""

from __future__ import annotations

import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias, TypeVar, overload

from unitune.data.example import Example, digest_all
from unitune.files.system import read_at
from unitune.findings import Finding
from unitune.workspace.progress import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Positions: TypeAlias = NDArray[np.intp]
    Hashes: TypeAlias = NDArray[np.uint64]


UNSIGNED_64 = "Q"
BYTES = 8
BLOCK_ROWS = 1 << 14  # rows kept in memory, and written and read together
# Hashes compared together; numpy takes some 50 bytes for each
PART_ROWS = 1 << 19


def temporary_file(owner: object) -> IO[bytes]:
    """Open an unnamed file that is deleted when its owner is."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as its owner
    weakref.finalize(owner, _close, file)
    return file


def _close(file: IO[bytes]) -> None:
    with suppress(OSError):  # disk full: the data is no longer needed
        file.close()


class NumberTable:
    """Rows of `width` whole numbers from 0 to 2⁶⁴ - 1."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._recent = array(UNSIGNED_64)
        self._file: IO[bytes] | None = None
        self._written = 0  # in blocks

    def append(self, *row: int) -> None:
        """Append a row."""
        self._recent.extend(row)
        if len(self._recent) >= BLOCK_ROWS * self._width:
            self._file = self._file or temporary_file(self)
            self._file.write(self._recent)
            self._written += 1
            self._recent = array(UNSIGNED_64)

    def __len__(self) -> int:
        return self._written * BLOCK_ROWS + len(self._recent) // self._width

    def __getitem__(self, at: int) -> Sequence[int]:
        block, row = divmod(at, BLOCK_ROWS)
        if block < self._written:
            return self._read(at * self._width, self._width)
        return self._recent[row * self._width : (row + 1) * self._width]

    def column(self, at: int) -> Column:
        """Return one column."""
        return Column(self, at)

    def blocks(self, column: int) -> Iterator[array[int]]:
        """Yield a column block by block."""
        size = BLOCK_ROWS * self._width
        for block in range(self._written):
            yield self._read(block * size, size)[column :: self._width]
        yield self._recent[column :: self._width]

    def _read(self, start: int, count: int) -> array[int]:
        assert self._file is not None, "something was written"
        self._file.flush()
        return array(UNSIGNED_64, read_at(self._file.fileno(), count * BYTES, start * BYTES))


class Column(Sequence[int]):
    """A column of a table, including rows appended later."""

    def __init__(self, table: NumberTable, at: int) -> None:
        self._table = table
        self._at = at

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[int]:
        for block in self.blocks():
            yield from block

    def blocks(self) -> Iterator[array[int]]:
        """Yield the numbers block by block."""
        return self._table.blocks(self._at)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        return self._table[range(len(self))[index]][self._at]


def by_hash(column: Column) -> Iterator[tuple[Positions, Hashes]]:
    """Yield rows' positions and hashes in parts that fit into memory, by ranges of hashes."""
    import numpy as np  # noqa: PLC0415 - slow to import

    parts = -(-len(column) // PART_ROWS)
    width = -(-(1 << 64) // max(parts, 1))
    for part in range(parts):
        start = 0
        positions: list[Positions] = []
        hashes: list[Hashes] = []
        for block in column.blocks():
            values = np.frombuffer(block, np.uint64)
            inside = values // width == part if parts > 1 else np.ones(len(values), np.bool_)
            positions.append(start + inside.nonzero()[0])
            hashes.append(values[inside])
            start += len(values)
        yield np.concatenate(positions), np.concatenate(hashes)


def later_and_first(column: Column) -> Iterable[tuple[int, int]]:
    """Return positions of rows with an earlier equal hash, each with the first such row."""
    import numpy as np  # noqa: PLC0415 - slow to import

    pairs: list[NDArray[np.intp]] = []
    for positions, hashes in by_hash(column):
        _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
        firsts = positions[first[group]]
        later = firsts != positions
        pairs.append(np.stack((positions[later], firsts[later]), axis=1))  # (rows, 2)
    if not pairs:
        return ()
    joined = np.concatenate(pairs)
    ordered = joined[np.argsort(joined[:, 0])]
    return ((int(at), int(first)) for at, first in ordered)


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
        content = (row.identity for row in self)
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
        text = read_at(self._file.fileno(), size, start)
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
