"""Which batches of requests were submitted, and what became of them: ``batches.jsonl``.

A batch is written down, with its key, before the paid call that submits it: a process that dies
leaves a line to look for it by. A later line of its key adds the backend's id of it, or its end.
Such a line is short enough to be added by hand where only the user can know. The file only grows,
and a torn last line is cut off, as in ``rows.jsonl``, whose lock the one process that writes here
holds.

Not here: submitting, waiting and collecting (`unitune.evaluate.inference.batch_runner`).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from unitune.errors import Mismatch
from unitune.evaluate.inference.journal import heal, write_whole
from unitune.evaluate.results import Frozen
from unitune.workspace.filesystem import no_link

NAME = "batches.jsonl"
BEGINNING = b'{"key":'
"""Of every line."""

End = Literal["collected", "failed", "refused", "unwanted"]
"""Its answers are in ``rows.jsonl``; nothing was answered; it was never taken; or its answers are
no longer needed: then it was cancelled, if its id was known and it had not ended."""


class Pair(NamedTuple):
    """A case with the hash of its request."""

    case: str
    request_hash: str


class Batch(Frozen):
    """A batch of requests; the line that is written before it is submitted."""

    key: str
    """What it carries at its backend."""
    backend: str
    contender: str
    fingerprint: str
    """Of the model that requests go to."""
    announced: float
    """Seconds since 1970."""
    cases: tuple[str, ...]
    hashes: tuple[str, ...]
    """`Record.request_hash` of each case."""
    batch_id: str | None = None
    """The backend's; None or empty while it is not known."""
    end: End | None = None
    """None while there may be something to do."""

    def requests(self) -> dict[str, Pair]:
        """Return case and hash of each request, by its id at the backend."""
        pairs = zip(self.cases, self.hashes, strict=True)
        return {f"{self.key}-{at}": Pair(*pair) for at, pair in enumerate(pairs, start=1)}


class Change(Frozen):
    """What became known of a batch later; a line of its own."""

    key: str
    batch_id: str | None = None
    end: End | None = None


_LINE: TypeAdapter[Batch | Change] = TypeAdapter(Batch | Change)


class BatchFile:
    """Batches, in memory and in their file; open one with `open_batches`."""

    def __init__(self, file: RawIOBase, path: Path, lines: Iterable[Batch | Change]) -> None:
        self.path = path
        self._file = file
        self._batches: dict[str, Batch] = {}
        self._ids: set[str] = set()
        for line in lines:
            self._take(line)

    def open(self, backend: str, contender: str | None = None) -> list[Batch]:
        """Return the batches of a backend that have no end, in the order of their announcement."""
        return [
            batch
            for batch in self._batches.values()
            if batch.end is None
            and batch.backend == backend
            and contender in (None, batch.contender)
        ]

    def ids(self) -> set[str]:
        """Return all ids of batches on record, ended ones and those of others included."""
        return set(self._ids)

    def announce(self, batch: Batch) -> None:
        """Write down a batch that is about to be submitted."""
        self._write(batch)

    def change(self, batch: Batch, *, batch_id: str | None = None, end: End | None = None) -> None:
        """Write down what became known of a batch.

        Args:
            batch: One that is announced.
            batch_id: The backend's id of it; empty: the id so far is of another batch.
            end: What became of it.
        """
        self._write(Change(key=batch.key, batch_id=batch_id, end=end))

    def _write(self, line: Batch | Change) -> None:
        """Write a line that survives a power cut: it is about something paid for."""
        write_whole(self._file, f"{line.model_dump_json(exclude_none=True)}\n".encode())
        os.fsync(self._file.fileno())
        self._take(line)

    def _take(self, line: Batch | Change) -> None:
        if line.batch_id:
            self._ids.add(line.batch_id)
        if isinstance(line, Batch):
            self._batches[line.key] = line
            return
        known = line.model_dump(exclude_none=True)
        self._batches[line.key] = self._batches[line.key].model_copy(update=known)


@contextmanager
def open_batches(path: Path) -> Generator[BatchFile]:
    """Open the file of batches for reading and appending, healing a torn last line.

    Args:
        path: The file, in a folder whose ``rows.jsonl`` this process holds; made when not there.

    Raises:
        Mismatch: A line is nothing that is written here.
    """
    announced: set[str] = set()

    def refuse(line: bytes, number: int) -> Mismatch:
        return Mismatch(
            f"{path}:{number} is no record of a batch: {line[:80]!r}. It was changed by hand or by "
            "another program: mend the line, or choose another folder (unitune compare FILE "
            "--output DIR), where all requests are sent again."
        )

    def read(line: bytes, number: int) -> Batch | Change:
        try:
            record = _LINE.validate_json(line)
        except ValidationError as error:
            raise refuse(line, number) from error
        if isinstance(record, Batch):
            announced.add(record.key)
        elif record.key not in announced:
            raise refuse(line, number)
        return record

    with open(path, "a+b", buffering=0, opener=no_link) as file:
        yield BatchFile(file, path, heal(file, BEGINNING, read, refuse))
