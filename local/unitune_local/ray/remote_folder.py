"""A training's folder on a node of the cluster, and its copy in the storage.

The loop works in a folder of its own machine, as any local training does; what it must not lose
goes to the storage as it comes: each checkpoint when it is whole, events with it and every few
seconds, adapter and result at the end. A worker on another node begins with what is there.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Self

from pydantic import JsonValue

from unitune.backends.protocol import Event
from unitune_local.job_folder import EventLog, JobFolder, Kind, Result
from unitune_local.ray.launch import RayLaunch
from unitune_local.ray.storage import Storage

EVENT_SECONDS = 2.0
"""Least time between two copies of the events, which are sent whole."""


class RemoteFolder:
    """The folder of a launch, while the body runs."""

    def __init__(self, launch: RayLaunch) -> None:
        self.storage = Storage(launch.storage)
        self.name = f"jobs/{launch.key}"
        self._scratch = tempfile.TemporaryDirectory(prefix="unitune-")
        self.files = Path(self._scratch.name)
        """Where uploaded files are fetched to, by their names in the storage."""
        self.local = JobFolder(self.files / launch.key)

    def __enter__(self) -> Self:
        self.local.path.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    def fetch(self) -> None:
        """Take over what the storage has of it."""
        self.storage.fetch(self.name, self.local.path)

    def send(self, path: Path) -> None:
        """Store one of its files or folders."""
        name = f"{self.name}/{path.relative_to(self.local.path).as_posix()}"
        (self.storage.put_folder if path.is_dir() else self.storage.put)(path, name)

    def send_checkpoints(self) -> None:
        """Store the checkpoints that are new, and remove those that are no more."""
        there = self.storage.names(f"{self.name}/checkpoints")
        here = {path.name: path for path in self.local.checkpoints.glob("[!.]*")}
        for name in sorted(here.keys() - there):
            self.send(here[name])
        for name in there - here.keys():
            self.storage.remove(f"{self.name}/checkpoints/{name}")

    def finish(self, result: Result) -> None:
        """Write down how the training ended, after all that belongs to it."""
        if self.local.adapter.exists():
            self.send(self.local.adapter)
        if self.local.events.exists():
            self.send(self.local.events)
        self.local.finish(result)
        self.send(self.local.path / "result.json")


class SentLog(EventLog):
    """Events of a folder that go to its storage."""

    def __init__(self, folder: RemoteFolder) -> None:
        super().__init__(folder.local.events)
        self._folder = folder
        self._sent = 0.0

    def write(self, kind: Kind, data: dict[str, JsonValue]) -> Event:
        """As of `EventLog`; a checkpoint is stored before its event."""
        event = super().write(kind, data)
        if kind == "checkpoint":
            self._folder.send_checkpoints()
        if kind == "checkpoint" or time.monotonic() - self._sent >= EVENT_SECONDS:
            self._folder.send(self._folder.local.events)
            self._sent = time.monotonic()
        return event
