"""Lock files among the processes of one machine.

The kernel releases a lock when its holder dies. Several machines need leases instead
(`unitune.ledger.leases`).
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from unitune.errors import LockTimeout
from unitune.files.filesystem import no_link


@contextmanager
def locked(path: Path, what: str, wait_seconds: float = 30.0) -> Generator[None]:
    """Hold the lock of a file, which is created if needed, while the body runs.

    Args:
        path: The lock file.
        what: Name of the locked thing, for the message.
        wait_seconds: Maximum wait for another holder.

    Raises:
        LockTimeout: Another process kept the lock.
        UserError: The file is a symbolic link.
    """
    until = time.monotonic() + wait_seconds
    with open(path, "a", encoding="utf-8", opener=no_link) as file:
        while not _taken(file):
            if time.monotonic() >= until:
                raise LockTimeout(
                    f"{what} is still held by another process after {wait_seconds:g} seconds. Wait "
                    "until it is done, or end it, and try again."
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
