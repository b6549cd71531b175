"""Identify processes, and check whether one is alive.

Pids are reused, and each container has its own. So a process is identified by machine, boot, pid
namespace, pid and start time. Processes of other machines or namespaces cannot be checked.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from unitune.files.system import POSIX

PROC = Path("/proc")  # on Linux; `ps` and `sysctl` are used on macOS, PowerShell on Windows
# States of a process: dead or a zombie; stopped. Source: proc_pid_stat(5); ps(1) of macOS has Z and
# T, too.
DEAD, STOPPED = ("Z", "X"), ("T", "t")
Pid = Annotated[int, Field(ge=0, lt=1 << 31)]
Life = Literal["running", "stopped", "gone", "unknown"]


@dataclass(frozen=True, slots=True)
class Holder:
    """A process."""

    host: str  # name of its machine
    boot: str  # id of the machine's boot
    space: str  # pid namespace
    pid: int  # in the namespace
    started: str  # in the system's own format

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def text(self) -> str:
        """Line for the ledger."""
        return json.dumps(astuple(self))

    @classmethod
    def parse(cls, text: str) -> Holder:
        """Return the process that a line of the ledger names; an unknown one for an invalid line.

        The lease of an unknown process ends by time.
        """
        try:
            return cls(*_LINE.validate_json(text))
        except ValidationError:
            return cls("an unknown machine", "", "", 0, "")

    @property
    def life(self) -> Life:
        """State of the process, as far as this process can see it."""
        me = this_process()
        if (self.host, self.boot, self.space) != (me.host, me.boot, me.space):
            return "unknown"
        if not _exists(self.pid):
            return "gone"
        seen = _seen(self.pid)
        if seen is None or not self.started:
            return "unknown"
        if seen.state in DEAD or seen.started != self.started:
            return "gone"
        return "stopped" if seen.state in STOPPED else "running"

    @property
    def was_before_this_boot(self) -> bool:
        """True if this machine has been rebooted since."""
        me = this_process()
        return self.host == me.host and self.boot != me.boot


_LINE = TypeAdapter(tuple[str, str, str, Pid, str])


def this_process() -> Holder:
    """Return the calling process."""
    return _holder(os.getpid())


def process(pid: int) -> Holder:
    """Return the process of this machine that has a pid now."""
    seen = _seen(pid)
    return Holder(
        socket.gethostname(), _boot(), _space(), pid, "" if seen is None else seen.started
    )


_holder = cache(process)  # by pid, because a fork is another process


def _boot() -> str:
    file = PROC / "sys/kernel/random/boot_id"
    if file.exists():
        return file.read_text().strip()
    # Without it, a process is still identified by its start time.
    return _output("sysctl", "-n", "kern.bootsessionuuid") if POSIX else ""


def _space() -> str:
    link = PROC / "self/ns/pid"
    return str(link.readlink()) if link.is_symlink() else ""


def _exists(pid: int) -> bool:
    if not POSIX:  # where signal 0 is Ctrl-C
        return _seen(pid) is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


class _Seen(NamedTuple):
    """State (a letter) and start time of a process."""

    state: str
    started: str


def _seen(pid: int) -> _Seen | None:
    """Return a process; None if it cannot be seen.

    Source: proc_pid_stat(5): after the command in parentheses, field 1 is the state, field 20 the
    start time. On Windows, the start time of another user's process is unknown.
    """
    if not POSIX:
        started = f'"R $((Get-Process -Id {pid} -ErrorAction Stop).StartTime.ToFileTimeUtc())"'
        shown = _output("powershell", "-NoProfile", "-NonInteractive", "-Command", started)
        return _Seen("R", shown.removeprefix("R").strip()) if shown else None
    if not (PROC / "self").exists():
        state, _, started = _output("ps", "-o", "state=,lstart=", "-p", str(pid)).partition(" ")
        return _Seen(state[:1], started.strip()) if started else None
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return _Seen(fields[0], fields[19])


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed system commands
    return done.stdout.strip()
