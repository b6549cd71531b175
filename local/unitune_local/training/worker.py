"""Train in a process of its own: ``python -m unitune_local.training.worker FOLDER [RANK PARENT]``.

The worker outlives the process that starts it, and holds the folder's lock while it lives.
Without a folder it is a rank started by torchrun or srun, and the first rank names the folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psutil

from unitune.backends.credentials import allowed_variables
from unitune.backends.exactly_once import run_of
from unitune.backends.launched import rank_and_size
from unitune.errors import BackendError, IntegrityError, LockTimeout, RunFailed, UserError
from unitune.files import yaml_file
from unitune.files.filesystem import no_link
from unitune.observability.logs import log_fields, print_logs
from unitune.security.redaction import without_secrets
from unitune.workspace import user_config, user_settings
from unitune.workspace.own_files import is_locked, locked
from unitune_local.job_folder import EventLog, JobFolder, Result
from unitune_local.parallel.processes import (
    GRACE_SECONDS,
    OutOfMemory,
    RankLost,
    Rescue,
    end_with,
    start_ranks,
)

LOCK_SECONDS = 5.0  # processes that check the lock hold it for a moment
LOOK_SECONDS = 0.05
# Long enough for an average. The load average would include programs that have just ended, such as
# the installation before a first run.
IDLE_LOOK_SECONDS = 0.5
ENVIRONMENT = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it, cuBLAS sums in any order
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",  # the base is already here; nothing else is fetched
    "TOKENIZERS_PARALLELISM": "false",
}


# Larger than any memory, in bytes. Otherwise glibc returns every large tensor to the system and
# requests it again in the next step: steps of the embedded model took 8 % longer, those of a model
# of 5 million weights 10 to 90 %.
KEPT_HEAP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
# Gathered and freed layers would fragment the heap, by half the size of the layers as measured
RETURNED_HEAP = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}


# Growing blocks of GPU memory: between fixed blocks, micro-batches of different lengths would leave
# gaps. Source: https://docs.pytorch.org/docs/stable/notes/cuda.html (PYTORCH_ALLOC_CONF).
GROWING_SEGMENTS = "expandable_segments:True"


def start_worker(folder: JobFolder) -> None:
    """Start a worker without a terminal, and return when it holds the folder's lock.

    A folder with a worker or a result is left unchanged.

    Raises:
        BackendError: The worker does not start.
    """
    if is_locked(folder.lock) or folder.result() is not None:
        return
    size, launched = _setting(folder, "processes"), rank_and_size()
    if launched and launched[1] != size:
        own = f"the training has {size} processes, and torchrun or srun started {launched[1]}."
        raise UserError(f"{own} Start as many, or start unitune without them.")
    threads, shard = _setting(folder, "threads") * size, _setting(folder, "shard")
    variables = environment(threads, keeps_memory=not shard, keys=judge_keys(folder))
    start_process(folder, "unitune_local.training.worker", variables)


def start_process(folder: JobFolder, module: str, variables: Mapping[str, str]) -> None:
    """Start a module as the worker of a folder, and return when it holds the folder's lock.

    A worker that has written an event and then died did start; the training can be resumed.

    Raises:
        BackendError: The worker does not start.
    """
    earlier = _size(folder.events)
    with open(folder.log, "ab", opener=no_link) as log:
        worker = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", "-m", module, str(folder.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            umask=0o077,  # checkpoints and adapters contain training data
            env=variables,
        )
    while worker.poll() is None and not is_locked(folder.lock):
        time.sleep(LOOK_SECONDS)
    if worker.poll() is None:
        # Without a wait, the ended process would stay in the process table.
        threading.Thread(target=worker.wait, daemon=True).start()
    elif worker.returncode != 0 and _size(folder.events) == earlier:
        last = folder.log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        reason = last or f"it ended with status {worker.returncode}."
        raise BackendError(f"the training process failed to start: {reason} See {folder.log}.")


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def environment(
    threads: int, *, keeps_memory: bool = True, keys: Iterable[str] = ()
) -> dict[str, str]:
    """Return the environment of a process that trains, without keys except those of judges.

    `threads` counts all ranks. With `keeps_memory`, memory that a step frees is kept for the next.
    """
    whole = user_settings.environment()
    kept = without_secrets(whole) | {name: whole[name] for name in keys if name in whole}
    heap = KEPT_HEAP if keeps_memory else RETURNED_HEAP
    defaults = {"OMP_WAIT_POLICY": _wait_policy(threads), "PYTORCH_ALLOC_CONF": GROWING_SEGMENTS}
    return {**defaults, **kept, **ENVIRONMENT, **heap}


def busy_share() -> float:
    """Return the share of the processor in use; call it before the work begins."""
    return psutil.cpu_percent(interval=IDLE_LOOK_SECONDS) / 100


def _wait_policy(threads: int) -> str:
    """Return how threads should wait for each other.

    On 2 idle cores a step took 1.06 s with spinning threads and 1.52 s with sleeping ones. When
    other processes used the cores, spinning threads took 2 to 7 times as long as sleeping ones.
    """
    idle = (os.cpu_count() or 1) * (1 - busy_share())
    return "active" if idle > threads - 0.5 else "passive"


def _setting(folder: JobFolder, name: str) -> int:
    return int(json.loads(folder.spec.read_text(encoding="utf-8"))["settings"][name])


def judge_keys(folder: JobFolder) -> list[str]:
    """Return the variables with keys of a training's judges that the user has allowed."""
    rewards = json.loads(folder.spec.read_text(encoding="utf-8")).get("rewards", ())
    given = [(each["scorer"].get("api_key_variable"), each["scorer"]) for each in rewards]
    return [name for name, judge in given if name and name in allowed_variables(judge["url"])]


