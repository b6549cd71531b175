"""Read and write the folder of a training, through which worker and observers communicate.

    spec.json      specification of the training, written before the worker starts, never changed
    lock           held by the worker while it lives; the kernel releases it however the worker dies
    events.jsonl   events of the training, one JSON line each; append-only
    cancel         asks the worker to stop for good
    pause          asks the worker to write a checkpoint and stop
    result.json    outcome; absent until the training has ended
    interruption   reason why the last worker ended before the training did
    micro_batch    largest number of tokens in a micro-batch, after a larger one ran out of memory
    judgements.jsonl  judgements of sampled answers by judges, with their cost
    worker.log     output of the worker
    rank-N.log     output of the training's other processes
    rendezvous-P   meeting point of the processes of the worker with id P; removed at the end
    checkpoints/   see `unitune_local.training.checkpoint`
    adapter/       trained adapter

Nothing here imports torch, so that polling stays fast.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import JsonValue, TypeAdapter

from unitune.backends.protocol import Event
from unitune.documents import Closed
from unitune.files.filesystem import replacing
from unitune.models import TunedModel

EVENT = TypeAdapter(Event)
# In the folder of the checkpoints; see `unitune_local.objectives.preference`
REFERENCE_FILE = "reference.jsonl"
Kind = Literal["step", "validation", "message", "checkpoint", "warning"]
Note = Callable[[Kind, dict[str, JsonValue]], None]  # receives an event of a training


def drop_note(_kind: Kind, _data: dict[str, JsonValue]) -> None:
    """Drop an event, for example on a rank other than the first."""


class Result(Closed):
    """Outcome of a training."""

    state: Literal["succeeded", "failed", "cancelled"]
    error: str | None = None
    model: TunedModel | None = None
    billed_tokens: int | None = None
    """Training tokens that a vendor charges for; None on this machine."""
    billed_usd: Decimal | None = None
    """What a vendor charges for all of it, once known."""


class JobFolder:
    """Files of a training; the module describes each of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec = path / "spec.json"
        self.lock = path / "lock"
        self.events = path / "events.jsonl"
        self.cancel = path / "cancel"
        self.pause = path / "pause"
        self.interruption = path / "interruption"
        self.smaller_batches = path / "micro_batch"
        self.judgements = path / "judgements.jsonl"
        self.log = path / "worker.log"
        self.checkpoints = path / "checkpoints"
        self.adapter = path / "adapter"

    def rank_log(self, rank: int) -> Path:
        """Return the log of another process."""
        return self.path / f"rank-{rank}.log"

    def rendezvous(self, worker: int) -> Path:
        """Return the meeting point of a worker's processes."""
        return self.path / f"rendezvous-{worker}"

    def is_to_stop(self) -> bool:
        """Return whether the worker should stop, for good or for now."""
        return self.cancel.exists() or self.pause.exists()

    def saved_step(self) -> int:
        """Return the step of the newest checkpoint, or 0 without one."""
        return max(saved_steps(self.checkpoints), default=0)

    def result(self) -> Result | None:
        """Return how the training ended, or None while it has not."""
        try:
            text = (self.path / "result.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        result = Result.model_validate_json(text)
        if result.model is not None and self.adapter.is_dir():  # its project may have been moved
            here = result.model.model_copy(update={"name": str(self.adapter)})
            return result.model_copy(update={"model": here})
        return result

    def finish(self, result: Result) -> None:
        """Write the outcome of the training atomically."""
        with replacing(self.path / "result.json") as file:
            file.write(result.model_dump_json(indent=2))

    def interrupt(self, reason: str) -> None:
        """Write the reason why the worker ends."""
        with replacing(self.interruption) as file:
            file.write(reason)

    def interrupted_by(self) -> str | None:
        """Return why the last worker ended, or None if it left no reason."""
        try:
            return self.interruption.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def limit_micro_batches(self, tokens: int) -> None:
        """Limit the micro-batches of the next worker to a number of tokens."""
        with replacing(self.smaller_batches) as file:
            file.write(str(tokens))
        (self.checkpoints / REFERENCE_FILE).unlink(missing_ok=True)  # depends on micro-batches

    def micro_batch_limit(self) -> int | None:
        """Return the limit set by an earlier worker, or None without one."""
        try:
            return int(self.smaller_batches.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None


def saved_steps(checkpoints: Path) -> list[int]:
    """Return the steps of the checkpoints in a folder, unsorted."""
    numbers = (path.name.removeprefix("step-") for path in checkpoints.glob("step-*"))
    return [int(number) for number in numbers if number.isdecimal()]


class EventLog:
    """Thread-safe writer of an event file that skips events already in it.

    An incomplete line, left by a killed worker, is cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)
        self._before = {event.key: event for event in read_events(path, "").events}
        self._count, self._lock = len(self._before), threading.Lock()

    def write(self, kind: Kind, data: dict[str, JsonValue]) -> Event:
        """Append an event and return it, or return the earlier event with the same key.

        Step, validation and checkpoint events are keyed by ``data["step"]``, others by a count.
        """
        with self._lock:
            number = data.get("step", self._count)
            event = Event(f"{kind}-{number}", kind, time.time(), data)
            if (before := self._before.get(event.key)) is not None:
                return before
            record = {"key": event.key, "kind": kind, "time": event.time, "data": data}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            self._count += 1
            return event


class EventsRead(NamedTuple):
    """Events after a cursor, the oldest first."""

    events: tuple[Event, ...]
    cursor: str  # where the next reading starts: an offset in bytes


def read_events(path: Path, cursor: str) -> EventsRead:
    """Return the events in complete lines after a cursor (empty: from the start)."""
    start = int(cursor or 0)
    try:
        with path.open("rb") as file:
            file.seek(start)
            content = file.read()
    except FileNotFoundError:
        return EventsRead((), cursor)
    return parse_events(content, start)


def parse_events(content: bytes, start: int) -> EventsRead:
    """Return the events in complete lines from a byte on; raises ValueError for malformed ones."""
    whole = content[: content.rfind(b"\n") + 1]
    return EventsRead(tuple(map(EVENT.validate_json, whole.splitlines())), str(start + len(whole)))
