"""What Windows lacks or does differently, as far as it can be had on Linux.

On `PYTHONPATH` of subprocesses, with the guard of `tests/guard`. The standard library's own POSIX
parts are imported first; what is imported later meets a system without them. Not shown here: paths
with drives and backslashes, and ANSI code pages.

Source: "Availability" in https://docs.python.org/3/library/os.html and of signal, select and time
(2026-12-01).
"""

from __future__ import annotations

import asyncio.unix_events
import concurrent.futures.thread
import errno
import fcntl
import getpass
import http.server
import logging.handlers
import multiprocessing.connection
import os
import pathlib
import platform
import runpy
import select
import selectors
import shutil
import signal
import socketserver
import ssl
import stat
import subprocess
import sys
import tempfile
import time
import types
import uuid
from importlib.abc import MetaPathFinder
from typing import Any

import platformdirs.unix  # these builds for Linux use what Windows lacks
import psutil

GUARD = pathlib.Path(__file__).parents[1] / "guard" / "sitecustomize.py"
runpy.run_path(str(GUARD))  # no connection but to this machine
USED = (asyncio, concurrent, getpass, http, logging, multiprocessing, pathlib, platform, selectors)
USED_TOO = (platformdirs, psutil, socketserver, ssl, tempfile, uuid)
ABSENT = {"fcntl", "grp", "posix_ipc", "pty", "pwd", "readline", "resource", "syslog", "termios"}
NAMES: dict[Any, tuple[str, ...]] = {
    os: (
        *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC"),
        *("chown", "fchmod", "fchown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getuid"),
        *("getloadavg", "getpgid", "getpgrp", "killpg", "mkfifo", "nice", "pread", "pwrite"),
        *("register_at_fork", "sched_getaffinity", "setpgid", "setsid", "statvfs", "sysconf"),
        *("sync", "wait", "wait4"),
    ),
    signal: (
        *("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGPROF", "SIGQUIT"),
        *("SIGSTOP", "SIGTSTP", "SIGUSR1", "SIGUSR2", "SIGVTALRM", "ITIMER_PROF", "ITIMER_REAL"),
        *("alarm", "getitimer", "pause", "pthread_kill", "pthread_sigmask", "setitimer", "sigwait"),
    ),
    time: ("clock_gettime", "CLOCK_BOOTTIME", "CLOCK_MONOTONIC", "tzset"),
}
WINSOCK_NOT_A_SOCKET = 10038
KILL = 9


class Refuse(MetaPathFinder):
    """Finder without the modules that Windows lacks."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Raise for an absent module."""
        del path, target
        if fullname in ABSENT:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def lock_byte(descriptor: int, mode: int, count: int) -> None:
    """Play `msvcrt.locking`: a lock of the handle, EACCES if another one has it."""
    assert (mode, count) == (2, 1)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PermissionError(errno.EACCES, "Permission denied") from error


def in_use(path: Any) -> bool:
    """Return whether this process has a file open: Windows neither deletes nor replaces it."""
    if isinstance(path, int) or not os.path.lexists(path):
        return False
    real = os.path.realpath(os.fspath(path))
    for link in pathlib.Path("/proc/self/fd").iterdir():
        try:
            if str(link.readlink()) == real:
                return True
        except OSError:
            continue
    return False


def wrap(module: Any, name: str, check: Any) -> None:
    """Call a check before a function of the system."""
    original = getattr(module, name)

    def checked(*arguments: Any, **named: Any) -> Any:
        check(*arguments, **named)
        return original(*arguments, **named)

    setattr(module, name, checked)


def refuse_folder(path: Any, *_: Any, **__: Any) -> None:
    """Windows opens no folder."""
    if pathlib.Path(path).is_dir():
        raise PermissionError(errno.EACCES, "Permission denied", path)


def refuse_readonly(descriptor: int) -> None:
    """Windows flushes only what is open for writing."""
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "Bad file descriptor")


def refuse_in_use(*paths: Any, **_: Any) -> None:
    """Windows keeps files that are open; `tempfile` has another way to delete its own there."""
    if sys._getframe(2).f_globals["__name__"] == "tempfile":
        return
    for path in paths:
        if in_use(path):
            raise PermissionError(errno.EACCES, "in use by another process", str(path))


def refuse_existing(source: Any, target: Any, **_: Any) -> None:
    """`os.rename` replaces nothing on Windows."""
    refuse_in_use(source)
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "File exists", str(target))


def refuse_pipes(*lists: Any) -> None:
    """`select` takes sockets only."""
    for one in (each for some in lists[:3] for each in some):
        descriptor = one if isinstance(one, int) else one.fileno()
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise OSError(WINSOCK_NOT_A_SOCKET, "not a socket")


def refuse_probe(_: int, number: int) -> None:
    """Signal 0 is Ctrl-C on Windows, and ends the other process."""
    assert number != 0, "os.kill(pid, 0) would press Ctrl-C"


os.O_ACCMODE = 3  # type: ignore[attr-defined]
signal_kill = subprocess.Popen.send_signal
subprocess.Popen.kill = lambda self: signal_kill(self, KILL)  # type: ignore[method-assign]
shutil._use_fd_functions = False  # type: ignore[attr-defined]
wrap(os, "fsync", refuse_readonly)
wrap(os, "kill", refuse_probe)
wrap(os, "open", refuse_folder)
wrap(os, "rename", refuse_existing)
for function in ("replace", "remove", "unlink"):
    wrap(os, function, refuse_in_use)
wrap(select, "select", refuse_pipes)
for module, names in NAMES.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
for name in ABSENT:
    sys.modules.pop(name, None)
sys.modules["msvcrt"] = types.ModuleType("msvcrt")
sys.modules["msvcrt"].locking = lock_byte  # type: ignore[attr-defined]
sys.modules["msvcrt"].LK_NBLCK = 2  # type: ignore[attr-defined]
sys.meta_path.insert(0, Refuse())
