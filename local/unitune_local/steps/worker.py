"""Train at a vendor in a process of its own: ``python -m unitune_local.steps.worker FOLDER``.

The process outlives the one that starts it, and holds the folder's lock while it lives. Whatever
ends it, the vendor keeps the checkpoints, and a resume continues from the newest.
"""

from __future__ import annotations

import sys
import threading
import traceback
from pathlib import Path

from unitune.errors import BackendError, IntegrityError, RunFailed, UserError
from unitune_local.job_folder import EventLog, JobFolder, Result
from unitune_local.training.rescue import Rescue
from unitune_local.training.worker import notify_end, work


def outcome(folder: JobFolder) -> Result | None:
    """Train, and return the outcome, or None if the training can be resumed."""
    if folder.cancel.exists():
        return Result(state="cancelled")
    log = EventLog(folder.events)
    log.write("message", {"text": "worker started"})
    folder.interruption.unlink(missing_ok=True)
    rescue = Rescue(folder, log)
    if threading.current_thread() is threading.main_thread():
        rescue.end_on_sigterm()
    try:
        from unitune_local.steps.run import run_training  # noqa: PLC0415 - slow; we live already

        return run_training(folder, log)
    except (UserError, IntegrityError, RunFailed) as error:  # the same would happen again
        return Result(state="failed", error=str(error))
    except Exception as error:  # noqa: BLE001 - the cause can be corrected, and the training resumed
        traceback.print_exc()
        is_ours = isinstance(error, BackendError)
        rescue.interrupt(str(error) if is_ours else f"{type(error).__name__}: {error}")
        return None


def main(own: str) -> None:
    """Be the process of a training."""
    folder = JobFolder(Path(own))
    work(folder, outcome)
    notify_end(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
