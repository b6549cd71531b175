"""Start, watch and end the processes of a training on this machine.

The first rank is the worker that holds the folder's lock. It starts the others as ``python -m
unitune_local.training.worker FOLDER RANK PARENT``. Nothing here imports torch, so that they start
while the first one imports it, and can be ended while they start. Any thread can save the last
whole step, so neither a long step nor a long evaluation delays the end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from unitune.errors import BackendError
from unitune.files.filesystem import no_link
from unitune_local.job_folder import EventLog, JobFolder, Result

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


TERMINATED = "the worker received SIGTERM"
ENDED_EARLY = 1  # exit status of a worker that ends early


class OutOfMemory(BackendError):
    """A micro-batch of so many tokens and rows, the largest of its step, that did not fit."""

    def __init__(self, tokens: int, rows: int, error: BaseException) -> None:
        self.limit = tokens // 2 if rows > 1 else None
        """Tokens of a micro-batch that may fit; None if a single row is too large."""
        advice = f"After a resume, micro-batches have at most {self.limit} tokens."
        if self.limit is None:
            advice = (
                "It contains a single row. Set options.local.gradient_checkpointing and "
                "options.local.chunked_cross_entropy to true, or tuning.overlength to truncate "
                "with a lower tuning.sequence_length, in a new run."
            )
        first = str(error).strip().partition("\n")[0].rstrip(". ")
        super().__init__(f"out of memory in a micro-batch of {tokens} tokens ({first}). {advice}")


class Rescue:
    """Early end of a worker."""

    def __init__(self, folder: JobFolder, log: EventLog) -> None:
        self._folder, self._log = folder, log
        self._save: Callable[[], None] = lambda: None

    def ready(self, save: Callable[[], None]) -> None:
        """Set the function that saves the last whole step."""
        self._save = save

    def interrupt(self, reason: str) -> None:
        """Save the last whole step, and write the reason why the worker ends."""
        try:
            self._save()
        except Exception:  # noqa: BLE001 - an older checkpoint is then the newest
            traceback.print_exc()
        with suppress(OSError):  # for example with a full disk
            if self._folder.cancel.exists():
                self._folder.finish(Result(state="cancelled"))
            self._folder.interrupt(reason)
            self._log.write("warning", {"text": f"interrupted: {reason}"})

    def end(self, reason: str) -> None:
        """Interrupt the training, and end this process regardless of its other threads."""
        self.interrupt(reason)
        os._exit(ENDED_EARLY)

    def end_on_sigterm(self) -> None:
        """Make SIGTERM end this process within seconds, regardless of its main thread.

        Python runs a signal's handler in the main thread, after its current computation. The byte
        that it writes for each signal is written at once.
        """
        reading, writing = os.pipe()
        os.set_blocking(writing, False)

        def ignore(_signal: int, _frame: object) -> None:
            return

        signal.signal(signal.SIGTERM, ignore)
        signal.set_wakeup_fd(writing)

        def wait() -> None:
            while signal.SIGTERM not in os.read(reading, 1):
                pass
            self.end(TERMINATED)

        threading.Thread(target=wait, daemon=True).start()
