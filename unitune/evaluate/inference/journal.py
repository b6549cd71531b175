"""Record answers so that they survive a killed process, and cache answers across comparisons.

The file only grows, and one process writes at a time. The last line of a question counts; lines
whose `Record.request_hash` no longer matches a request are ignored.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import FileIO, RawIOBase
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from unitune.errors import Mismatch
from unitune.evaluate.documents.records import Record
from unitune.files.filesystem import no_link, private_file, private_folder
from unitune.models import Reply
from unitune.workspace.home import make_folder
from unitune.workspace.own_files import locked, own_file

# Start of every line; a torn line with another start is not removed
BEGINNING = b'{"contender":'
# A killed process releases its files at once; after this time, another process is still writing
WAIT_SECONDS = 1.0
CACHE = "answers.sqlite"
CACHE_WAIT_SECONDS = 1.0  # wait for another process that writes; then continue without the cache
# Answers per transaction: each transaction writes to disk, and lost answers can be requested again
WRITTEN_TOGETHER = 100
KEPT_FINISHES = ("stop", "length", "tool_calls", "tool_use")

Line = TypeVar("Line")
_RECORD = TypeAdapter(Record)
_REPLY = TypeAdapter(Reply)


def line_of(record: Record) -> str:
    """Return a record as a line of its file, without the line end."""
    return _RECORD.dump_json(record, exclude_none=True).decode()


def read_record(line: str | bytes) -> Record:
    """Return the record of a line. Raises ValidationError."""
    return _RECORD.validate_json(line)


class Journal:
    """Recorded answers of `open_journal`. Only answers of the contender's `origins` count."""

    def __init__(self, file: RawIOBase, records: Iterable[Record]) -> None:
        self.origins: dict[str, str] = {}
        self._file = file
        self._records: dict[tuple[str, str, str], Record] = {}
        self._remember(records)
        self._earlier = set(self._records)

    def answer(self, contender: str, case: str, request_hash: str) -> Record | None:
        """Return the recorded answer to this request; None if it is missing or an error."""
        record = self.own(contender, case, request_hash)
        return None if record is None or record.error is not None else record

    def own(self, contender: str, case: str, request_hash: str) -> Record | None:
        """Return the last record of this request, answer or error, with the current origin."""
        record = self.last(contender, case, request_hash)
        return record if record and record.origin == self._origin(contender) else None

    def last(self, contender: str, case: str, request_hash: str) -> Record | None:
        """Return the last record of this request, answer or error, of any origin."""
        return self._records.get((contender, case, request_hash))

    def is_earlier(self, record: Record) -> bool:
        """Return whether a record was in the file when it was opened."""
        return (record.contender, record.case, record.request_hash) in self._earlier

    def model_of(self, origin: str) -> str | None:
        """Return the fingerprint of the model that gave an origin's last record."""
        models = [record.model for record in self if record.origin == origin]
        return models[-1] if models else None

    def origin_of(self, contender: str, beginning: str) -> str | None:
        """Return the origin of a contender's last record with this prefix."""
        origins = [record.origin for record in self if record.contender == contender]
        return next((each for each in reversed(origins) if each.startswith(beginning)), None)

    def other_origins(self, contender: str) -> list[str]:
        """Return other origins of a contender's answers."""
        origins = {record.origin for record in self if record.contender == contender}
        return sorted(origins - {self._origin(contender)})

    def _origin(self, contender: str) -> str:
        return self.origins.get(contender, "")

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the last record of each request."""
        return iter(self._records.values())

    def append(self, records: Iterable[Record]) -> None:
        """Write records to the file before they are used."""
        new = tuple(replace(record, origin=self._origin(record.contender)) for record in records)
        if new:
            lines = "".join(f"{line_of(record)}\n" for record in new)
            write_whole(self._file, lines.encode())
            self._remember(new)
            self._earlier -= {(each.contender, each.case, each.request_hash) for each in new}

    def _remember(self, records: Iterable[Record]) -> None:
        for record in records:
            key = record.contender, record.case, record.request_hash
            self._records.pop(key, None)  # keep the order of the last lines
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
    origin = "Pass --replay to evaluate recorded answers, or name another --output."
    with (
        locked(path, str(path), WAIT_SECONDS),
        FileIO(path, "a+", opener=no_link) if replay else own_file(path, origin) as file,
    ):
        yield Journal(file, heal(file, BEGINNING, read_record, "recorded answer", advice))


def write_whole(file: RawIOBase, content: bytes) -> None:
    """Append all of the content to an unbuffered file."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def heal(
    file: FileIO, beginning: bytes, read: Callable[[bytes], Line], what: str, advice: str
) -> list[Line]:
    """Return the lines of a file and cut off a torn last line.

    A line that `read` rejects (ValueError), or a torn one with another start, is not changed: the
    Mismatch describes it and gives the advice.
    """

    def refusal(number: int, line: bytes) -> Mismatch:
        return Mismatch(f"{file.name}:{number} is not a {what}: {line[:80]!r}. {advice}")

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
    """Answers of all comparisons by the hash of their request, in a private SQLite file.

    The hash covers the model. Without a usable file, everything is requested.
    """

    def __init__(self, file: sqlite3.Connection | None, *, use_cache: bool) -> None:
        self._file = file
        self._use_cache = use_cache
        self._fresh = 0

    def get(self, request_hash: str) -> Reply | None:
        """Return the answer to an earlier request, if the user wants cached answers."""
        if self._file is not None and self._use_cache:
            with suppress(sqlite3.Error, ValueError):
                rows = self._file.execute("SELECT value FROM kept WHERE key = ?", (request_hash,))
                if row := rows.fetchone():
                    return _REPLY.validate_json(row[0])
        return None

    def put(self, request_hash: str, reply: Reply) -> None:
        """Store an answer, unless it is an error or a refusal."""
        if self._file is None or reply.error or reply.finish_reason not in KEPT_FINISHES:
            return
        value = _REPLY.dump_json(reply, exclude_none=True)
        with suppress(sqlite3.Error):
            self._file.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (request_hash, value))
            self._fresh += 1
            if self._fresh >= WRITTEN_TOGETHER:
                self.commit()

    def commit(self) -> None:
        """Write stored answers to the file."""
        if self._file is not None:
            with suppress(sqlite3.Error):
                self._file.commit()
                self._fresh = 0


@contextmanager
def open_response_cache(folder: Path, *, use_cache: bool) -> Generator[ResponseCache]:
    """Open the answer cache of a folder, or an empty one if that fails."""
    file = ready = None
    with suppress(sqlite3.Error, OSError):
        private_folder(folder)
        private_file(folder / CACHE)
        # A comparison inside a running event loop sends requests from its own thread.
        file = sqlite3.connect(folder / CACHE, timeout=CACHE_WAIT_SECONDS, check_same_thread=False)
        # Answers lost in a power cut are requested again; waiting for the disk would delay others.
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
