"""Forks of the test's process: other processes for the cost of milliseconds.

What a fork returns or raises comes back as text. A fork never goes on as its parent does: it ends
without cleaning up, like a process that was killed.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unitune.errors import UnituneError
from unitune.ledger import leases


class Fork:
    """A process that does something once.

    Args:
        act: What it does; what it returns is `result`.
    """

    def __init__(self, act: Callable[[], object]) -> None:
        self._noticed = False
        self._reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks that have threads
            self.pid = os.fork()
        if self.pid == 0:
            os.write(writing, _said(act).encode())
            os._exit(0)
        os.close(writing)

    def wait_until_stopped(self) -> None:
        """Wait until it has stopped itself with SIGSTOP."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), self._read()

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill it; until `result` is asked for, it waits to be noticed."""
        os.kill(self.pid, signal.SIGKILL)

    def result(self) -> str:
        """Return what it returned, or the name and message of our error that it raised."""
        text = self._read()
        os.waitpid(self.pid, 0)
        self._noticed = True
        assert "Traceback" not in text, text
        return text

    def end(self) -> None:
        """Leave nothing of it."""
        if not self._noticed:
            self.kill()
            self.result()

    def _read(self) -> str:
        with os.fdopen(self._reading) as said:
            return said.read()


class Gate:
    """What forks wait at, so that they go on together."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        self._here, self._at_it = os.pipe()

    def wait(self) -> None:
        """In a fork: wait until the gate is opened."""
        os.close(self._writing)
        os.write(self._at_it, b".")
        os.read(self._reading, 1)

    def open(self, forks: int) -> None:
        """Open it once so many forks stand at it."""
        os.close(self._at_it)
        for _ in range(forks):
            assert os.read(self._here, 1), "a fork died on its way to the gate"
        for descriptor in (self._here, self._writing, self._reading):
            os.close(descriptor)


@contextmanager
def stopped(act: Callable[[], object]) -> Iterator[Fork]:
    """Give a fork that has stopped itself; it does not outlive the test."""
    fork = Fork(act)
    try:
        fork.wait_until_stopped()
        yield fork
    finally:
        fork.end()


def stop_here() -> None:
    """Stop the process that calls, as Ctrl-Z or a laptop's lid do.

    Not while it renews a lease: it would hold the database as well.
    """
    with leases._kept.at_work:
        os.kill(os.getpid(), signal.SIGSTOP)


def eventually(holds: Callable[[], bool]) -> bool:
    """Look again and again, for up to ten seconds, whether something holds."""
    for _ in range(1000):
        if holds():
            return True
        time.sleep(0.01)
    return False


def _said(act: Callable[[], object]) -> str:
    try:
        return str(act())
    except UnituneError as error:
        return f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001 - a fork must never go on as its parent
        return traceback.format_exc()
