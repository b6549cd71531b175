"""Who acts, when several processes on this machine meet at one file: a lock.

The kernel frees the lock when its holder dies, however it dies, so nothing is ever left locked and
no lock has to be broken by hand. What several machines share needs a lease instead: see
`unitune.ledger.leases`.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from unitune.errors import LockTimeout
from unitune.workspace.filesystem import no_link


@contextmanager
def locked(path: Path, what: str, wait_seconds: float = 30.0) -> Generator[None]:
    """Hold the lock of a file while the body runs.

    Args:
        path: The lock file; made when absent, never removed.
        what: What is locked, for the message.
        wait_seconds: How long to wait for another holder.

    Raises:
        LockTimeout: Another process kept the lock all that time.
        UserError: The file is a symbolic link.
    """
    until = time.monotonic() + wait_seconds
    with open(path, "a", encoding="utf-8", opener=no_link) as file:
        while not _taken(file):
            if time.monotonic() >= until:
                raise LockTimeout(
                    f"{what} is held by another process, still after {wait_seconds:g} "
                    "seconds. Wait until it is done, or end it, and try again."
                )
            time.sleep(0.02)
        yield


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a file."""
    if not path.exists():
        return False
    with open(path, "a", encoding="utf-8", opener=no_link) as file:
        return not _taken(file)


def _taken(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
