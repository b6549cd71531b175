"""Keep numbers of every row: in memory while rows are few, then in a temporary file."""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, TypeAlias, overload

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
        return array(UNSIGNED_64, os.pread(self._file.fileno(), count * BYTES, start * BYTES))


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