# Trains by a folder's specification; returns None if the training was paused
Train = Callable[[JobFolder, EventLog, Rescue], Result | None]


def train_here(folder: JobFolder, log: EventLog, rescue: Rescue) -> Result | None:
    """Train on this machine; return None if the training was paused."""
    if rank_and_size() is None:
        start_ranks(folder, _setting(folder, "processes"), rescue.end)
    from unitune_local.training.run import run_training  # noqa: PLC0415 - slow; we live already

    model = run_training(folder, log, rescue.ready)
    if model is None:
        return Result(state="cancelled") if folder.cancel.exists() else None
    return Result(state="succeeded", model=model)


def work(folder: JobFolder, train: Train = train_here) -> None:
    """Train by a folder's specification, unless another worker does or it has ended."""
    try:
        with locked(folder.lock, f"training {folder.path.name}", LOCK_SECONDS):
            if folder.result() is None and (result := _outcome(folder, train)) is not None:
                for each in folder.path.glob("rendezvous-*"):  # of killed workers, too
                    each.unlink(missing_ok=True)
                folder.finish(result)
    except LockTimeout as error:
        print(error, flush=True)  # noqa: T201 - into worker.log


def _outcome(folder: JobFolder, train: Train) -> Result | None:
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
        return train(folder, log, rescue)
    except (UserError, IntegrityError, RunFailed) as error:  # the same would happen again
        return Result(state="failed", error=str(error))
    except Exception as error:  # noqa: BLE001 - the cause can be corrected, and the training resumed
        traceback.print_exc()
        if isinstance(error, RankLost):
            # The thread that watches that rank reports the reason and ends this process.
            time.sleep(GRACE_SECONDS)
        rescue.interrupt(_reason(error, folder))
        return None


def _reason(error: Exception, folder: JobFolder) -> str:
    if isinstance(error, OutOfMemory) and error.limit is not None:
        folder.limit_micro_batches(error.limit)
    return str(error) if isinstance(error, BackendError) else f"{type(error).__name__}: {error}"


def join(rank: int) -> None:
    """Run a rank started by torchrun or srun; the first rank starts the training."""
    from unitune_local.parallel.ranks import launched_store  # noqa: PLC0415 - slow

    store, path = launched_store()
    if not path.exists() or path.stat().st_uid != os.getuid():  # whoever has the port may name any
        sys.exit(f"{path} is not your folder on this node. Put the project on shared storage.")
    assist(JobFolder(path), rank, store)


def assist(folder: JobFolder, rank: int, meeting: object) -> None:
    """Run another process of a training.

    After a failure it waits, so that the first process, which often fails for the same reason, can
    report it.
    """
    from unitune_local.training.run import assist_training  # noqa: PLC0415 - slow

    try:
        assist_training(folder, rank, meeting)
    except Exception as error:  # noqa: BLE001 - the error is in the log
        traceback.print_exc()
        time.sleep(GRACE_SECONDS)
        sys.exit(_reason(error, folder))


def notify_end(folder: JobFolder) -> None:
    """Notify the user and the job's trackers of the end of a training, in a new process."""
    if folder.result() is None:
        return
    job = folder.path.parent / "job.yaml"
    is_tracked = job.exists() and bool(yaml_file.read(job).value.get("track"))
    if not is_tracked and user_config.read().notify is None:
        return
    subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-P", "-m", "unitune.run.watching", run_of(folder.path.name)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def lead(folder: JobFolder, train: Train = train_here) -> None:
    """Do the work of a folder, with the run's id in all records, and report the end."""
    with log_fields(run_id=run_of(folder.path.name)):
        work(folder, train)
    notify_end(folder)


def main(own: str = "", rank: str = "", parent: str = "") -> None:
    """Be one of the processes of a training."""
    print_logs()
    folder = JobFolder(Path(own))
    if rank:
        end_with(int(parent))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which the first process gets, too
        assist(folder, int(rank), folder.rendezvous(int(parent)))
    elif own:
        lead(folder)
    elif launched := rank_and_size():
        join(launched[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
