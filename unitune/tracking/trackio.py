"""Track runs in trackio: one project per job, in its local folder or the configured Space.

A run's id is its trackio name, which resumes it. Steps that the store already has are skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from unitune.backends.protocol import State
from unitune.tracking.interface import Point, Results, TrackedRun


class TrackioTracker:
    """Run in trackio."""

    def __init__(self, run: TrackedRun) -> None:
        trackio: Any = import_module("trackio")
        self._run: Any = trackio.init(
            project=run.project,
            name=run.id,
            config={**run.parameters, **run.tags},
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        logs = trackio.SQLiteStorage.get_logs(run.project, run.id)
        self._written = {(name, entry.get("step")) for entry in logs for name in entry}
        self.where = f"{trackio.TRACKIO_DIR}, project {run.project}"

    def log(self, points: Sequence[Point]) -> None:
        """Send figures by step."""
        for point in points:
            self._write(point.step, point.values)

    def add(self, results: Results) -> None:
        """Send the metrics of a comparison at step 0; its files are not sent."""
        self._write(0, results.values)

    def close(self, state: State) -> None:
        """Send the remaining points; trackio stores no final state."""
        del state
        self._run.finish()

    def _write(self, step: int, values: dict[str, float]) -> None:
        fresh = {name: value for name, value in values.items() if (name, step) not in self._written}
        if fresh:
            self._run.log(fresh, step=step)
            self._written.update((name, step) for name in fresh)
