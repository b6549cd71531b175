"""One command line run within this process, shut off from the machine: `Sandbox`.

The command runs through the same `main` that the console script calls, with streams of real files,
an environment of its own, and a folder that is all it may write to. What it would wait for passes
at once, and what it would start is not started. No file is written elsewhere, no other machine is
reached: both are refused with the error that an operating system would give, and the first is
written down.

What is not here: whether an outcome is right (`guards`), and what is thrown (`values`).
"""

from __future__ import annotations

import asyncio
import errno
import gc
import io
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, cast
from unittest.mock import patch

from support.command_line import forget_consoles

from unitune import main as cli
from unitune.workspace.user_settings import current

LIMIT_SECONDS = 60.0
"""No example has a reason to take a tenth of it, on a busy machine either; what passes it hangs."""


LIMIT_BYTES = 2 << 30
"""Of memory that a command may take besides what the process has; where Linux tells it."""


class TookTooLong(BaseException):
    """A command that passed `LIMIT_SECONDS`; nothing in between may catch it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended.

    Args:
        code: Its exit code; None: it did not end by itself.
        out: Standard output, as the terminal would decode it.
        err: Standard error, likewise.
        uncaught: What came out of `main` in place of an exit code.
        written_outside: Paths outside the folder that it tried to write to.
        seconds: That it took.
    """

    code: int | None
    out: str
    err: str
    uncaught: BaseException | None = None
    written_outside: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(slots=True)
class Sandbox:
    """A folder in which commands run, and all that they find around them.

    Args:
        folder: Current folder of the commands; its subfolders `home`, `config` and `tmp` are what
            they have besides.
        environment: Variables besides those that any command has here.
        stdin: What is typed.
        terminal: Whether the streams say that they are a terminal.
        encoding: Of the streams.
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    stdin: str = ""
    terminal: bool = False
    encoding: str = "utf-8"
    _random: Random = field(default_factory=lambda: Random(0))  # noqa: S311 - run ids that recur
    _clock: _Clock = field(default_factory=lambda: _Clock())  # noqa: PLW0108 - it stands below

    def run(self, arguments: Sequence[str]) -> Ended:
        """Run one command through `main`."""
        begun = _Clock.real_time()
        with ExitStack() as stack:
            streams = [stack.enter_context(self._stream(name)) for name in ("out", "err", "in")]
            stack.enter_context(self._surroundings(arguments, streams))
            refused = stack.enter_context(_writes_within(self.folder))
            stack.enter_context(_memory_within(LIMIT_BYTES))
            code, uncaught = _exit_code()
            out, err = (stream.written() for stream in streams[:2])
        seconds = _Clock.real_time() - begun
        return Ended(code, out, err, uncaught, self._unasked(arguments, refused), seconds)

    def _unasked(self, arguments: Sequence[str], refused: list[str]) -> tuple[str, ...]:
        """Leave out what the command line itself names: there a user may have anything written."""
        named = [os.path.realpath(self.folder / one.replace("\0", "")) for one in arguments]
        return tuple(
            path
            for path in refused
            if not any(
                Path(os.path.realpath(path)).parent.is_relative_to(Path(one).parent)
                for one in named
                if not Path(one).is_relative_to(self.folder)
            )
        )

    @contextmanager
    def _stream(self, name: str) -> Generator[_Stream]:
        errors = "backslashreplace" if name == "err" else "strict"  # as Python's own have them
        with (
            tempfile.TemporaryFile(buffering=0) as file,
            _Stream(io.BufferedRandom(cast("Any", file)), self.encoding, errors) as stream,
        ):
            if name == "in":
                file.write(self.stdin.encode(self.encoding, "replace"))
                file.seek(0)
            stream.terminal = self.terminal
            yield stream

    @contextmanager
    def _surroundings(self, arguments: Sequence[str], streams: list[Any]) -> Generator[None]:
        home, config, scratch = (self.folder / name for name in ("home", "config", "tmp"))
        scratch.mkdir(exist_ok=True)
        environment = {
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
            "HOME": str(self.folder),
            "UNITUNE_DIR": str(home),
            "XDG_CONFIG_HOME": str(config),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "HF_HUB_OFFLINE": "1",
            "UNITUNE_TODAY": "2026-11-26",  # offers and prices age, these examples do not
            "TMPDIR": str(scratch),
            "COLUMNS": "100",
            "TERM": "dumb",  # no escape sequence is the program's own
            **self.environment,
        }
        _forget()
        before = Path.cwd()
        out, err, typed = streams
        with (
            patch.dict(os.environ, environment, clear=True),
            patch.multiple(sys, stdout=out, stderr=err, stdin=typed),
            patch.multiple(sys, __stdout__=out, __stderr__=err, __stdin__=typed),
            patch.object(sys, "argv", ["unitune", *arguments]),
            patch.object(tempfile, "tempdir", str(scratch)),
            patch.object(secrets, "randbits", self._random.getrandbits),
            self._clock.hurried(),
            _alone(),
        ):
            os.chdir(self.folder)
            try:
                yield
            finally:
                os.chdir(before)
                _forget()


def _forget() -> None:
    """Let neither backends nor consoles know another command's surroundings."""
    current().backends.clear()
    forget_consoles()


