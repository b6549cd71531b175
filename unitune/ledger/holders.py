"""Which process is which, so that one can be told from another after it has died.

A process is known by its machine (name and boot), its pid namespace, its pid, and when it started:
pids are used again, and containers on one machine count their own. Only a process of the same
machine and namespace can be known to be gone; of any other nothing is known.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

PROC = Path("/proc")
"""Where Linux shows processes; other systems are asked through `ps` and `sysctl`."""
ENDED = "ended"
"""When a process started that is dead and only waits for its parent to notice."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process.

    Args:
        host: Name of its machine.
        boot: The machine's own name for the time since it was started.
        space: Pid namespace.
        pid: Process id, within the namespace.
        started: When it started, in the system's own terms.
    """

    host: str
    boot: str
    space: str
    pid: int
    started: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def text(self) -> str:
        """It as one line, for the ledger."""
        return json.dumps(astuple(self))

    @classmethod
    def parse(cls, text: str) -> Holder:
        """Return the process that a line of the ledger names."""
        host, boot, space, pid, started = json.loads(text)
        return cls(host, boot, space, pid, started)

    @property
    def is_gone(self) -> bool:
        """Whether it is known to be dead."""
        me = this_process()
        if (self.host, self.boot, self.space) != (me.host, me.boot, me.space):
            return False
        if not _exists(self.pid):
            return True
        started = _started(self.pid)
        return started not in ("", self.started)


def this_process() -> Holder:
    """Return the process that asks."""
    return _holder(os.getpid())


@cache
def _holder(pid: int) -> Holder:
    """Return a process of this machine; cached by pid, because a fork makes another process."""
    return Holder(socket.gethostname(), _boot(), _space(), pid, _started(pid))


def _boot() -> str:
    file = PROC / "sys/kernel/random/boot_id"
    return (
        file.read_text().strip() if file.exists() else _said("sysctl", "-n", "kern.bootsessionuuid")
    )


def _space() -> str:
    link = PROC / "self/ns/pid"
    return str(link.readlink()) if link.is_symlink() else ""


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


def _started(pid: int) -> str:
    """Return when a process started; empty when that cannot be seen.

    Source: proc_pid_stat(5): after the command in parentheses, the state is the first field and
    the start time the twentieth.
    """
    if not (PROC / "self").exists():
        return _said("ps", "-o", "lstart=", "-p", str(pid))
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return ENDED if fields[0] in "ZX" else fields[19]


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed commands of the system
    return done.stdout.strip()
