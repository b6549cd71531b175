"""The models of a run beyond the model that it ended with, and their weights.

Which vendors keep checkpoints, and which hand weights out, is theirs to say
(`unitune.backends.capabilities.Checkpoints`, `unitune.backends.capabilities.Downloads`).
"""

from __future__ import annotations

import os
from pathlib import Path

from unitune.backends import registry
from unitune.backends.capabilities import Checkpoint, Checkpoints, Downloads
from unitune.errors import Unsupported, UserError
from unitune.models import TunedModel
from unitune.run.handle import Run


def checkpoints(run: Run) -> list[Checkpoint]:
    """Return the models that were saved during a run's training, oldest first.

    Args:
        run: One whose backend has its job.

    Raises:
        UserError: It has no job yet.
        Unsupported: Its backend keeps no checkpoints.
        BackendError: The backend refused or did not answer.
    """
    backend = registry.backend(run.backend_name)
    if not isinstance(backend, Checkpoints):
        raise Unsupported(f"backend {run.backend_name!r} lists no checkpoints.")
    if run.job_id is None:
        raise UserError(f"run {run.id} is {run.state} and has no job at {run.backend_name}.")
    return list(backend.checkpoints(run.job_id, run.base_model))


def download(run: Run, folder: str | os.PathLike[str], *, step: int | None = None) -> Path:
    """Write the weights of a run's model into a folder, and return the file.

    Args:
        run: A succeeded run.
        folder: Made when it is not there.
        step: Of a checkpoint; None for the model that the run ended with.

    Raises:
        UserError: The run has no model, or no checkpoint of this step.
        Unsupported: Its backend has no download of weights.
        BackendError: The backend refused or did not answer.
    """
    backend = registry.backend(run.backend_name)
    if not isinstance(backend, Downloads):
        raise Unsupported(f"backend {run.backend_name!r} does not hand out weights.")
    return backend.download(_model(run, step), Path(folder))


def _model(run: Run, step: int | None) -> TunedModel:
    if step is None:
        if run.tuned_model is None:
            raise UserError(f"run {run.id} is {run.state} and has no model to download.")
        return run.tuned_model
    saved = {checkpoint.step: checkpoint.model for checkpoint in checkpoints(run)}
    if step not in saved:
        known = ", ".join(map(str, saved)) or "none"
        raise UserError(f"run {run.id} has no checkpoint of step {step}. There are: {known}.")
    return saved[step]
