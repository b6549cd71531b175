"""Train on a rented machine: ``python -m unitune_local.remote.worker``.

The environment holds the launch. The training runs in a process of its own, so that after a lost
GPU or a lack of memory a new process continues from the newest checkpoint. A second job with the
same launch, which a create call that was delivered twice may make, ends before it trains. A lost
training is started again until it has ended or makes no progress.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from unitune_local.job_folder import Result
from unitune_local.remote.folder import RemoteFolder
from unitune_local.remote.launch import VARIABLE, RemoteLaunch
from unitune_local.remote.storage import Storage
from unitune_local.training.worker import ENVIRONMENT


def supervise(launch: RemoteLaunch, start: Callable[[int], str]) -> int:
    """Start a training until it has ended, and return the exit status: 0 if it has a model.

    Failures are counted since the last checkpoint, as a long training may lose more nodes in all.

    Args:
        launch: The launch whose result the training writes into the storage.
        start: Starts the training for the given time (1, 2, …) and waits. Returns why it was lost,
            or an empty text if it ended.
    """
    lost = _started(launch, start)
    with RemoteFolder(launch) as folder:
        folder.fetch()
        if folder.local.result() is None:
            times = launch.options.max_failures + 1
            reason = f"it failed {times} times without a new checkpoint; the last error: {lost}"
            folder.finish(Result(state="failed", error=reason))
        result = folder.local.result()
    return 0 if result is not None and result.state == "succeeded" else 1


def _started(launch: RemoteLaunch, start: Callable[[int], str]) -> str:
    there, failures, saved, number = Storage(launch.storage), 0, set[str](), 0
    while True:
        number += 1
        if not (lost := start(number)):
            return ""
        before, saved = saved, there.names(f"jobs/{launch.key}/checkpoints")
        failures = failures + 1 if saved == before else 1
        if failures > launch.options.max_failures:
            return lost


# Time until a job that was created together with this one has stored its claim, too
CLAIM_SECONDS = 10.0
# Variable with the job's own id; at most one job of a launch trains
JOB_ID = "JOB_ID"
# The base model may have to be fetched first
TRAINING_ENVIRONMENT = {name: ENVIRONMENT[name] for name in ENVIRONMENT if "OFFLINE" not in name}


def main(launch: RemoteLaunch) -> int:
    """Train, and return the exit status: 0 if a model was trained, or another job trains it."""
    own = os.environ.get(JOB_ID) or f"{platform.node()}-{os.getpid()}"
    first = first_claim(Storage(launch.storage), launch.key, own)
    if first != own:
        print(f"job {first} trains by the launch {launch.key}; this one ends.", flush=True)  # noqa: T201 - the job's log
        return 0
    return supervise(launch, lambda _: train(launch))


def first_claim(storage: Storage, key: str, own: str) -> str:
    """Claim a launch for a job and return the id of the job that claimed it first.

    Each claim is a file named by its time, as no storage has to create a file exclusively. Two jobs
    that store their claims within `CLAIM_SECONDS` see both and agree on the earlier one.
    """
    folder = f"jobs/{key}/claims"
    if not any(claim.partition(".")[2] == own for claim in storage.names(folder)):
        with tempfile.NamedTemporaryFile() as empty:
            storage.put(Path(empty.name), f"{folder}/{time.time_ns()}.{own}")
        time.sleep(CLAIM_SECONDS)
    claims = (claim for claim in storage.names(folder) if not claim.endswith(".part"))
    return min(claims).partition(".")[2]


def train(launch: RemoteLaunch) -> str:
    """Train in a new process; return its last line of output if it was lost, else nothing."""
    command = [sys.executable, "-P", "-m", "unitune_local.remote.training"]
    environment = {**os.environ, **TRAINING_ENVIRONMENT, VARIABLE: launch.model_dump_json()}
    last = deque[str](maxlen=1)
    with subprocess.Popen(  # noqa: S603 - our own module
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None, "it is a pipe"
        for line in process.stdout:
            print(line, end="", flush=True)  # noqa: T201 - the job's log
            last.extend([line.strip()] if line.strip() else [])
    if not process.returncode:
        return ""
    return last[0] if last else f"the training process ended with {process.returncode}"


if __name__ == "__main__":
    sys.exit(main(RemoteLaunch.model_validate_json(os.environ[VARIABLE])))
