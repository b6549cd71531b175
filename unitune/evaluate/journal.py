"""Where answers are written down: a file of `Record` lines that survives being killed.

A line is appended, whole, as soon as there is an answer. A process killed at any moment leaves at
worst a torn last line, which the next one cuts off; so at most what was in flight is asked again.
The file only grows: of several lines for one question the last counts, and a line whose
`Record.request_hash` no request has any more (another model, prompt or setting) counts for nothing.

One process writes at a time. Not here: asking (`unitune.evaluate.engine`) and totals, which are
computed from records alone (`unitune.evaluate.conclude`).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from unitune.errors import Mismatch
from unitune.evaluate.results import Record
from unitune.locks import locked

BEGINNING = b'{"contender":'
"""Of every line; a torn line that begins otherwise is not ours to cut off."""

WAIT_SECONDS = 1.0
"""A killed process frees its files at once; one that still writes after this goes on writing."""


class Journal:
    """Recorded answers, in memory and in their file; open one with `open_journal`."""

    def __init__(self, file: BinaryIO, records: Iterable[Record]) -> None:
        self._file = file
        self._records = {_key(record): record for record in records}

    def answer(self, contender: str, case: str, request_hash: str) -> Record | None:
        """Return the recorded answer to this very request; None when there is none, or an error."""
        record = self._records.get((contender, case, request_hash))
        return None if record is None or record.error is not None else record

    def append(self, records: Iterable[Record]) -> None:
        """Write answers down, before anybody counts them."""
        new = tuple(records)
        lines = "".join(f"{record.model_dump_json(exclude_none=True)}\n" for record in new)
        self._file.write(lines.encode())
        self._file.flush()
        self._records.update({_key(record): record for record in new})


@contextmanager
def open_journal(path: Path) -> Generator[Journal]:
    """Open a file of records for reading and appending, healing a torn last line.

    Args:
        path: The file; it and its folder are made when they are not there.

    Raises:
        Busy: Another process is writing to it.
        Mismatch: A line is no record.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path, str(path), WAIT_SECONDS), path.open("a+b") as file:
        yield Journal(file, _read(file, path))


def _key(record: Record) -> tuple[str, str, str]:
    return record.contender, record.case, record.request_hash


def _read(file: BinaryIO, path: Path) -> list[Record]:
    """Return the records, and cut a torn last line off; a file of other content is left alone."""
    file.seek(0)
    *whole, torn = file.read().split(b"\n")
    records = [_record(line, path, number) for number, line in enumerate(whole, start=1)]
    if not torn.startswith(BEGINNING[: len(torn)]):
        raise _no_record(torn, path, len(whole) + 1)
    file.truncate(file.tell() - len(torn))
    file.seek(0, os.SEEK_END)
    return records


def _record(line: bytes, path: Path, number: int) -> Record:
    try:
        return Record.model_validate_json(line)
    except ValidationError as error:
        raise _no_record(line, path, number) from error


def _no_record(line: bytes, path: Path, number: int) -> Mismatch:
    return Mismatch(
        f"{path}:{number} is no recorded answer: {line[:80]!r}. "
        "Choose another folder (unitune compare FILE --out DIR), or remove the file."
    )
