"""Weights & Biases: a project for each job, a run of the same id as ours.

The environment and the user's own settings say where it goes (``WANDB_BASE_URL``,
``WANDB_PROJECT``, ``WANDB_MODE=offline``). Settings of the project are not read, because they may
be a stranger's.
Its history takes no step below one that it has. So its step is the point's id, which grows, and
the training's own step is a figure that the others are drawn over. An offline run cannot ask what
it has, and knows it by a file that is written when it is closed: after a kill it has figures twice,
rather than never, which the server then drops by their step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from unitune.backends.protocol import State
from unitune.tracking.interface import Point, Results, TrackedRun

LAST_POINT = "unitune-last-point"  # in an offline run's folder: the id of the last point in it


class WandbTracker:
    """One run at Weights & Biases."""

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
        """Send figures; those before its newest are there already."""
        for point in points:
            if point.id > self._last:
                self._run.log({**point.values, "step": point.step}, step=point.id)
                self._last = point.id

    def add(self, results: Results) -> None:
        """Send a comparison: figures of the run's summary, and its files as an artifact."""
        self._run.summary.update({**results.values, **results.tags})
        artifact = self._wandb.Artifact(f"comparison-{self._run.id}", type="comparison")
        for file in results.files:
            artifact.add_file(str(file))
        self._run.log_artifact(artifact, aliases=[results.comparison])

    def close(self, state: State) -> None:
        """Send what is left; the run is shown as failed where ours is."""
        self._run.finish(exit_code=int(state in (State.FAILED, State.CANCELLED)))
        if self._run.offline:
            file = Path(self._run.dir).parent / LAST_POINT
            file.write_text(str(self._last), encoding="utf-8")
