"""trackio: a project for each job in trackio's own folder, or in the Space that its variables name.

A run is resumed by its name, which is our id; figures that its store has at a step are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from unitune.backends.protocol import State
from unitune.tracking.interface import Point, Results, TrackedRun


class TrackioTracker:
    """One run in trackio."""

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
        """Send what a comparison has measured, at step 0; its files stay here."""
        self._write(0, results.values)

    def close(self, state: State) -> None:
        """Send what is left; trackio has no word for how a run ended."""
        del state
        self._run.finish()

    def _write(self, step: int, values: dict[str, float]) -> None:
        fresh = {name: value for name, value in values.items() if (name, step) not in self._written}
        if fresh:
            self._run.log(fresh, step=step)
            self._written.update((name, step) for name in fresh)
