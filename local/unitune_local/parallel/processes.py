"""Start the other processes of a training on this machine, and watch them.

The first rank is the worker that holds the folder's lock. It starts the others as ``python -m
unitune_local.training.worker FOLDER RANK PARENT``. Nothing here imports torch, so that they start
while the first one imports it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from unitune.errors import BackendError
from unitune.files.filesystem import no_link
from unitune_local.job_folder import JobFolder

COMMAND = (sys.executable, "-P", "-m", "unitune_local.training.worker")
LOOK_SECONDS = 0.2
# A failed rank waits so long for the first to fail for the same reason and report it
GRACE_SECONDS = 10.0


class RankLost(BackendError):
    """Another process of the training that is gone, or hangs."""


def start_ranks(folder: JobFolder, size: int, lost: Callable[[str], None]) -> None:
    """Start all ranks except the first, which is this process.

    If one dies, `lost` is called with the reason, in a thread.
    """
    for rank in range(1, size):
        with open(log := folder.rank_log(rank), "ab", opener=no_link) as file:
            process = subprocess.Popen(  # noqa: S603 - our own module
                [*COMMAND, str(folder.path), str(rank), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        who = f"process {rank + 1} of {size}"
        threading.Thread(target=_watch, args=(process, who, log, lost), daemon=True).start()


def _watch(
    process: subprocess.Popen[bytes], who: str, log: Path, lost: Callable[[str], None]
) -> None:
    code = process.wait()
    if code < 0:
        lost(f"{who} was killed by signal {-code}, perhaps out of memory")
    elif code:
        last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        lost(f"{who} failed: {last} See {log}.")


def end_with(parent: int) -> None:
    """End this process when its parent is gone."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
