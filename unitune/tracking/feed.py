"""Feeding a run's trackers while it is watched, as who watches sees it.

Trackers' packages take seconds to import, print, and may hang. So they stand in a process of their
own (`unitune.tracking.follow`), which reads the ledger for itself. It is held by a pipe: when that
closes, because the watch is over or its process was killed, it sends what is left, and ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from unitune.errors import UnreadableRecord
from unitune.ledger import Ledger, RunRecord
from unitune.tracking.interface import TRACKED, Outcome, Results
from unitune.workspace.filesystem import private_folder
from unitune.workspace.locks import is_locked

FOLLOW = "unitune.tracking.follow"
FOLDER = "tracking"
"""Current folder of the trackers, in the ledger's: they read settings from where they work."""
LOCK = "tracking.lock"
"""In a run's folder: held by the process that feeds its trackers."""
CLOSE_SECONDS = 60.0
"""How long a watch waits at its end for what is left to be sent; that goes on without it."""
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
}
"""Keeps the packages from reporting to their makers, unless the user has set it otherwise."""


@dataclass(slots=True)
class Feed:
    """The process that feeds the trackers of a run."""

    _process: subprocess.Popen[str]
    _names: Sequence[str]
    _results: list[str] = field(default_factory=list[str])
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    """Of each tracker, once it is closed."""
    is_late: bool = False
    """Whether it still had something to send when the wait for it was over."""

    def add(self, results: Results) -> None:
        """Send what a comparison has measured, too, at the end."""
        self._results.append(f"{results.model_dump_json()}\n")

    def close(self) -> None:
        """Let it send what is left, and wait for that, though not for ever."""
        try:
            lines, _ = self._process.communicate("".join(self._results), CLOSE_SECONDS)
            self.outcomes += [Outcome.model_validate_json(line) for line in lines.splitlines()]
            problem = f"its process has ended early ({self._process.returncode})"
        except subprocess.TimeoutExpired:
            self.is_late = True
            problem = f"it still sends after {CLOSE_SECONDS:.0f} s, and goes on"
        known = {outcome.tracker for outcome in self.outcomes}
        silent = (name for name in self._names if name not in known)
        self.outcomes += [Outcome(tracker=name, problem=problem) for name in silent]


@contextmanager
def feeding(ledger: Ledger, record: RunRecord, names: Sequence[str]) -> Generator[Feed | None]:
    """Feed a run's trackers while the body runs, and until all is sent."""
    if not names:
        yield None
        return
    folder = ledger.folder / FOLDER
    private_folder(folder)
    own = {"WANDB_DIR": str(folder)}
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    command = [sys.executable, "-P", "-m", FOLLOW, str(ledger.folder), record.id, *names]
    feed = Feed(
        subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=folder,
            env={**QUIET, **store, **os.environ, **own},
            start_new_session=True,  # Ctrl-C is for who watches
        ),
        names,
    )
    try:
        yield feed
    finally:
        feed.close()


def trackers_to_feed(ledger: Ledger, record: RunRecord) -> tuple[str, ...]:
    """Return the trackers of a run's job that do not know yet how it ended.

    None where a process feeds them already.
    """
    if is_locked(ledger.run_folder(record.id) / LOCK):
        return ()
    try:
        names = ledger.job(record.id).track
    except UnreadableRecord:  # such as a run that others launched
        return ()
    done = {seen.event.key for seen in ledger.events(record.id, record.attempt, key=TRACKED)}
    return tuple(name for name in names if f"{TRACKED}.{name}" not in done)
