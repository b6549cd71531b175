"""Train at a vendor in a process of its own: ``python -m unitune_local.steps.worker FOLDER``.

The process outlives the one that starts it, and holds the folder's lock while it lives. Whatever
ends it, the vendor keeps the checkpoints, and a resume continues from the newest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from unitune.observability.logs import print_logs
from unitune_local.job_folder import EventLog, JobFolder, Result
from unitune_local.parallel.processes import Rescue
from unitune_local.training.worker import lead


def train(folder: JobFolder, log: EventLog, rescue: Rescue) -> Result | None:
    """Train at the vendor; return None if paused."""
    del rescue  # the vendor has the weights
    from unitune_local.steps.run import run_training  # noqa: PLC0415 - slow; we live already

    return run_training(folder, log)


def main(own: str) -> None:
    """Be the process of a training."""
    print_logs()
    lead(JobFolder(Path(own)), train)


if __name__ == "__main__":
    main(*sys.argv[1:])
