"""Track runs at Weights & Biases: one project per job, and the same run ids.

The environment and the user's own settings choose the destination (``WANDB_BASE_URL``,
``WANDB_PROJECT``, ``WANDB_MODE=offline``). Project settings are ignored, because a stranger may
have written them.

W&B's history rejects a step below the newest one. So its step is the point's id, which grows, and
the training step is a figure that serves as the x axis. An offline run cannot query its history,
so closing it writes the last id to a file. After a kill, figures are sent twice rather than
never, and the server drops the duplicates by their step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from unitune.backends.protocol import State
from unitune.tracking.interface import Point, Results, TrackedRun

LAST_POINT = "unitune-last-point"  # file in an offline run's folder: id of its last point


class WandbTracker:
    """Run at Weights & Biases."""

    def __init__(self, run: TrackedRun) -> None:
        self._wandb: Any = import_module("wandb")
        folder = Path.cwd()
        before = (folder / "wandb").glob(f"offline-run-*-{run.id}/{LAST_POINT}")
        self._last = max((int(file.read_text(encoding="utf-8")) for file in before), default=0)
        self._run: Any = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", run.project),
            id=run.id,
            name=run.name,
            resume="allow",
            reinit="create_new",
            config={**run.parameters, **run.tags},
            dir=str(folder),
            settings=self._wandb.Settings(console="off", silent=True, x_disable_stats=True),
        )
        if self._run.resumed:
            self._last = self._run.step - 1
        self._run.define_metric("*", step_metric="step")
        self.where = self._run.url or str(Path(self._run.dir).parent)

    def log(self, points: Sequence[Point]) -> None:
        """Send figures after the newest known point."""
        for point in points:
            if point.id > self._last:
                self._run.log({**point.values, "step": point.step}, step=point.id)
                self._last = point.id

    def add(self, results: Results) -> None:
        """Send a comparison's figures to the run's summary, and its files as an artifact."""
        self._run.summary.update({**results.values, **results.tags})
        artifact = self._wandb.Artifact(f"comparison-{self._run.id}", type="comparison")
        for file in results.files:
            artifact.add_file(str(file))
        self._run.log_artifact(artifact, aliases=[results.comparison])

    def close(self, state: State) -> None:
        """Send the remaining points; a failed run is shown as failed."""
        self._run.finish(exit_code=int(state in (State.FAILED, State.CANCELLED)))
        if self._run.offline:
            file = Path(self._run.dir).parent / LAST_POINT
            file.write_text(str(self._last), encoding="utf-8")
