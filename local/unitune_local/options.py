"""What the local backend alone understands: ``options: {local: {…}}`` of a job.

Unknown keys are refused with the nearest right one. `auto` is resolved in `unitune_local.settings`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unitune.backends.options import job_options
from unitune.job.job import Auto, Job, Spec


class LocalOptions(Spec):
    """Settings of this machine, not of the training's result."""

    device: Literal["cpu", "cuda", "mps"] | Auto = "auto"
    """Where to train; `auto`: the best that is there."""
    dtype: Literal["float32", "bfloat16"] | Auto = "auto"
    """Of the frozen weights; `auto`: the one that multiplies faster. Adapters stay float32."""
    threads: Annotated[int, Field(ge=1)] | Auto = "auto"
    """CPU threads; `auto`: the cores that the process really has."""
    micro_batch_tokens: Annotated[int, Field(ge=16)] | Auto = "auto"
    """Most tokens computed at once; more are accumulated. `auto`: what fits into memory."""
    share_prefix: bool = True
    """Compute the tokens that all rows of a batch begin with once."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 20.0
    """Least time between two checkpoints."""
    checkpoint_every_steps: Annotated[int, Field(ge=1)] | None = None
    """Checkpoint after so many steps, whatever the time."""


def local_options(job: Job) -> LocalOptions:
    """Return a job's options for this backend.

    Raises:
        JobError: A key is unknown or a value not allowed.
    """
    return job_options(job, "local", LocalOptions)
