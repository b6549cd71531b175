"""Rows of a large file, kept on disk in canonical form and read again as often as they are wanted.

A row in memory takes 2 KB, and on disk what it says. A plan goes over the rows several times, after
a check that has read and judged them once; reading them back takes a tenth of that.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import IO, overload

from unitune.data.dataset import Row
from unitune.data.example import Example

READ_BYTES = 1 << 18
"""Read at once; a longer row is read whole."""


def _close(file: IO[bytes]) -> None:
    with suppress(OSError):  # of a full disk: what could not be written is not wanted any more
        file.close()


class Spool:
    """A temporary file of rows, gone when nothing refers to it any more."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the rows
        weakref.finalize(self, _close, self._file)
        self._starts = array("Q", [0])
        self._lines = array("Q")

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, row: Row) -> None:
        """Keep a row."""
        written = self._file.write(row.example.line.encode())
        self._starts.append(self._starts[-1] + written)
        self._lines.append(row.line)

    @property
    def rows(self) -> SpooledRows:
        """All rows so far."""
        self._file.flush()
        return SpooledRows(self, range(len(self)))

    def read(self, places: Sequence[int]) -> Iterator[Row]:
        """Read some of the rows, in order; several may read at a time."""
        at = 0
        while at < len(places):
            start, end = self._starts[places[at]], at + 1
            while end < len(places) and self._starts[places[end] + 1] - start <= READ_BYTES:
                end += 1
            size = self._starts[places[end - 1] + 1] - start
            block = os.pread(self._file.fileno(), size, start)
            for place in places[at:end]:
                text = block[self._starts[place] - start : self._starts[place + 1] - start]
                yield Row(self._lines[place], Example.model_validate_json(text))
            at = end


class SpooledRows(Sequence[Row]):
    """Rows that are read when they are asked for.

    Args:
        spool: Where they are kept.
        places: Which of them, ascending.
    """

    def __init__(self, spool: Spool, places: Sequence[int]) -> None:
        self._spool = spool
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def picked(self, places: Iterable[int]) -> SpooledRows:
        """Return some of these rows.

        Args:
            places: Which, counted from 0, ascending.
        """
        return SpooledRows(self._spool, array("Q", (self._places[at] for at in places)))

    def __iter__(self) -> Iterator[Row]:
        return self._spool.read(self._places)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> SpooledRows: ...
    def __getitem__(self, index: int | slice) -> Row | SpooledRows:
        if isinstance(index, slice):
            return SpooledRows(self._spool, self._places[index])
        return next(self._spool.read([self._places[index]]))
