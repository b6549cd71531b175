"""End a worker before its training has ended, and save the last whole step.

Any thread can save, so neither a long step nor a long evaluation delays the end. Nothing here
imports torch, so that a worker can be ended while it starts.
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
