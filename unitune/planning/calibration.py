"""Time a job's training on this machine, so that its plan becomes narrow: ``plan --calibrate``.

What was measured is kept by the backend, which makes every later forecast from it; so this returns
nothing, and `unitune.planning.plan.plan` needs to know nothing of it.
"""

from __future__ import annotations

from unitune.backends import registry
from unitune.backends.capabilities import Calibrates
from unitune.data.split import load_splits
from unitune.errors import Unsupported
from unitune.job.job import Job
from unitune.planning.feasibility import on_its_own_name


def calibrate(job: Job) -> None:
    """Measure a few steps of a job's training here.

    Args:
        job: What to tune and how.

    Raises:
        Unsupported: Its backend does not train on this machine.
        BackendError: The measuring process died.
    """
    backend = registry.backend(job.backend)
    if not isinstance(backend, Calibrates):
        raise Unsupported(
            f"backend {job.backend!r} does not train on this machine, so there is nothing to "
            "calibrate. Leave --calibrate out."
        )
    splits = load_splits(job)
    backend.calibrate(
        on_its_own_name(job, registry.offer(job.backend)), splits.train, splits.validation
    )
