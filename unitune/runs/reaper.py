"""The process that takes a deployment down in time: ``python -m unitune.runs.reaper ID [PID]``.

It outlives whoever started it. It ends a deployment at the time that is written down for it, or
as soon as process PID has ended, and goes on trying while the vendor does not do so. When it finds
the deployment down, whoever took it down, it leaves.
"""

from __future__ import annotations

import os
import sys
import time

from unitune.errors import UnituneError
from unitune.home import home
from unitune.ledger import Ledger
from unitune.runs.deploying import Deployment

LOOK_SECONDS = 5.0
TRY_AGAIN_SECONDS = 60.0


def reap(deployment_id: str, while_pid: int | None) -> None:
    """Wait for a deployment's end, and see to it.

    Args:
        deployment_id: Of a deployment in this ledger.
        while_pid: Process whose end is the deployment's too.
    """
    ledger = Ledger(home())
    while (record := ledger.deployment(deployment_id)).ended is None:
        due = time.time() >= record.until or (while_pid is not None and not _lives(while_pid))
        time.sleep(_seconds_until_next_look(Deployment(ledger, record)) if due else LOOK_SECONDS)


def _seconds_until_next_look(overdue: Deployment) -> float:
    try:
        overdue.take_down()
    except UnituneError:
        return TRY_AGAIN_SECONDS  # it still stands: the next look tries again
    return 0.0


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    reap(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)