def _exit_code() -> tuple[int | None, BaseException | None]:
    def late(*_: object) -> None:
        raise TookTooLong

    handler, threshold = signal.signal(signal.SIGALRM, late), gc.get_threshold()
    signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
    try:
        cli.main()
    except SystemExit as ended:
        code = ended.code
        return (code if isinstance(code, int) else 0 if code is None else 1), None
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
        return None, error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        gc.set_threshold(*threshold)  # `main` collects rarely, and an SDK's sockets would add up
    return 0, None


class _Stream(io.TextIOWrapper):
    """A stream over a real file, which says of itself what it is told to."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal

    def written(self) -> str:
        """Return all that was written, as the terminal decodes it."""
        self.flush()
        self.seek(0)
        return self.buffer.read().decode(self.encoding, "replace")


OTHERS_SECONDS = 0.02
"""A thread that renews a lease sleeps without end; one that asks a vendor again does not."""


PATIENCE_WAITS, IMPATIENCE_WAITS = 100, 20
"""A vendor that never gets done is waited for until somebody presses Ctrl-C: after so many waits of
the main thread, and again after so many more."""


class _Clock:
    """Time in which the main thread's waiting passes at once, until it has waited for long."""

    real_time = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self._ahead = 0.0
        self._waits = 0

    def _wait(self, seconds: float) -> None:
        self._ahead += max(0.0, seconds)
        self._waits += 1
        late = self._waits - PATIENCE_WAITS
        if late >= 0 and late % IMPATIENCE_WAITS == 0:
            signal.raise_signal(signal.SIGINT)

    @contextmanager
    def hurried(self) -> Generator[None]:
        """Let waiting pass at once while the body runs."""
        self._waits = 0
        monotonic, wall, sleep, asleep = time.monotonic, time.time, time.sleep, asyncio.sleep
        main = threading.main_thread()

        def pass_by(seconds: float) -> None:
            if threading.current_thread() is main:
                sleep(min(seconds, 0.0))  # which refuses what `sleep` would refuse
                self._wait(seconds)
            else:
                sleep(min(seconds, OTHERS_SECONDS))

        async def pass_by_async(seconds: float, result: Any = None) -> Any:
            self._wait(seconds)
            return await asleep(0, result)

        with (
            patch.object(time, "sleep", pass_by),
            patch.object(time, "monotonic", lambda: monotonic() + self._ahead),
            patch.object(time, "time", lambda: wall() + self._ahead),
            patch.object(asyncio, "sleep", pass_by_async),
        ):
            yield


@contextmanager
def _alone() -> Generator[None]:
    """Start no process, and reach no other machine."""
    resolve, begin = socket.getaddrinfo, subprocess.Popen

    def resolved(host: Any, *rest: Any, **named: Any) -> Any:
        if host not in (None, "localhost", "127.0.0.1", b"127.0.0.1", b"localhost"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *rest, **named)

    def connected(address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("localhost", "127.0.0.1", ""):
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))

    class Unstarted(begin):  # type: ignore[misc, valid-type]
        """A process of ours that outlives the command is taken for one that has ended."""

        def __new__(cls, args: Any, *rest: Any, **named: Any) -> Any:
            if named.get("start_new_session"):
                return _EndedProcess()
            return begin(args, *rest, **named)

    with ExitStack() as stack:
        stack.enter_context(patch.object(socket, "getaddrinfo", resolved))
        stack.enter_context(patch.object(subprocess, "Popen", Unstarted))
        guard = sys.modules.get("sitecustomize")
        if hasattr(guard, "_check"):
            stack.enter_context(patch.object(guard, "_check", connected))
        yield


@contextmanager
def _memory_within(limit: int) -> Generator[None]:
    """Let no more than so many bytes be taken while the body runs: MemoryError."""
    sizes = Path("/proc/self/statm")
    if not sizes.exists():
        yield
        return
    taken = int(sizes.read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


class _EndedProcess:
    pid = 2**22 + 1  # above the highest that Linux gives
    returncode = 0

    def wait(self, timeout: float | None = None) -> int:
        del timeout
        return 0

    def poll(self) -> int:
        return 0


WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
    "os.truncate": 1,
    "os.chmod": 1,
}
"""Audit events that change the file system, and how many paths stand first in them."""
HARMLESS = ("/dev/", "/proc/")
IN_MEMORY = "/dev/shm/"  # noqa: S108 - no file is made by this name
"""There may be folders in it, as anywhere."""
_within: Path | None = None
_refused: list[str] = []


@contextmanager
def _writes_within(folder: Path) -> Generator[list[str]]:
    """Refuse to write anywhere but in a folder while the body runs; list what was refused."""
    global _within  # noqa: PLW0603 - an audit hook cannot be taken away again
    _refused.clear()
    _within = folder.resolve()
    try:
        yield _refused
    finally:
        _within = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _within is None:
        return
    if event == "open":
        path, _, flags = arguments
        paths = [path] if isinstance(flags, int) and flags & WRITES else []
    else:
        paths = arguments[: CHANGES.get(event, 0)]
        paths = paths[1:] if event in ("os.symlink", "os.link") else paths
    for path in paths:
        if isinstance(path, str | bytes | os.PathLike) and _is_outside(os.fsdecode(path), _within):
            _refused.append(os.fsdecode(path))
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fsdecode(path))


def _is_outside(path: str, folder: Path) -> bool:
    if path.startswith(HARMLESS) and not path.startswith(IN_MEMORY):
        return False
    if "__pycache__" in path or "\0" in path:
        return False
    return not Path(os.path.realpath(path)).is_relative_to(folder)


sys.addaudithook(_audit)
