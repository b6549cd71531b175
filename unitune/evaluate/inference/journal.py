"""Files of recorded answers: `Record` lines that survive a killed process.

A line is appended, whole, as soon as there is an answer. A process killed at any moment leaves at
worst a torn last line, which the next one cuts off; so at most what was in flight is requested
again. The file only grows: of several lines for one question the last counts, and a line whose
`Record.request_hash` no request has any more (another model, prompt or setting) counts for nothing.
One process writes at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import RawIOBase
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from unitune.errors import Mismatch
from unitune.evaluate.records import Record
from unitune.workspace.filesystem import no_link
from unitune.workspace.locks import locked

BEGINNING = b'{"contender":'
"""Of every line; a torn line that begins otherwise is not ours to cut off."""
WAIT_SECONDS = 1.0
"""A killed process frees its files at once; one that still writes after this goes on writing."""

Line = TypeVar("Line")
_RECORD = TypeAdapter(Record)


def line_of(record: Record) -> str:
    """Return a record as a line of its file, without its end."""
    return _RECORD.dump_json(record, exclude_none=True).decode()


def read_record(line: str | bytes) -> Record:
    """Return the record of a line.

    Raises:
        ValidationError: It is none.
    """
    return _RECORD.validate_json(line)


class Journal:
    """Recorded answers, in memory and in their file; open one with `open_journal`.

    `origins` has, by contender, the `Record.origin` of its model: it is recorded with each answer,
    and answers of another origin do not count.
    """

    def __init__(self, file: RawIOBase, records: Iterable[Record]) -> None:
        self.origins: dict[str, str] = {}
        self._file = file
        self._records: dict[tuple[str, str, str], Record] = {}
        self._remember(records)

    def answer(self, contender: str, case: str, request_hash: str) -> Record | None:
        """Return the recorded answer to this request; None when there is none, or an error."""
        record = self.own(contender, case, request_hash)
        return None if record is None or record.error is not None else record

    def own(self, contender: str, case: str, request_hash: str) -> Record | None:
        """Return the last record of this request, an answer or an error, of the own origin."""
        record = self.last(contender, case, request_hash)
        return record if record and record.origin == self._origin(contender) else None

    def last(self, contender: str, case: str, request_hash: str) -> Record | None:
        """Return the last record of this request, an answer or an error."""
        return self._records.get((contender, case, request_hash))

    def model_of(self, origin: str) -> str | None:
        """Return the fingerprint of the model that gave the last record of an origin."""
        models = [record.model for record in self if record.origin == origin]
        return models[-1] if models else None

    def other_origins(self, contender: str) -> list[str]:
        """Return from where else there are answers under a contender's name."""
        origins = {record.origin for record in self if record.contender == contender}
        return sorted(origins - {self._origin(contender)})

    def _origin(self, contender: str) -> str:
        return self.origins.get(contender, "")

    def __iter__(self) -> Iterator[Record]:
        """The last record of each request."""
        return iter(self._records.values())

    def append(self, records: Iterable[Record]) -> None:
        """Write records to the file, before anything counts them."""
        new = tuple(replace(record, origin=self._origin(record.contender)) for record in records)
        if new:
            lines = "".join(f"{line_of(record)}\n" for record in new)
            write_whole(self._file, lines.encode())
            self._remember(new)

    def _remember(self, records: Iterable[Record]) -> None:
        for record in records:
            key = record.contender, record.case, record.request_hash
            self._records.pop(key, None)  # the order is that of the last lines
            self._records[key] = record


@contextmanager
def open_journal(path: Path) -> Generator[Journal]:
    """Open a file of records for reading and appending; it and its folder are made if need be.

    Raises:
        LockTimeout: Another process is writing to it.
        Mismatch: A line is no record.
        UserError: It is a symbolic link.
    """

    def refuse(line: bytes, number: int) -> Mismatch:
        return Mismatch(
            f"{path}:{number} is no recorded answer: {line[:80]!r}. "
            "Choose another folder (unitune compare FILE --output DIR), or remove the file."
        )

    def read(line: bytes, number: int) -> Record:
        try:
            return read_record(line)
        except ValidationError as error:
            raise refuse(line, number) from error

    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        locked(path, str(path), WAIT_SECONDS),
        open(path, "a+b", buffering=0, opener=no_link) as file,
    ):
        yield Journal(file, heal(file, BEGINNING, read, refuse))


def write_whole(file: RawIOBase, content: bytes) -> None:
    """Append to a file without a buffer, so that it stands there when this returns."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def heal(
    file: RawIOBase,
    beginning: bytes,
    read: Callable[[bytes, int], Line],
    refuse: Callable[[bytes, int], Exception],
) -> list[Line]:
    """Return the lines, and cut a torn last line off; a file of other content is left alone.

    Args:
        file: Open for reading and appending.
        beginning: Of every line; a torn line that begins otherwise is not ours.
        read: Makes a line out of its bytes and its number, or raises.
        refuse: Makes the error for a line that is not ours.
    """
    file.seek(0)
    *whole, torn = file.read().split(b"\n")
    lines = [read(line, number) for number, line in enumerate(whole, start=1)]
    if not torn.startswith(beginning[: len(torn)]):
        raise refuse(torn, len(whole) + 1)
    file.truncate(file.tell() - len(torn))
    file.seek(0, os.SEEK_END)
    return lines
