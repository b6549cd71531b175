"""Send runs to experiment trackers; type-checked, but not run."""

from __future__ import annotations

from typing import assert_type

import unitune


def send(run: unitune.Run) -> None:
    """Send the recorded data of a run to the job's trackers and to another one."""
    for outcome in unitune.track(run) + unitune.track(run, ["mlflow"]):
        assert_type(outcome.tracker, str)
        print(outcome.tracker, outcome.problem or outcome.where)
    unitune.Job.load("unitune.yaml").model_copy(update={"track": ("tensorboard",)})
