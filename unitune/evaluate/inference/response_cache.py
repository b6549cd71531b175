"""Values kept on disk by the hash of what was requested: answers, and embeddings.

`ValueFile` is a small SQLite file. It saves requests and is no record: evidence stands in
``rows.jsonl``, and where the file cannot be used, everything is requested. `ResponseCache` keeps
answers of all comparisons of a ledger's folder, by `engine.request_hash`, which covers the model
first: two models never share an answer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from pydantic import TypeAdapter

from unitune.models import Reply
from unitune.workspace.filesystem import private_file, private_folder

NAME = "answers.sqlite"
WAIT_SECONDS = 1.0
"""For another process that writes; then this one does without."""
WRITTEN_TOGETHER = 100
"""Values of one transaction: each takes a write to disk, and the last can be requested again."""
KEPT_FINISHES = ("stop", "length")

_REPLY = TypeAdapter(Reply)


class ValueFile:
    """Values by key in a file that only the user may read; without a file it knows nothing.

    Args:
        path: The file; it and its folder are made if need be.
    """

    def __init__(self, path: Path) -> None:
        self._file: sqlite3.Connection | None = None
        self._fresh = 0
        with suppress(sqlite3.Error, OSError):
            private_folder(path.parent)
            private_file(path)
            # A comparison inside a running event loop sends requests from a thread of its own.
            file = sqlite3.connect(path, timeout=WAIT_SECONDS, check_same_thread=False)
            # What a power cut takes away is requested again; waiting for the disk holds up others.
            with suppress(sqlite3.Error):
                file.execute("PRAGMA synchronous = OFF")
                file.execute("CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value BLOB)")
                self._file = file
                return
            file.close()

    def get(self, key: str) -> bytes | None:
        """Return the value of a key; None where it is not known."""
        if self._file is not None:
            with suppress(sqlite3.Error):
                rows = self._file.execute("SELECT value FROM kept WHERE key = ?", (key,))
                if row := rows.fetchone():
                    return row[0]
        return None

    def put(self, values: Mapping[str, bytes]) -> None:
        """Keep values."""
        if self._file is None:
            return
        with suppress(sqlite3.Error):
            self._file.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?)", values.items())
            self._fresh += len(values)
            if self._fresh >= WRITTEN_TOGETHER:
                self.commit()

    def commit(self) -> None:
        """Write to the file what was put."""
        if self._file is not None:
            with suppress(sqlite3.Error):
                self._file.commit()
                self._fresh = 0

    def close(self) -> None:
        """Write to the file what was put, and close it."""
        self.commit()
        if self._file is not None:
            self._file.close()


class ResponseCache:
    """Answers by the hash of their request; open with `open_response_cache`."""

    def __init__(self, file: ValueFile, *, use_cache: bool) -> None:
        self._file = file
        self._use_cache = use_cache

    def get(self, request_hash: str) -> Reply | None:
        """Return the answer to an earlier request, where the user wants such answers."""
        if self._use_cache and (content := self._file.get(request_hash)):
            with suppress(ValueError):
                return _REPLY.validate_json(content)
        return None

    def put(self, request_hash: str, reply: Reply) -> None:
        """Keep an answer, unless it is an error or a refusal."""
        if not reply.error and reply.finish_reason in KEPT_FINISHES:
            self._file.put({request_hash: _REPLY.dump_json(reply, exclude_none=True)})


@contextmanager
def open_response_cache(folder: Path, *, use_cache: bool) -> Generator[ResponseCache]:
    """Open the answers of a folder."""
    with closing(ValueFile(folder / NAME)) as file:
        yield ResponseCache(file, use_cache=use_cache)
