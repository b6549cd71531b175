"""Take a deployment down in time: ``python -m unitune.run.reaper ID [PROCESS]``.

The process outlives the one that started it. It ends a deployment at its time, by a clock that is
never set, or as soon as PROCESS (`Holder.text`) has ended. It retries all errors of the ledger and
the vendor; after it has read the record once, it no longer needs the ledger. It exits when the
ledger or, if the ledger lost the record, the vendor shows that the deployment is down.

Its file in the folder ``reapers`` of the home names the process and the end time; its log is next
to it. Both are private to the user. Deployments of other machines have no file here.

It takes down only what this ledger created: the vendor must show the same deployment under a
unitune name. A ledger copied from elsewhere may name someone else's production deployment.
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
from unitune.backends.exactly_once import is_deployment_name
from unitune.backends.retry import delays
from unitune.documents import Frozen
from unitune.errors import BackendError, LockTimeout, NotFoundError, Unreachable, Unsupported
from unitune.files.filesystem import private_folder, replacing
from unitune.files.system import DETACHED
from unitune.ledger import DeploymentRecord, Ledger
from unitune.ledger.holders import Holder, Life, process, this_process
from unitune.security.redaction import one_line
from unitune.workspace.home import home
from unitune.workspace.user_settings import environment

LOOK_SECONDS = 5.0
TRY_AGAIN_SECONDS = 60.0  # longest pause after an error
# How long to continue if the ledger does not answer and nothing is left to take down
GIVE_UP_SECONDS = 86_400.0
WRITES = 3  # attempts of a change while other processes change the record
LOG_BYTES = 65_536
log = logging.getLogger(__name__)


class Reaper(Frozen):
    """Process that takes a deployment down."""

    process: str  # the process, as `Holder.text`
    due: float  # time of the take-down, by `clock`
    parent: str | None = None  # process whose end also ends the deployment, as `Holder.text`

    @property
    def holder(self) -> Holder:
        """The process."""
        return Holder.parse(self.process)

    @property
    def life(self) -> Life:
        """State of the process, as far as visible."""
        return "gone" if self.holder.was_before_this_boot else self.holder.life


def clock() -> float:
    """Return the time of a clock that is never set and continues while the machine sleeps.

    The vendor's billing does so, too. Source: clock_gettime(2) of Linux; clock_gettime(3) of macOS,
    whose CLOCK_MONOTONIC does so; `time.monotonic` of Windows (QueryPerformanceCounter).
    """
    number = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
    return time.monotonic() if number is None else time.clock_gettime(number)


def reaper_of(home: Path, deployment_id: str) -> Reaper | None:
    """Return the reaper of a deployment on this machine, or None."""
    with suppress(OSError, ValueError):
        return Reaper.model_validate_json(_file(home, deployment_id).read_text("utf-8"))
    return None


def seconds_left(home: Path, record: DeploymentRecord, now: float) -> float:
    """Return the seconds until a deployment is due to be taken down."""
    reaper, me = reaper_of(home, record.id), this_process()
    if reaper is None or (reaper.holder.host, reaper.holder.boot) != (me.host, me.boot):
        return record.until - now
    return reaper.due - clock()


def leave_reaper(home: Path, deployment_id: str, seconds: float, parent: str | None) -> None:
    """Start a detached process that takes a deployment down in time or when `parent` ends."""
    due = clock() + seconds
    watched = [] if parent is None else [parent]
    started = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-P", "-m", "unitune.run.reaper", deployment_id, *watched],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        creationflags=DETACHED,
        env={**environment(), "UNITUNE_DIR": str(home)},
    )
    # Its exit status must be read, or it stays in the process table.
    threading.Thread(target=started.wait, daemon=True).start()
    file = _file(home, deployment_id)
    private_folder(file.parent)
    with replacing(file, private=True) as draft:
        made = Reaper(process=process(started.pid).text, due=due, parent=parent)
        draft.write(made.model_dump_json())


def log_file(home: Path, deployment_id: str) -> Path:
    """Return the log file of a deployment's reaper."""
    return _file(home, deployment_id, "log")


def forget(home: Path, deployment_id: str) -> None:
    """Remove the file of a reaper whose deployment is down."""
    _file(home, deployment_id).unlink(missing_ok=True)


def _file(home: Path, deployment_id: str, kind: str = "json") -> Path:
    """Return a file of a reaper; the id is quoted so that it cannot leave the folder."""
    return home / "reapers" / f"{quote(deployment_id, safe='')}.{kind}"


def host_of(backend: str) -> Deploys:
    """Return a backend whose models need deployments, or raise `Unsupported`."""
    host = registry.backend(backend)
    if not isinstance(host, Deploys):
        raise Unsupported(f"models of {backend} do not need a deployment.")
    return host


def remove(record: DeploymentRecord, age_seconds: float) -> None:
    """Take a deployment down without reading the ledger, or raise `BackendError`."""
    host = host_of(record.backend)
    ref = host.find_deployment(record.name)
    if ref is None and record.ref is None:
        if age_seconds < registry.offer(record.backend).settle_seconds:
            raise BackendError(
                f"{record.backend} does not list deployment {record.name} yet; it was requested "
                f"just now and may still start. Try again: unitune deployments down {record.id}"
            )
        return
    if ref is None and host.deployment_status(str(record.ref), record.model).state == "gone":
        return
    if ref is None or record.ref not in (None, ref) or not is_deployment_name(record.name):
        raise BackendError(
            f"{record.backend} lists {ref!r} as the deployment {record.name!r}, but the ledger "
            f"has {record.ref!r}. unitune did not create it and will not delete it. If it is "
            f"yours, take it down at {record.backend}."
        )
    host.undeploy(ref)


def write(ledger: Ledger, record: DeploymentRecord, **changes: Any) -> DeploymentRecord:
    """Record changes of a deployment, unless it has ended, and return the current record."""
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
    ledger: Ledger  # ledger of the deployment
    id: str  # Id of the deployment
    parent: Holder | None  # process whose end also ends the deployment
    record: DeploymentRecord | None = None  # last record read; None before the first
    due: float = float("inf")  # time of the take-down, by `clock`
    down: bool = False  # True if the vendor took it down or does not have it
    forgotten: bool = False  # True if the ledger answers but has no such deployment
    since: float = field(default_factory=clock)

    def read(self) -> None:
        """Read the record; the first one sets the time of the take-down."""
        self._require_ledger()
        try:
            record = self.ledger.deployment(self.id)
        except NotFoundError:
            self._require_ledger()  # it may have vanished since
            self.forgotten = True
            return
        if self.record is None:
            self.due = clock() + seconds_left(self.ledger.folder, record, self.ledger.now())
        self.record, self.forgotten = record, False

    def _require_ledger(self) -> None:
        if not self.ledger.exists:
            raise Unreachable(f"the ledger in {self.ledger.folder} no longer exists.")

    def take_down_if_due(self) -> None:
        """Take the deployment down and record that, once it is due."""
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
        """True if there is nothing left to do or wait for."""
        if self.record is None:
            return self.forgotten or clock() > self.since + GIVE_UP_SECONDS
        if self.down and (self.forgotten or clock() > self.since + GIVE_UP_SECONDS):
            return True
        return self.record.ended is not None and not self.forgotten


def reap(deployment_id: str, parent: Holder | None) -> None:
    """Wait until a deployment is due or its parent process ends, and take it down."""
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
    try:
        step()
    except Exception as error:  # noqa: BLE001 - the deployment costs money until it is down
        log.warning("%s: %s", type(error).__name__, one_line(str(error)))
        return False
    return True


def _keep_log(deployment_id: str) -> None:
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
