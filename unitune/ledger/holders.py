"""The identity of a process, which holds after it has died.

A process is known by its machine (name and boot), its pid namespace, its pid, and when it started:
pids are used again, and containers on one machine count their own. Only of a process of the same
machine and namespace it can be seen whether it lives; of any other nothing is known.
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

PROC = Path("/proc")  # where Linux shows processes; elsewhere `ps` and `sysctl` do
# Letters of a process's state: dead, and perhaps waiting for its parent to notice; stopped, by a
# signal or a debugger. Source: proc_pid_stat(5); ps(1) of macOS has Z and T, too.
DEAD, STOPPED = ("Z", "X"), ("T", "t")
Pid = Annotated[int, Field(ge=0, lt=1 << 31)]
Life = Literal["running", "stopped", "gone", "unknown"]


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
        """Return the process that a line of the ledger names; an unknown one where it names none.

        Of an unknown one nothing can be seen, so that its lease ends by the time.
        """
        try:
            return cls(*_LINE.validate_json(text))
        except ValidationError:
            return cls("a machine that is not known", "", "", 0, "")

    @property
    def life(self) -> Life:
        """Whether it lives, as far as this process can see."""
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
        """Whether this machine, by its name, has been started again since."""
        me = this_process()
        return self.host == me.host and self.boot != me.boot


_LINE = TypeAdapter(tuple[str, str, str, Pid, str])


def this_process() -> Holder:
    """Return the process that calls."""
    return _holder(os.getpid())


def process(pid: int) -> Holder:
    """Return the process of this machine that has a pid now."""
    seen = _seen(pid)
    return Holder(
        socket.gethostname(), _boot(), _space(), pid, "" if seen is None else seen.started
    )


_holder = cache(process)  # by pid, because a fork of this process is another one


def _boot() -> str:
    file = PROC / "sys/kernel/random/boot_id"
    if file.exists():
        return file.read_text().strip()
    return _output("sysctl", "-n", "kern.bootsessionuuid")


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


class _Seen(NamedTuple):
    """A process as the system shows it: its state, a letter, and when it started."""

    state: str
    started: str


def _seen(pid: int) -> _Seen | None:
    """Read a process; None when it cannot be seen.

    Source: proc_pid_stat(5): after the command in parentheses, the state is the first field and
    the start time the twentieth.
    """
    if not (PROC / "self").exists():
        state, _, started = _output("ps", "-o", "state=,lstart=", "-p", str(pid)).partition(" ")
        return _Seen(state[:1], started.strip()) if started else None
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return _Seen(fields[0], fields[19])


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed commands of the system
    return done.stdout.strip()
