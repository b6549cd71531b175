"""The process that takes a deployment down in time: ``python -m unitune.run.reaper ID [PROCESS]``.

It outlives the process that started it. It ends a deployment when its time is over, by a clock that
is never set, or as soon as PROCESS (`Holder.text`) has ended. Whatever the ledger or the vendor
does, it tries again: once it has read of a deployment, it takes it down in time, also when the
ledger cannot be reached by then. It leaves when the ledger says that the deployment is down, or
when the vendor says so and the ledger no longer has it. What goes wrong stands in its log.

A reaper has a file in the folder ``reapers`` of the home, which says which process it is and when
the deployment is due; its log stands beside it. Both are private to the user. A deployment that
another machine has put up has no file here.

Taken down is only what this ledger is seen to have put up: the vendor must show, under a name of
ours, the very deployment that the ledger has. A ledger may come from elsewhere, and what it names
may be someone else's production.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any
from urllib.parse import quote

from unitune.backends import registry
from unitune.backends.capabilities import Deploys
from unitune.backends.launch_keys import is_deployment_name
from unitune.backends.retry import delays
from unitune.errors import BackendError, LockTimeout, NotFoundError, Unreachable, Unsupported
from unitune.ledger import DeploymentRecord, Ledger
from unitune.ledger.holders import Holder, Life, process, this_process
from unitune.security.redaction import one_line
from unitune.security.spec import Frozen
from unitune.workspace.filesystem import private_folder, replacing
from unitune.workspace.home import home

LOOK_SECONDS = 5.0
TRY_AGAIN_SECONDS = 60.0  # the longest pause after something went wrong
# How long to go on where the ledger does not answer and nothing is left to take down
GIVE_UP_SECONDS = 86_400.0
WRITES = 3  # how often a change is tried while other processes change the record in between
LOG_BYTES = 65_536
# A clock that is never set, and that goes on while the machine sleeps, as a vendor's price does.
# Source: clock_gettime(2) of Linux, clock_gettime(3) of macOS, whose CLOCK_MONOTONIC does so.
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
log = logging.getLogger(__name__)


class Reaper(Frozen):
    """A process that takes a deployment down.

    Args:
        process: As a line of `Holder.text`.
        due: When it does so, by `CLOCK`.
        parent: Process whose end is the deployment's too, likewise.
    """

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
    """Return how long a deployment is to stand yet."""
    reaper, me = reaper_of(home, record.id), this_process()
    if reaper is None or (reaper.holder.host, reaper.holder.boot) != (me.host, me.boot):
        return record.until - now
    return reaper.due - clock()


def leave_reaper(home: Path, deployment_id: str, seconds: float, parent: str | None) -> None:
    """Start the process that takes a deployment down in so many seconds, or when its parent ends.

    No terminal can end it. The parent is a line of `Holder.text`.
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


def host_of(backend: str) -> Deploys:
    """Return a backend whose models answer from deployments.

    Raises:
        Unsupported: Its models need none.
    """
    host = registry.backend(backend)
    if not isinstance(host, Deploys):
        raise Unsupported(f"models of {backend} answer without a deployment.")
    return host


def remove(record: DeploymentRecord, age_seconds: float) -> None:
    """Take a deployment down at its vendor, without reading the ledger.

    Raises:
        BackendError: The vendor did not do so, or shows another deployment than the ledger has.
    """
    host = host_of(record.backend)
    ref = host.find_deployment(record.name)
    if ref is None and record.ref is None:
        if age_seconds < registry.offer(record.backend).settle_seconds:
            raise BackendError(
                f"{record.backend} shows no deployment {record.name} yet, and it may still "
                f"come: it was requested just now. Again: unitune undeploy {record.id}"
            )
        return
    if ref is None and host.deployment_status(str(record.ref), record.model).state == "gone":
        return
    if ref is None or record.ref not in (None, ref) or not is_deployment_name(record.name):
        raise BackendError(
            f"{record.backend} shows {ref!r} as the deployment {record.name!r}, and the ledger "
            f"has {record.ref!r}: that is not seen to be one that this ledger has put up, so it is "
            f"left alone. If it is yours, take it down at {record.backend}."
        )
    host.undeploy(ref)


