"""Keep a training's folder on a node elsewhere, and its copy in the storage.

Events are stored in parts, ``events/NNN.jsonl``, named by the byte at which each begins. Only the
last part grows, and a thread sends it, so that a slow storage does not delay a step.
"""

from __future__ import annotations

import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

from pydantic import JsonValue

from unitune.backends.protocol import Event
from unitune_local.job_folder import EventLog, JobFolder, Kind, Result
from unitune_local.remote.launch import RemoteLaunch
from unitune_local.remote.storage import Storage

EVENT_SECONDS = 2.0  # minimum time between two copies of the last part of the events
PART_BYTES = 64 << 10  # size at which a part of the events is complete: some 200 steps


def read_events(storage: Storage, job: str, start: int) -> bytes:
    """Return a training's events in a storage, starting at a byte."""
    folder, content = f"{job}/events", b""
    begins = sorted(int(n[:-6]) for n in storage.names(folder) if n[:-6].isdecimal())
    for begin, end in zip(begins, [*begins[1:], None], strict=False):  # empty if none is stored
        if end is None or end > start:
            content += storage.read(_part(folder, begin), max(0, start - begin))
    return content


def _part(folder: str, begin: int) -> str:
    return f"{folder}/{begin:012}.jsonl"


class RemoteFolder:
    """Folder of a launch, while the body runs."""

    def __init__(self, launch: RemoteLaunch) -> None:
        self.storage = Storage(launch.storage)
        self.name = f"jobs/{launch.key}"
        self._scratch = tempfile.TemporaryDirectory(prefix="unitune-")
        self.files = Path(self._scratch.name)
        """Folder of fetched uploads, under their names in the storage."""
        self.local = JobFolder(self.files / launch.key)
        self._events_lock = threading.Lock()
        self._part_begin = self._events_sent = 0

    def __enter__(self) -> Self:
        self.local.path.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    def fetch(self) -> None:
        """Copy the folder's files from the storage."""
        self.storage.fetch(self.name, self.local.path)
        parts = sorted((self.local.path / "events").glob("*.jsonl"))
        if parts:
            self.local.events.write_bytes(b"".join(part.read_bytes() for part in parts))
            self._events_sent = self.local.events.stat().st_size
            is_complete = parts[-1].stat().st_size >= PART_BYTES
            self._part_begin = self._events_sent if is_complete else int(parts[-1].stem)

    def send(self, path: Path) -> None:
        """Store one of its files or folders."""
        name = f"{self.name}/{path.relative_to(self.local.path).as_posix()}"
        (self.storage.put_folder if path.is_dir() else self.storage.put)(path, name)

    def send_events(self) -> None:
        """Store new events as the end of the last part."""
        with self._events_lock:
            with self.local.events.open("rb") as file:
                file.seek(self._part_begin)
                content = file.read()
            content = content[: content.rfind(b"\n") + 1]
            end = self._part_begin + len(content)
            if end == self._events_sent:
                return
            part = self.local.path / "part.jsonl"
            part.write_bytes(content)
            self.storage.put(part, _part(f"{self.name}/events", self._part_begin))
            self._events_sent = end
            if len(content) >= PART_BYTES:
                self._part_begin = end

    def send_checkpoints(self) -> None:
        """Store new checkpoints, and remove those that no longer exist."""
        there = self.storage.names(f"{self.name}/checkpoints")
        here = {path.name: path for path in self.local.checkpoints.glob("[!.]*")}
        for name in sorted(here.keys() - there):
            self.send(here[name])
        for name in there - here.keys():
            self.storage.remove(f"{self.name}/checkpoints/{name}")

    def finish(self, result: Result) -> None:
        """Write the outcome of the training, after storing everything else."""
        if self.local.adapter.exists():
            self.send(self.local.adapter)
        if self.local.events.exists():
            self.send_events()
        self.local.finish(result)
        self.send(self.local.path / "result.json")


class SentLog(EventLog):
    """Log that copies the events of a folder to its storage."""

    def __init__(self, folder: RemoteFolder) -> None:
        super().__init__(folder.local.events)
        self._folder = folder
        self._sender = ThreadPoolExecutor(1)
        self._sending: Future[None] | None = None
        self._sent = 0.0

    def write(self, kind: Kind, data: dict[str, JsonValue]) -> Event:
        """Append an event as in `EventLog`; a checkpoint is stored before its own event."""
        if kind == "checkpoint":
            self._folder.send_events()
            self._folder.send_checkpoints()
        event = super().write(kind, data)
        if kind == "checkpoint":
            self._folder.send_events()
        elif self._sending is not None and self._sending.done():
            sent, self._sending = self._sending, None
            sent.result()  # raises the thread's error
        if self._sending is None and time.monotonic() - self._sent >= EVENT_SECONDS:
            self._sending = self._sender.submit(self._folder.send_events)
            self._sent = time.monotonic()
        return event
