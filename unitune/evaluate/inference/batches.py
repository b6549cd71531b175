"""Record batches of requests in ``batches.jsonl`` and submit each exactly once.

Only the holder of ``rows.jsonl`` writes the file. Later lines of a key add its id or end.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import TypeAdapter

from unitune.backends import registry
from unitune.backends.capabilities import Batches
from unitune.backends.exactly_once import CreateCall, Uncertain, exactly_once, recover
from unitune.documents import Closed
from unitune.errors import (
    BackendError,
    Mismatch,
    MissingExtra,
    UnituneError,
    Unreachable,
    Unsupported,
    UserError,
)
from unitune.evaluate.inference.journal import heal, write_whole
from unitune.models import Request, TunedModel
from unitune.workspace.home import home
from unitune.workspace.own_files import OwnFile, own_file

BATCHES = "batches.jsonl"
BEGINNING = b'{"key":'  # start of every line
DECISIONS = "batch-decisions.jsonl"  # the user's decisions, in the state folder

# Answers recorded; nothing answered; never accepted; or answers no longer needed, and cancelled if
# its id was known and it had not ended
End = Literal["collected", "failed", "refused", "unwanted"]


class Pair(NamedTuple):
    """Case with the hash of its request."""

    case: str
    request_hash: str


class Batch(Closed):
    """Batch of requests, as recorded before it is submitted."""

    key: str
    """Key of the batch at its backend."""
    backend: str
    contender: str
    fingerprint: str
    """Fingerprint of the model."""
    announced: float
    """Seconds since 1970."""
    cases: tuple[str, ...]
    hashes: tuple[str, ...]
    """`Record.request_hash` of each case."""
    batch_id: str | None = None
    """Id at the backend; None or empty while unknown."""
    end: End | None = None
    """End of the batch; None while it may need action."""

    def requests(self) -> dict[str, Pair]:
        """Return case and hash of each request, by its id at the backend."""
        pairs = zip(self.cases, self.hashes, strict=True)
        return {f"{self.key}-{at}": Pair(*pair) for at, pair in enumerate(pairs, start=1)}


class Change(Closed):
    """Later line about a batch."""

    key: str
    batch_id: str | None = None
    end: End | None = None


_LINE: TypeAdapter[Batch | Change] = TypeAdapter(Batch | Change)


class BatchFile:
    """Batches in memory and in their file. Use `open_batches` to open one."""

    def __init__(self, file: OwnFile, lines: Iterable[Batch | Change]) -> None:
        self._file = file
        self._batches: dict[str, Batch] = {}
        self._ids: set[str] = set()
        for line in lines:
            self._take(line)

    def open(self, backend: str, contender: str | None = None) -> list[Batch]:
        """Return the batches of a backend without an end, in the order of announcement."""
        return [
            batch
            for batch in self._batches.values()
            if batch.end is None
            and batch.backend == backend
            and contender in (None, batch.contender)
        ]

    def ids(self) -> set[str]:
        """Return all recorded batch ids, including those of ended and foreign batches."""
        return set(self._ids)

    def announce(self, batch: Batch) -> None:
        """Record a batch that is about to be submitted."""
        self._write(batch)

    def change(self, batch: Batch, *, batch_id: str | None = None, end: End | None = None) -> None:
        """Record new facts about a batch. An empty id means that the recorded one is wrong."""
        self._write(Change(key=batch.key, batch_id=batch_id, end=end))

    def _write(self, line: Batch | Change) -> None:
        """Write a line and flush it to disk, because it is about a payment."""
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
    """Open the file of batches without a torn last line. Raises Mismatch for another line."""
    announced: set[str] = set()

    def read(line: bytes) -> Batch | Change:
        record = _LINE.validate_json(line)
        if isinstance(record, Batch):
            announced.add(record.key)
        elif record.key not in announced:
            raise ValueError(record.key)
        return record

    advice = (
        "It was changed by a person or another program. Correct the line, or choose another folder "
        "(unitune compare FILE --output DIR), which sends all requests again."
    )
    origin = "Name another --output, where all requests are sent again."
    with own_file(path, origin) as file:
        lines = heal(file, BEGINNING, read, "record of a batch", advice)
        yield BatchFile(file, [*lines, *_decisions(announced)])


def decision_command(key: str, decision: str) -> str:
    """Return a command that records a decision of the user, as JSON members, about a batch."""
    return f"""echo '{{"key":"{key}",{decision}}}' >> {shlex.quote(str(home() / DECISIONS))}"""


def _decisions(keys: set[str]) -> Iterator[Change]:
    file = home() / DECISIONS
    for number, line in enumerate(file.read_bytes().splitlines() if file.exists() else (), 1):
        try:
            change = Change.model_validate_json(line)
        except ValueError as error:
            raise Mismatch(f"{file}:{number} is not a decision about a batch: {line!r}.") from error
        if change.key in keys:
            yield change


def supports_batches(name: str) -> bool:
    """Return whether a backend supports batches."""
    return isinstance(registry.backend(name), Batches)


def batching_backend(name: str) -> Batches:
    """Return a backend if it supports batches, else raise Unsupported."""
    backend = registry.backend(name)
    if isinstance(backend, Batches):
        return backend
    able: list[str] = []
    for other in registry.backend_names():
        with suppress(MissingExtra):
            if other != "fake" and supports_batches(other):
                able.append(other)
    raise Unsupported(
        f"backend {name!r} does not support batches; installed backends that do: "
        f"{', '.join(able) or 'none'}. Without --batch, requests are sent to its models one at a "
        "time."
    )


@dataclass
class BatchSubmitter(CreateCall):
    """Submits a recorded batch, or searches for it."""

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
            Unreachable: Its state is not known yet; the next process searches for it.
            UserError: The backend has several batches with its key.
            UnituneError: It was refused, which is recorded.
        """
        self._create = partial(self.backend.submit_batch, self.batch.key, model, requests)
        with self._explained():
            batch_id = exactly_once(self)
        self.batches.change(self.batch, batch_id=batch_id)

    def recover(self) -> bool:
        """Find a submitted batch and record its id; return whether it exists."""
        with self._explained():
            batch_id = recover(self, "")
        if batch_id is not None:
            self.batches.change(self.batch, batch_id=batch_id)
        return batch_id is not None

    def create(self) -> str:
        """Send the call and return the backend's id."""
        assert self._create is not None, "a batch that is only searched for has no requests"
        return self._create()

    def find(self) -> list[str]:
        """Return ids that may be the batch; some vendors identify one only when it has ended."""
        ids = self.backend.find_batch(self.batch.key, self.batch.announced)
        return [batch_id for batch_id in ids if batch_id not in self.batches.ids()]

    def sleep(self, seconds: float) -> None:
        """Wait; can be interrupted with Ctrl-C."""
        self.wait(seconds)

    def refuse(self, error: UnituneError) -> None:
        """Record that the batch was never accepted."""
        del error
        self.batches.change(self.batch, end="refused")

    @contextmanager
    def _explained(self) -> Generator[None]:
        key = self.batch.key
        try:
            yield
        except Uncertain as error:
            raise UserError(
                f"several batches at {self.name} may have the key {key!r}: "
                f"{', '.join(error.ids)}. Compare again when they have ended, to identify it. "
                "If all of them belong to this comparison, cancel all but one there. To stop the "
                "search, record the one to collect: " + decision_command(key, '"batch_id":"ITS_ID"')
            ) from error
        except BackendError as error:
            if not error.is_ambiguous:
                raise
            raise Unreachable(
                f"{error} Nothing is lost: run the same command again to find the batch and "
                "resume.",
                status=error.status,
                request_id=error.request_id,
                retry_after=error.retry_after,
            ) from error
