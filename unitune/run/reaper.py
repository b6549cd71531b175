"""The process that takes a deployment down in time: ``python -m unitune.run.reaper ID [PROCESS]``.

It outlives the process that started it. It ends a deployment when its time is over, by a clock that
is never set, or as soon as PROCESS (`Holder.text`) has ended. Whatever the ledger or the vendor
does, it looks again: once it has read of a deployment, it takes it down in time, also when the
ledger cannot be reached by then. It leaves when the ledger says that the deployment is down, or
when the vendor says so and the ledger no longer has it. What goes wrong stands in its log.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler

from unitune.backends.retry import delays
from unitune.errors import NotFoundError, Unreachable
from unitune.ledger import DeploymentRecord, Ledger
from unitune.ledger.holders import Holder
from unitune.run.deployment import remove, write_end
from unitune.run.reaping import clock, forget, log_file, seconds_left
from unitune.security.printable import one_line
from unitune.workspace.home import home

LOOK_SECONDS = 5.0
TRY_AGAIN_SECONDS = 60.0
"""The longest pause after something went wrong."""
GIVE_UP_SECONDS = 86_400.0
"""How long to go on where the ledger does not answer and nothing is left to take down."""
LOG_BYTES = 65_536
log = logging.getLogger(__name__)


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
            left = seconds_left(self.ledger.folder, record, self.ledger.now())
            self.due = clock() + left
        self.record, self.forgotten = record, False

    @property
    def is_due(self) -> bool:
        """Whether it is to be taken down now."""
        return clock() >= self.due or (self.parent is not None and self.parent.life == "gone")

    def take_down_if_due(self) -> None:
        """Take the deployment down, and write that down, once its time is over."""
        if self.record is None or self.is_done or not self.is_due:
            return
        if not self.down:
            remove(self.record, clock() - self.since)
            self.down, self.since = True, clock()
            log.info("%s was taken down", self.id)
        if not self.forgotten:
            self.record = write_end(self.ledger, self.record)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do or to wait for."""
        if self.record is None:
            return self.forgotten or clock() > self.since + GIVE_UP_SECONDS
        if self.down and (self.forgotten or clock() > self.since + GIVE_UP_SECONDS):
            return True
        return self.record.ended is not None and not self.forgotten


def reap(deployment_id: str, parent: Holder | None) -> None:
    """Wait for a deployment's end, and see to it.

    Args:
        deployment_id: Of a deployment in this ledger.
        parent: Process whose end is the deployment's too.
    """
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
