"""The processes that take deployments down in time: how one is started, and whether it lives.

A reaper (`unitune.run.reaper`) has a file in the folder ``reapers`` of the home, which says which
process it is and when the deployment is due, by a clock that is never set; its log stands beside
it. Both are private to the user. A deployment that another machine has put up has no file here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from unitune.ledger import DeploymentRecord
from unitune.ledger.holders import Holder, Life, process, this_process
from unitune.workspace.filesystem import private_folder, replacing

CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that is never set, and that goes on while the machine sleeps, as a vendor's price does.

Source: clock_gettime(2) of Linux, clock_gettime(3) of macOS, whose CLOCK_MONOTONIC does so.
"""


class Reaper(BaseModel):
    """A process that takes a deployment down.

    Args:
        process: As a line of `Holder.text`.
        due: When it does so, by `CLOCK`.
        parent: Process whose end is the deployment's too, likewise.
    """

    model_config = ConfigDict(frozen=True)
    process: str
    due: float
    parent: str | None = None

    @property
    def holder(self) -> Holder:
        """The process."""
        return Holder.parse(self.process)

    @property
    def life(self) -> Life:
        """Whether it lives, as far as can be seen."""
        return "gone" if self.holder.was_before_this_boot else self.holder.life


def clock() -> float:
    """Return the seconds of `CLOCK`."""
    return time.clock_gettime(CLOCK)


def reaper_of(home: Path, deployment_id: str) -> Reaper | None:
    """Return the process that was left for a deployment on this machine; None: there is none."""
    with suppress(OSError, ValueError):
        return Reaper.model_validate_json(_file(home, deployment_id).read_text("utf-8"))
    return None


def seconds_left(home: Path, record: DeploymentRecord, now: float) -> float:
    """Return how long a deployment is to stand yet.

    Args:
        home: Of the ledger.
        record: The deployment.
        now: By the ledger's clock, which counts where no process of this boot was left for it.
    """
    reaper = reaper_of(home, record.id)
    if reaper is not None and _same_boot(reaper.holder):
        return reaper.due - clock()
    return record.until - now


def leave_reaper(home: Path, deployment_id: str, seconds: float, parent: str | None) -> None:
    """Start the process that takes a deployment down; no terminal can end it.

    Args:
        home: Of the ledger.
        deployment_id: Of the deployment.
        seconds: How long it is to stand yet.
        parent: Process whose end is the deployment's too, as a line of `Holder.text`.
    """
    due = clock() + seconds
    watched = [] if parent is None else [parent]
    started = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-P", "-m", "unitune.run.reaper", deployment_id, *watched],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "UNITUNE_DIR": str(home)},
    )
    # Someone has to take note of its end, or it stays in the process table.
    threading.Thread(target=started.wait, daemon=True).start()
    file = _file(home, deployment_id)
    private_folder(file.parent)
    with replacing(file) as draft:
        os.fchmod(draft.fileno(), 0o600)
        made = Reaper(process=process(started.pid).text, due=due, parent=parent)
        draft.write(made.model_dump_json())


def log_file(home: Path, deployment_id: str) -> Path:
    """Return where the process of a deployment writes what went wrong."""
    return _file(home, deployment_id, "log")


def forget(home: Path, deployment_id: str) -> None:
    """Remove the file of a process whose deployment is down."""
    _file(home, deployment_id).unlink(missing_ok=True)


def _file(home: Path, deployment_id: str, kind: str = "json") -> Path:
    """Return a file of a process; an id that a ledger has from elsewhere leads out of no folder."""
    return home / "reapers" / f"{quote(deployment_id, safe='')}.{kind}"


def _same_boot(holder: Holder) -> bool:
    me = this_process()
    return (holder.host, holder.boot) == (me.host, me.boot)
