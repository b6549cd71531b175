"""End a worker before its training has ended, and keep what it has done.

A worker ends early when it is asked to (SIGTERM), when another process of the training is lost, or
when anything raises. Each time the last whole step is saved, if that is still possible, and the
reason is written into the training's folder; the training is then paused. The state between steps
can be saved from any thread, so neither a long step nor a long evaluation holds up the end.

Light: nothing here imports torch, so that a worker can be ended while it starts.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress

from unitune.errors import BackendError
from unitune_local.job_folder import EventLog, JobFolder, Result

TERMINATED = "the worker was asked to end (SIGTERM)"
ENDED_EARLY = 1  # exit status of a worker that ends here


class OutOfMemory(BackendError):
    """A micro-batch did not fit into memory.

    Args:
        tokens: Tokens of the largest micro-batch of the step.
        rows: Rows of that micro-batch.
        error: What torch or Python raised.
    """

    def __init__(self, tokens: int, rows: int, error: BaseException) -> None:
        self.limit = tokens // 2 if rows > 1 else None
        """Tokens of a micro-batch that may fit; None where one row alone is too large."""
        advice = f"After a resume, micro-batches have at most {self.limit} tokens."
        if self.limit is None:
            advice = (
                "It holds one row alone. Set options.local.gradient_checkpointing and "
                "options.local.chunked_cross_entropy to true, or tuning.overlength to truncate "
                "with a lower tuning.sequence_length, in a new run."
            )
        first = str(error).strip().partition("\n")[0].rstrip(". ")
        super().__init__(f"out of memory in a micro-batch of {tokens} tokens ({first}). {advice}")


class Rescue:
    """What a worker does when it has to end early.

    Args:
        folder: Folder of the training.
        log: Its events.
    """

    def __init__(self, folder: JobFolder, log: EventLog) -> None:
        self._folder, self._log = folder, log
        self._save: Callable[[], None] = lambda: None

    def ready(self, save: Callable[[], None]) -> None:
        """Take the function that saves the last whole step."""
        self._save = save

    def interrupt(self, reason: str) -> None:
        """Save the last whole step, and write down why the worker ends."""
        try:
            self._save()
        except Exception:  # noqa: BLE001 - an older checkpoint is then the newest
            traceback.print_exc()
        with suppress(OSError):  # such as of a full disk
            if self._folder.cancel.exists():
                self._folder.finish(Result(state="cancelled"))
            self._folder.interrupt(reason)
            self._log.write("warning", {"text": f"interrupted: {reason}"})

    def end(self, reason: str) -> None:
        """Interrupt the training, and end this process whatever its other threads do."""
        self.interrupt(reason)
        os._exit(ENDED_EARLY)

    def end_on_sigterm(self) -> None:
        """Let SIGTERM end this process within seconds, which its main thread cannot hold up.

        Python runs a signal's handler in the main thread, once that is done with what it computes.
        The byte that it writes for each signal is written at once.
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
