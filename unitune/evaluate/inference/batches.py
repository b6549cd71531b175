"""Batches of requests: on record in ``batches.jsonl``, and submitted exactly once.

A batch is written down, with its key, before the paid call that submits it: a process that dies
leaves a line to look for it by (`unitune.backends.exactly_once`). A later line of its key adds the
backend's id of it, or its end. Such a line is short enough to be added by hand where only the user
can know. The file only grows, and a torn last line is cut off, as in ``rows.jsonl``, whose lock the
one process that writes here holds.

Not here: waiting and collecting (`unitune.evaluate.inference.batch_runner`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import TypeAdapter

from unitune.backends import registry
from unitune.backends.capabilities import Batches
from unitune.backends.exactly_once import CreateCall, Uncertain, exactly_once, recover
from unitune.errors import (
    BackendError,
    MissingExtra,
    UnituneError,
    Unreachable,
    Unsupported,
    UserError,
)
from unitune.evaluate.inference.journal import heal, write_whole
from unitune.models import Request, TunedModel
from unitune.security.spec import Closed
from unitune.workspace.own_files import OwnFile, own_file

BATCHES = "batches.jsonl"
BEGINNING = b'{"key":'  # of every line

# Its answers are in ``rows.jsonl``; nothing was answered; it was never taken; or its answers are no
# longer needed: then it was cancelled, if its id was known and it had not ended
End = Literal["collected", "failed", "refused", "unwanted"]


class Pair(NamedTuple):
    """A case with the hash of its request."""

    case: str
    request_hash: str


class Batch(Closed):
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


class Change(Closed):
    """What became known of a batch later; a line of its own."""

    key: str
    batch_id: str | None = None
    end: End | None = None


_LINE: TypeAdapter[Batch | Change] = TypeAdapter(Batch | Change)


class BatchFile:
    """Batches, in memory and in their file; open one with `open_batches`."""

    def __init__(self, file: OwnFile, path: Path, lines: Iterable[Batch | Change]) -> None:
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
        self._file.sync()
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

    def read(line: bytes) -> Batch | Change:
        record = _LINE.validate_json(line)
        if isinstance(record, Batch):
            announced.add(record.key)
        elif record.key not in announced:
            raise ValueError(record.key)
        return record

    advice = (
        "It was changed by hand or by another program: correct the line, or choose another folder "
        "(unitune compare FILE --output DIR), where all requests are sent again."
    )
    origin = "Name another --output, where all requests are sent again."
    with own_file(path, origin) as file:
        yield BatchFile(file, path, heal(file, BEGINNING, read, "record of a batch", advice))


def supports_batches(name: str) -> bool:
    """Return whether a backend answers in batches."""
    return isinstance(registry.backend(name), Batches)


def batching_backend(name: str) -> Batches:
    """Return a backend that answers in batches.

    Raises:
        Unsupported: This one does not; the message names those that do.
    """
    backend = registry.backend(name)
    if isinstance(backend, Batches):
        return backend
    able: list[str] = []
    for other in registry.backend_names():
        with suppress(MissingExtra):
            if other != "fake" and supports_batches(other):
                able.append(other)
    raise Unsupported(
        f"backend {name!r} does not answer in batches; of those installed here, "
        f"{', '.join(able) or 'none'} can. Without --batch, requests are sent to its models one "
        "at a time."
    )


@dataclass
class BatchSubmitter(CreateCall):
    """Submits a batch that is written down, or searches for it."""

    backend: Batches
    name: str
    batches: BatchFile
    batch: Batch
    wait: Callable[[float], None]
    _create: Callable[[], str] | None = None

    def __post_init__(self) -> None:
        self.settle_seconds = registry.offer(self.name).settle_seconds

    def submit(self, model: str | TunedModel, requests: Mapping[str, Request]) -> None:
        """Submit a batch that no earlier call has created.

        Raises:
            Unreachable: What became of it is not known yet; the next process searches for it.
            UserError: The backend has several batches of its key.
            UnituneError: It was refused, which is written down.
        """
        self._create = partial(self.backend.submit_batch, self.batch.key, model, requests)
        with self._explained():
            batch_id = exactly_once(self)
        self.batches.change(self.batch, batch_id=batch_id)

    def recover(self) -> bool:
        """Search for a batch that another process may have submitted, and write its id down.

        Return whether the backend has it; raises as `submit` does.
        """
        with self._explained():
            batch_id = recover(self, "")
        if batch_id is not None:
            self.batches.change(self.batch, batch_id=batch_id)
        return batch_id is not None

    def create(self) -> str:
        """Send the call, and return the backend's id of it."""
        assert self._create is not None, "a batch that is only searched for has no requests"
        return self._create()

    def find(self) -> list[str]:
        """Return what may be the batch; a vendor may not say whose a batch is before it ends."""
        ids = self.backend.find_batch(self.batch.key, self.batch.announced)
        return [batch_id for batch_id in ids if batch_id not in self.batches.ids()]

    def sleep(self, seconds: float) -> None:
        """Wait; Ctrl-C ends it."""
        self.wait(seconds)

    def refuse(self, error: UnituneError) -> None:
        """Write down that it was never taken."""
        del error
        self.batches.change(self.batch, end="refused")

    @contextmanager
    def _explained(self) -> Generator[None]:
        key = self.batch.key
        try:
            yield
        except Uncertain as error:
            raise UserError(
                f"any of several batches at {self.name} may be the one with the key "
                f"{key!r}: {', '.join(error.ids)}. Compare again when they have ended, which "
                "may tell. If all are this comparison's, one is enough: cancel the others there. "
                "The one to collect can be written down, and is then looked for no more: "
                f"""echo '{{"key":"{key}","batch_id":"ITS_ID"}}' >> {self.batches.path}"""
            ) from error
        except BackendError as error:
            if not error.is_ambiguous:
                raise
            raise Unreachable(
                f"{error} Nothing is lost: the same command finds out what became of the batch and "
                "goes on.",
                status=error.status,
                request_id=error.request_id,
                retry_after=error.retry_after,
            ) from error
