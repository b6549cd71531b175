"""Recorded answers: `Record` lines that survive a killed process, and answers of other comparisons.

A line is appended, whole, as soon as there is an answer. A process killed at any moment leaves at
worst a torn last line, which the next one cuts off; so at most what was in flight is requested
again. The file only grows: of several lines for one question the last counts, and a line whose
`Record.request_hash` no request has any more (another model, prompt or setting) counts for nothing.
One process writes at a time.

`ResponseCache` keeps answers of all comparisons of a ledger's folder in a small SQLite file, by
`engine.request_hash`, which covers the model first: two models never share an answer. It saves
requests and is no record: where the file cannot be used, everything is requested.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from io import FileIO, RawIOBase
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from unitune.errors import Mismatch
from unitune.evaluate.records import Record
from unitune.models import Reply
from unitune.workspace.filesystem import no_link, private_file, private_folder
from unitune.workspace.home import make_folder
from unitune.workspace.locks import locked
from unitune.workspace.own_files import own_file

# Of every line; a torn line that begins otherwise is not ours to cut off
BEGINNING = b'{"contender":'
# A killed process frees its files at once; one that still writes after this goes on writing
WAIT_SECONDS = 1.0
CACHE = "answers.sqlite"
CACHE_WAIT_SECONDS = 1.0  # for another process that writes; then this one does without
# Answers of one transaction: each takes a write to disk, and the last can be requested again
WRITTEN_TOGETHER = 100
KEPT_FINISHES = ("stop", "length")

Line = TypeVar("Line")
_RECORD = TypeAdapter(Record)
_REPLY = TypeAdapter(Reply)


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
        self._earlier = set(self._records)

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

    def is_earlier(self, record: Record) -> bool:
        """Return whether a record of this file was there before it was opened."""
        return (record.contender, record.case, record.request_hash) in self._earlier

    def model_of(self, origin: str) -> str | None:
        """Return the fingerprint of the model that gave the last record of an origin."""
        models = [record.model for record in self if record.origin == origin]
        return models[-1] if models else None

    def origin_of(self, contender: str, beginning: str) -> str | None:
        """Return the origin, of those that begin so, of a contender's last record."""
        origins = [record.origin for record in self if record.contender == contender]
        return next((each for each in reversed(origins) if each.startswith(beginning)), None)

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
            self._earlier -= {(each.contender, each.case, each.request_hash) for each in new}

    def _remember(self, records: Iterable[Record]) -> None:
        for record in records:
            key = record.contender, record.case, record.request_hash
            self._records.pop(key, None)  # the order is that of the last lines
            self._records[key] = record


@contextmanager
def open_journal(path: Path, *, replay: bool = False) -> Generator[Journal]:
    """Open a file of records for reading and appending; it and its folder are made if need be.

    Args:
        path: The file.
        replay: Whether to take its records whoever wrote them.

    Raises:
        LockTimeout: Another process is writing to it.
        Mismatch: A line is no record, or unitune did not write the file here for this user.
        UserError: It is a symbolic link.
    """
    advice = "Choose another folder (unitune compare FILE --output DIR), or remove the file."
    make_folder(path.parent)
    with locked(path, str(path), WAIT_SECONDS), open_own(path, replay=replay) as file:
        yield Journal(file, heal(file, BEGINNING, read_record, "recorded answer", advice))


def open_own(path: Path, *, replay: bool) -> AbstractContextManager[FileIO]:
    """Open a file that unitune wrote here for this user, or any file for a replay.

    Raises:
        Mismatch: It has content of another origin, and this is not a replay.
    """
    if replay:
        return FileIO(path, "a+", opener=no_link)
    return own_file(path, "Pass --replay to evaluate recorded answers, or name another --output.")


def write_whole(file: RawIOBase, content: bytes) -> None:
    """Append to a file without a buffer, so that it stands there when this returns."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def heal(
    file: FileIO, beginning: bytes, read: Callable[[bytes], Line], what: str, advice: str
) -> list[Line]:
    """Return the lines, and cut a torn last line off; a file of other content is left alone.

    A line that `read` (ValueError) refuses, or a torn one with another beginning, is not ours: the
    Mismatch says what it is not, and gives the advice.
    """

    def refusal(number: int, line: bytes) -> Mismatch:
        return Mismatch(f"{file.name}:{number} is no {what}: {line[:80]!r}. {advice}")

    file.seek(0)
    *whole, torn = file.read().split(b"\n")
    lines: list[Line] = []
    for number, line in enumerate(whole, start=1):
        try:
            lines.append(read(line))
        except ValueError as error:
            raise refusal(number, line) from error
    if not torn.startswith(beginning[: len(torn)]):
        raise refusal(len(whole) + 1, torn)
    file.truncate(file.tell() - len(torn))
    file.seek(0, os.SEEK_END)
    return lines


class ResponseCache:
    """Answers by the hash of their request, in a file that only the user may read.

    Args:
        file: None: no answer is known, and none is kept.
        use_cache: Whether the user wants such answers; they are kept in any case.
    """

    def __init__(self, file: sqlite3.Connection | None, *, use_cache: bool) -> None:
        self._file = file
        self._use_cache = use_cache
        self._fresh = 0

    def get(self, request_hash: str) -> Reply | None:
        """Return the answer to an earlier request, where the user wants such answers."""
        if self._file is not None and self._use_cache:
            with suppress(sqlite3.Error, ValueError):
                rows = self._file.execute("SELECT value FROM kept WHERE key = ?", (request_hash,))
                if row := rows.fetchone():
                    return _REPLY.validate_json(row[0])
        return None

    def put(self, request_hash: str, reply: Reply) -> None:
        """Keep an answer, unless it is an error or a refusal."""
        if self._file is None or reply.error or reply.finish_reason not in KEPT_FINISHES:
            return
        value = _REPLY.dump_json(reply, exclude_none=True)
        with suppress(sqlite3.Error):
            self._file.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (request_hash, value))
            self._fresh += 1
            if self._fresh >= WRITTEN_TOGETHER:
                self.commit()

    def commit(self) -> None:
        """Write to the file what was put."""
        if self._file is not None:
            with suppress(sqlite3.Error):
                self._file.commit()
                self._fresh = 0


@contextmanager
def open_response_cache(folder: Path, *, use_cache: bool) -> Generator[ResponseCache]:
    """Open the answers of a folder; what cannot be opened knows nothing."""
    file = ready = None
    with suppress(sqlite3.Error, OSError):
        private_folder(folder)
        private_file(folder / CACHE)
        # A comparison inside a running event loop sends requests from a thread of its own.
        file = sqlite3.connect(folder / CACHE, timeout=CACHE_WAIT_SECONDS, check_same_thread=False)
        # What a power cut takes away is requested again; waiting for the disk holds up others.
        file.execute("PRAGMA synchronous = OFF")
        file.execute("CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value BLOB)")
        ready = file
    cache = ResponseCache(ready, use_cache=use_cache)
    try:
        yield cache
    finally:
        cache.commit()
        if file is not None:
            file.close()
