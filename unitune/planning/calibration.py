"""Time a job's training on this machine, so that its plan becomes narrow: ``plan --calibrate``.

The backend keeps what it measured and makes every later forecast from it; so this returns nothing.
"""

from __future__ import annotations

from unitune.backends.capabilities import Calibrates
from unitune.errors import Unsupported
from unitune.job.job import Job
from unitune.planning.preflight import ResolvedJob, preflight


def calibrate(job: Job | ResolvedJob) -> None:
    """Measure a few steps of a job's training here.

    Raises:
        Unsupported: Its backend does not train on this machine.
        BackendError: The measuring process died.
    """
    resolved = preflight(job)
    backend = resolved.backend
    if not isinstance(backend, Calibrates):
        raise Unsupported(
            f"backend {resolved.offer.name!r} does not train on this machine, so there is nothing "
            "to calibrate. Leave --calibrate out."
        )
    splits = resolved.splits
    backend.calibrate(resolved.job, splits.train, splits.validation)
