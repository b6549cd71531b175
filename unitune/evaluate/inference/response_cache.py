"""Answers given before, in any comparison of this folder; cached when the user asks for it.

A small SQLite file beside the ledger, by `engine.request_hash`, which covers the model first: two
models never share an answer. Errors and refusals are not kept. It saves requests and is no record:
evidence stands in ``rows.jsonl``, and where the file cannot be used, everything is asked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from pydantic import TypeAdapter

from unitune.models import Reply
from unitune.workspace.filesystem import private_file

NAME = "answers.sqlite"
WAIT_SECONDS = 1.0
"""For another process that writes; then this one does without."""
WRITTEN_TOGETHER = 100
"""Answers of one transaction: each takes a write to disk, and the last few can be asked again."""
KEPT_FINISHES = ("stop", "length")


_REPLY = TypeAdapter(Reply)


class ResponseCache:
    """Answers by the hash of their request; open with `open_response_cache`."""

    def __init__(self, file: sqlite3.Connection | None, *, use_cache: bool) -> None:
        self._file = file
        self._used = use_cache
        self._fresh = 0

    def get(self, request_hash: str) -> Reply | None:
        """Return the answer to a request that was asked before, where answers are cached."""
        if self._file is None or not self._used:
            return None
        with suppress(sqlite3.Error, ValueError):
            asked = self._file.execute("SELECT reply FROM answers WHERE hash = ?", (request_hash,))
            if found := asked.fetchone():
                return _REPLY.validate_json(found[0])
        return None

    def put(self, request_hash: str, reply: Reply) -> None:
        """Keep an answer, unless it is an error or a refusal."""
        if self._file is None or reply.error or reply.finish_reason not in KEPT_FINISHES:
            return
        with suppress(sqlite3.Error):
            row = request_hash, _REPLY.dump_json(reply, exclude_none=True).decode()
            self._file.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", row)
            self._fresh += 1
            if self._fresh % WRITTEN_TOGETHER == 0:
                self._file.commit()


@contextmanager
def open_response_cache(folder: Path, *, use_cache: bool) -> Generator[ResponseCache]:
    """Open the answers of a folder."""
    file = _opened(folder / NAME)
    if file is None:
        yield ResponseCache(None, use_cache=False)
        return
    with closing(file):
        try:
            yield ResponseCache(file, use_cache=use_cache)
        finally:
            with suppress(sqlite3.Error):
                file.commit()


def _opened(path: Path) -> sqlite3.Connection | None:
    try:
        private_file(path)
        # A comparison inside a running event loop asks in a thread of its own.
        file = sqlite3.connect(path, timeout=WAIT_SECONDS, check_same_thread=False)
    except (sqlite3.Error, OSError):
        return None
    try:
        # What a power cut takes away is asked again; waiting for the disk would hold up requests.
        file.execute("PRAGMA synchronous = OFF")
        file.execute("CREATE TABLE IF NOT EXISTS answers (hash TEXT PRIMARY KEY, reply TEXT)")
    except sqlite3.Error:
        file.close()
        return None
    return file
