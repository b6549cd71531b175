"""What backends share whose training is a worker process on this machine, with its own folder.

Nothing here imports torch, so that polling stays fast.
"""

from __future__ import annotations

import time
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from typing import ClassVar

from unitune.backends.protocol import INTERRUPTED, Guarantee, Launch, State, Status, Upload
from unitune.errors import BackendError, LockTimeout
from unitune.files.filesystem import private_folder, replacing
from unitune.workspace.own_files import is_locked, locked
from unitune_local.job_folder import JobFolder, Result, read_events

# Age in seconds after which a job without events was never started: its submit was killed
STARTING_SECONDS = 60.0
WORKER_GONE = "its worker is gone (killed, perhaps out of memory)"


class WorkerBackend:
    """Backend whose job is a folder with a worker process."""

    guarantee: ClassVar[Guarantee] = Guarantee.OWN_ID
    capabilities: ClassVar[tuple[str, ...]] = ("Pauses",)

    def start(self, folder: JobFolder) -> None:
        """Start the worker of a folder, unless it has one or has ended."""
        raise NotImplementedError

    def upload(self, path: Path, sha256: str) -> Upload:
        """Return a file unchanged."""
        return Upload(str(path.resolve()), sha256)  # not copied; the worker checks the hash

    def specify(self, launch: Launch) -> str:
        """Return the specification of a training, for its worker; raise before anything is sent."""
        raise NotImplementedError

    def made(self, folder: JobFolder, spec: str) -> None:
        """Take note of a new folder, before its specification is written."""

    def billed(self, folder: JobFolder, result: Result) -> Decimal | None:
        """Return what an ended training has cost, if it is known."""
        del folder
        return result.billed_usd

    def submit(self, launch: Launch) -> str:
        """Write the job's folder and start its worker; the same key again finds both there."""
        folder = job_folder(launch.folder, launch.key)
        if not folder.spec.exists():
            text = self.specify(launch)
            private_folder(folder.path)
            self.made(folder, text)
            with replacing(folder.spec) as file:
                file.write(text)
        self.start(folder)
        return str(folder.path)

    def find(self, launch_key: str, folder: Path) -> list[str]:
        """Return the folder of a launch, if it has one."""
        job = job_folder(folder, launch_key)
        return [str(job.path)] if job.spec.exists() else []

    def poll(self, job_id: str, cursor: str) -> Status:
        """Return the state of a training, by its folder alone."""
        folder = existing(job_id)
        # In this order, the result and the last events of a worker that ends in between are read.
        alive = is_locked(folder.lock)
        result = folder.result()
        read = read_events(folder.events, cursor)
        if result is not None:
            state = State(result.state)
            return Status(
                state,
                state.value,
                read.events,
                read.cursor,
                result.model,
                result.error,
                billed_tokens=result.billed_tokens,
                billed_usd=self.billed(folder, result),
            )
        if not alive:
            is_fresh = time.time() - folder.spec.stat().st_mtime < STARTING_SECONDS
            if is_fresh and not folder.events.exists():
                return Status(State.QUEUED, "worker starting", (), read.cursor)
            reason = folder.interrupted_by()
            if folder.pause.exists() and reason is None:
                raw = "paused"
            else:
                raw = f"{INTERRUPTED}: {(reason or WORKER_GONE).rstrip('.')}"
            raw += f"; resume continues after step {folder.saved_step()}"
            return Status(State.PAUSED, raw, read.events, read.cursor)
        if folder.cancel.exists():
            return Status(State.CANCELLING, "cancelling", read.events, read.cursor)
        return Status(State.RUNNING, "training", read.events, read.cursor)

    def cancel(self, job_id: str) -> None:
        """Stop the worker after its current step; a job without a worker ends at once."""
        folder = existing(job_id)
        folder.cancel.touch(0o600)
        try:
            with locked(folder.lock, f"training {folder.path.name}", wait_seconds=0):
                if folder.result() is None:
                    folder.finish(Result(state="cancelled"))
        except LockTimeout:
            return  # its worker will see the file

    def pause(self, job_id: str) -> None:
        """Have the worker write a checkpoint after its current step, and end."""
        existing(job_id).pause.touch(0o600)

    def resume(self, job_id: str) -> None:
        """Start a worker, which continues from the newest checkpoint."""
        folder = existing(job_id)
        folder.pause.unlink(missing_ok=True)
        self.start(folder)


def job_folder(run_folder: Path, launch_key: str) -> JobFolder:
    """Return the folder of a launch."""
    return JobFolder(run_folder.resolve() / launch_key)


def existing(job_id: str) -> JobFolder:
    """Return the folder of a job; raise `BackendError` if it is gone."""
    folder = JobFolder(Path(job_id))
    if not folder.spec.exists():
        raise BackendError(
            f"the training's folder {job_id} does not exist: it was deleted or moved with its "
            "project. If you moved the project, run the command in its new folder. If you deleted "
            "it, cancel the run.",
            status=HTTPStatus.GONE,
        )
    return folder
