"""Differences between POSIX and Windows: locks, owners, open flags, processes.

They are decided by what Python offers. Windows has no owner or mode that Python could check, so
there the access rules of the user's own folders protect unitune's files.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import threading
from collections.abc import Callable
from typing import Any

try:
    import fcntl
except ModuleNotFoundError:
    fcntl = None

POSIX = fcntl is not None
# Flags of `os.open` to refuse symbolic links, and not to wait for the other end of a pipe
NO_LINK: int = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
# Flags of `subprocess.Popen` that keep Ctrl-C and the end of the terminal from a process on
# Windows, as `start_new_session` does elsewhere
DETACHED: int = sum(
    getattr(subprocess, name, 0) for name in ("CREATE_NEW_PROCESS_GROUP", "DETACHED_PROCESS")
)
LOCKED_BYTE = 1 << 30  # beyond the content, because Windows refuses to read a locked byte
_POSITION = threading.Lock()  # of a file without `os.pread`


def try_lock(descriptor: int) -> bool:
    """Lock an open file, and return False if another one has it; the system frees it at the end.

    Source: filelock 3.32.7, _windows.py (`msvcrt.locking` of one byte; EACCES if it is locked).
    """
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            windows: Any = importlib.import_module("msvcrt")
            os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
            windows.locking(descriptor, windows.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        return False
    return True


def after_fork(act: Callable[[], object]) -> None:
    """Call a function in each fork of this process; Windows has no forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=act)


def is_own(status: os.stat_result) -> bool:
    """Return whether the user owns a file; True on Windows."""
    return not POSIX or status.st_uid == os.geteuid()


def read_at(descriptor: int, count: int, start: int) -> bytes:
    """Return bytes of an open file from a position, which writes at its end do not notice."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, start)
    with _POSITION:
        os.lseek(descriptor, start, os.SEEK_SET)
        content = os.read(descriptor, count)
        os.lseek(descriptor, 0, os.SEEK_END)
        return content