def write(ledger: Ledger, record: DeploymentRecord, **changes: Any) -> DeploymentRecord:
    """Write down what has changed of a deployment, also when another process writes in between.

    Where another process has seen its end, nothing is changed. Returns the record as it then is.

    Raises:
        LockTimeout: Others change it again and again.
    """
    for tries in range(1, WRITES + 1):
        changed = replace(record, **changes)
        if changed == record or record.ended is not None:
            return record
        try:
            return ledger.write_deployment(changed)
        except LockTimeout:
            if tries == WRITES:
                raise
            record = ledger.deployment(record.id)
    raise AssertionError("the last try returns or raises")


@dataclass
class _Task:
    """What a reaper knows.

    Args:
        ledger: Where the deployment is written down.
        id: The deployment's.
        parent: Process whose end is the deployment's, too.
        record: As it was last read; None: never yet.
        due: When it is to be taken down, by `clock`.
        down: Whether the vendor has taken it down, or does not have it.
        forgotten: Whether the ledger answers, and has no such deployment.
    """

    ledger: Ledger
    id: str
    parent: Holder | None
    record: DeploymentRecord | None = None
    due: float = float("inf")
    down: bool = False
    forgotten: bool = False
    since: float = field(default_factory=clock)

    def read(self) -> None:
        """Read the record; the first record says when the deployment is due."""
        try:
            if not self.ledger.exists:
                raise Unreachable(f"there is no ledger in {self.ledger.folder}.")
            record = self.ledger.deployment(self.id)
        except NotFoundError:
            self.forgotten = True
            return
        if self.record is None:
            self.due = clock() + seconds_left(self.ledger.folder, record, self.ledger.now())
        self.record, self.forgotten = record, False

    def take_down_if_due(self) -> None:
        """Take the deployment down, and write that down, once its time is over."""
        is_due = clock() >= self.due or (self.parent is not None and self.parent.life == "gone")
        if self.record is None or self.is_done or not is_due:
            return
        if not self.down:
            remove(self.record, clock() - self.since)
            self.down, self.since = True, clock()
            log.info("%s was taken down", self.id)
        if not self.forgotten:
            self.record = write(self.ledger, self.record, state="gone", ended=self.ledger.now())

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do or to wait for."""
        if self.record is None:
            return self.forgotten or clock() > self.since + GIVE_UP_SECONDS
        if self.down and (self.forgotten or clock() > self.since + GIVE_UP_SECONDS):
            return True
        return self.record.ended is not None and not self.forgotten


def reap(deployment_id: str, parent: Holder | None) -> None:
    """Wait for the end of a deployment in this ledger, or of its parent process, and see to it."""
    task = _Task(Ledger(home()), deployment_id, parent)
    again = delays(TRY_AGAIN_SECONDS)
    while True:
        steps = [_survived(step) for step in (task.read, task.take_down_if_due)]
        if task.is_done:
            break
        if all(steps):
            again = delays(TRY_AGAIN_SECONDS)
        time.sleep(LOOK_SECONDS if all(steps) else next(again))
    with suppress(OSError):
        forget(task.ledger.folder, deployment_id)


def _survived(step: Callable[[], None]) -> bool:
    """Do a step, and return whether it has worked; whatever it meets goes into the log."""
    try:
        step()
    except Exception as error:  # noqa: BLE001 - the deployment costs money until it is down
        log.warning("%s: %s", type(error).__name__, one_line(str(error)))
        return False
    return True


def _keep_log(deployment_id: str) -> None:
    """Write the log to a file of bounded size, private to the user, where that can be."""
    os.umask(0o077)
    log.setLevel(logging.INFO)
    logging.raiseExceptions = False
    with suppress(OSError):
        file = log_file(home(), deployment_id)
        file.parent.mkdir(exist_ok=True)
        handler = RotatingFileHandler(file, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)


if __name__ == "__main__":
    _keep_log(sys.argv[1])
    reap(sys.argv[1], Holder.parse(sys.argv[2]) if len(sys.argv) > 2 else None)
