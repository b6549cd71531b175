"""The folder of one training: all that the worker and those who watch it say to each other.

    spec.json      what to train, written before the worker starts, never changed
    lock           held by the worker while it lives; the kernel frees it however the worker dies
    events.jsonl   what happened, one JSON line each, only ever appended to
    cancel         its presence asks the worker to stop for good
    pause          its presence asks the worker to stop and leave a checkpoint to go on from
    result.json    how it ended; absent while it has not
    interruption   why the last worker ended before the training did
    micro_batch    largest number of tokens in a micro-batch, after a larger one ran out of memory
    worker.log     what the worker printed, for us when something went wrong
    rank-N.log     likewise, of the training's other processes, where there are any
    rendezvous-P   where they meet, of the worker with the process id P; gone at the end
    checkpoints/   see `unitune_local.training.checkpoint`
    adapter/       the result

Light: nothing here imports torch, so that polling stays fast.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import JsonValue, TypeAdapter

from unitune.backends.protocol import Event
from unitune.models import TunedModel
from unitune.security.spec import Closed
from unitune.workspace.filesystem import replacing

EVENT = TypeAdapter(Event)
# Beside the checkpoints; see `unitune_local.objectives.reference`
REFERENCE_FILE = "reference.jsonl"
Kind = Literal["step", "validation", "message", "checkpoint", "warning"]
Note = Callable[[Kind, dict[str, JsonValue]], None]  # receives an event of a training


def drop_note(_kind: Kind, _data: dict[str, JsonValue]) -> None:
    """Drop an event, such as of a rank that is not the first."""


class Result(Closed):
    """How a training ended."""

    state: Literal["succeeded", "failed", "cancelled"]
    error: str | None = None
    model: TunedModel | None = None


class JobFolder:
    """Where everything of a training stands; the module says what each file is for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec = path / "spec.json"
        self.lock = path / "lock"
        self.events = path / "events.jsonl"
        self.cancel = path / "cancel"
        self.pause = path / "pause"
        self.interruption = path / "interruption"
        self.smaller_batches = path / "micro_batch"
        self.log = path / "worker.log"
        self.checkpoints = path / "checkpoints"
        self.adapter = path / "adapter"

    def rank_log(self, rank: int) -> Path:
        """Return the log of one of the other processes."""
        return self.path / f"rank-{rank}.log"

    def rendezvous(self, worker: int) -> Path:
        """Return where the processes of a worker meet."""
        return self.path / f"rendezvous-{worker}"

    def is_to_stop(self) -> bool:
        """Return whether the worker is requested to stop, for good or for now."""
        return self.cancel.exists() or self.pause.exists()

    def saved_step(self) -> int:
        """Return the step of the newest checkpoint; 0 when there is none."""
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
        """Write down how the training ended, at once and for good."""
        with replacing(self.path / "result.json") as file:
            file.write(result.model_dump_json(indent=2))

    def interrupt(self, reason: str) -> None:
        """Write down why the worker ends, until the next one starts."""
        with replacing(self.interruption) as file:
            file.write(reason)

    def interrupted_by(self) -> str | None:
        """Return why the last worker ended; None where it could not write that down."""
        try:
            return self.interruption.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def limit_micro_batches(self, tokens: int) -> None:
        """Let the next worker compute at most so many tokens at a time."""
        with replacing(self.smaller_batches) as file:
            file.write(str(tokens))
        (self.checkpoints / REFERENCE_FILE).unlink(missing_ok=True)  # it is by micro-batch

    def micro_batch_limit(self) -> int | None:
        """Return the limit that an earlier worker has set; None where memory has sufficed."""
        try:
            return int(self.smaller_batches.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None


def saved_steps(checkpoints: Path) -> list[int]:
    """Return the steps that have a checkpoint in a folder, in no order."""
    numbers = (path.name.removeprefix("step-") for path in checkpoints.glob("step-*"))
    return [int(number) for number in numbers if number.isdecimal()]


class EventLog:
    """Appends events to a file, from any thread; what was there before is not written again.

    A line that a killed worker left torn is cut off. A resumed worker does again what came after
    its checkpoint.

    Args:
        path: The file; made when absent.
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
        """Append an event and return it; the earlier event when its key stands there already.

        Args:
            kind: What happened; step, validation and checkpoint are named by ``data["step"]``.
            data: Its figures or its text.
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
    """Return the whole lines after a cursor (empty: from the start)."""
    start = int(cursor or 0)
    try:
        with path.open("rb") as file:
            file.seek(start)
            content = file.read()
    except FileNotFoundError:
        return EventsRead((), cursor)
    return parse_events(content, start)


def parse_events(content: bytes, start: int) -> EventsRead:
    """Return the whole lines of a file's content from a byte on.

    Raises:
        ValueError: A line is no event.
    """
    whole = content[: content.rfind(b"\n") + 1]
    return EventsRead(tuple(map(EVENT.validate_json, whole.splitlines())), str(start + len(whole)))
