"""Python processes that are warm: forks of one that has imported what each would import anew.

`warm_run` stands for `subprocess.run` of ``python -m unitune …``, which takes a second or more of
the processor to begin, and `WarmPopen` for `Popen` of a training's worker, which takes five. A fork
is a process like theirs: with a folder, environment, umask, streams, limits and a session of its
own. What is about the beginning itself (which modules are imported, how a script starts, streams
that are closed from the start) begins as users begin it, without this.

The warm process is begun when it is first needed, and ends with the tests. It is asked through a
socket; a keeper beside each fork tells its id, and how it ended. A script takes a fork by
``python warm.py -m unitune …``.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import resource
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

MODULES = (
    "unitune.main",
    "unitune.evaluate.compare",
    "unitune.ledger",
    "unitune.planning.plan",
    "unitune.run.reaper",
    "unitune.run.run",
    "boto3",
    "unitune_local.backend",
    "unitune_local.training.run",
    "transformers.models.llama.modeling_llama",
)
"""What is imported before the forks; the last ones where their packages are here."""
STARTS = ("unitune.run.reaper", "unitune_local.training.worker")
"""Of these, which leave a process behind; in a fork that is warm, too."""
FOLDER = "UNITUNE_TESTS_WARM"
GUARD = Path(__file__).parents[1] / "guard"
"""Whose `sitecustomize` lets no fork reach another machine."""
STREAMS = ((0, "r", -1, "strict"), (1, "w", -1, "strict"), (2, "w", 1, "backslashreplace"))
"""Descriptor, mode, buffering and errors, as Python itself opens them."""
LOOK_SECONDS = 10
SECONDS_TO_BEGIN = 300
Output = IO[Any] | int | None


class WarmPopen:
    """A fork that runs ``python [-P] -m MODULE …`` or ``python FILE.py …``.

    It has the part of `Popen` that callers use.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Output = subprocess.DEVNULL,
        stdout: Output = None,
        stderr: Output = None,
        umask: int = -1,
        start_new_session: bool = False,
        limits: Mapping[int, int] | None = None,
        creationflags: int = 0,  # for Windows; a fork has none
    ) -> None:
        assert creationflags == 0
        at = command.index("-m") + 1 if "-m" in command else 1
        request = {
            "words": command[at:],
            "cwd": str(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
            "umask": umask,
            "session": start_new_session,
            "limits": list((limits or {}).items()),
        }
        content = json.dumps(request).encode()
        with contextlib.ExitStack() as stack:
            streams = [
                _descriptor(stream, otherwise, stack)
                for otherwise, stream in enumerate((stdin, stdout, stderr))
            ]
            self._keeper = _connected(_warm_process())
            socket.send_fds(self._keeper, [len(content).to_bytes(4, "big")], streams)
            self._keeper.sendall(content)
        self._lines = self._keeper.makefile("r")
        self.pid = int(self._lines.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return how it ended; None while it runs."""
        if self.returncode is None:
            self._keeper.settimeout(0.001)
            with contextlib.suppress(TimeoutError):
                if self._keeper.recv(1, socket.MSG_PEEK):
                    return self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return how it ended, once it has."""
        if self.returncode is None:
            self._keeper.settimeout(timeout)
            self.returncode = int(self._lines.readline())
            self._lines.close()
            self._keeper.close()
        return self.returncode


def warm_run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a fork to its end, and return its exit code and what it printed."""
    pipes = [os.pipe() for _ in range(2)]
    try:
        process = WarmPopen(command, stdout=pipes[0][1], stderr=pipes[1][1], **options)
    finally:
        for _, writing in pipes:
            os.close(writing)
    with ThreadPoolExecutor(len(pipes)) as readers:
        out, err = readers.map(_whole, [reading for reading, _ in pipes])
    return subprocess.CompletedProcess(list(command), process.wait(), out, err)


def _whole(descriptor: int) -> str:
    with os.fdopen(descriptor, encoding="utf-8") as stream:
        return stream.read()


WARM_SUBPROCESS = SimpleNamespace(DEVNULL=subprocess.DEVNULL, Popen=WarmPopen)
"""In place of a module's `subprocess`: what it starts is warm."""


def _descriptor(stream: Output, otherwise: int, stack: contextlib.ExitStack) -> int:
    if stream is None:
        return otherwise
    if stream == subprocess.DEVNULL:
        return stack.enter_context(Path(os.devnull).open("r+b", buffering=0)).fileno()
    return stream if isinstance(stream, int) else stream.fileno()


def _connected(address: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    until = time.monotonic() + SECONDS_TO_BEGIN
    while True:
        try:
            connection.connect(address)
        except OSError:
            assert time.monotonic() < until, "the warm process does not begin"
            time.sleep(0.05)
        else:
            return connection


def share() -> Path:
    """Make the folder through which all workers of the tests share the warm process."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    (folder / "tests").write_text(str(os.getpid()))
    os.environ[FOLDER] = str(folder)
    return folder


def end(folder: Path) -> None:
    """End the warm process of a folder, if one was begun, and remove the folder."""
    if (folder / "tests").read_text() != str(os.getpid()):
        return  # a fork of the tests
    if (pid := folder / "pid").exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid.read_text()), signal.SIGTERM)
    shutil.rmtree(folder)


def _warm_process() -> str:
    """Begin the warm process, unless it was, and return the address of its socket."""
    folder = Path(os.environ[FOLDER])
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "pid").exists():
            path = os.pathsep.join([str(GUARD), *filter(None, [os.environ.get("PYTHONPATH")])])
            begun = subprocess.Popen(
                [sys.executable, __file__, "serve", str(folder / "socket")],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # whoever reads the end of a pipe would wait for it
                stderr=subprocess.DEVNULL,
            )
            (folder / "pid").write_text(str(begun.pid))
            begun.returncode = 0  # it is the tests', and not this process's to wait for
    return str(folder / "socket")


def _serve(address: str) -> None:
    """Import, then fork for each request until this process is ended."""
    gc.disable()  # what is imported stays, and no fork goes through it
    for module in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    sys.modules["unitune.main"].command_line()
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        listening.settimeout(LOOK_SECONDS)
        tests = int((Path(address).parent / "tests").read_text())
        while True:
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                os.kill(tests, 0)  # ends this process where they were ended by force
                continue
            with connection:
                if os.fork() == 0:
                    listening.close()
                    os._exit(_keep(connection))
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _keep(connection: socket.socket) -> int:
    """Read a request, fork once more, and tell of that fork's id and end."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    head, streams, _, _ = socket.recv_fds(connection, 4, 3)
    content = b""
    while len(content) < int.from_bytes(head, "big"):
        content += connection.recv(1 << 16)
    child = os.fork()
    if child == 0:
        connection.close()
        code = 1
        try:
            code = _become(json.loads(content), streams)
        finally:
            os._exit(code)
    for stream in streams:
        os.close(stream)
    with contextlib.suppress(OSError):  # who asked may have ended
        connection.sendall(f"{child}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(f"{code}\n".encode())
    return 0


def _start_warm() -> None:
    """Let what this fork leaves behind be warm, too."""
    for name in STARTS if FOLDER in os.environ else ():
        if name in sys.modules:
            sys.modules[name].__dict__["subprocess"] = WARM_SUBPROCESS


def _become(request: Mapping[str, Any], streams: Sequence[int]) -> int:
    """Be the process that was requested, and return its exit code."""
    if request["session"]:
        os.setsid()
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    os.chdir(request["cwd"])
    if request["umask"] >= 0:
        os.umask(request["umask"])
    for kind, most in request["limits"]:
        resource.setrlimit(kind, (most, most))
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.stdin, sys.stdout, sys.stderr = (
        open(at, mode, buffering, errors=errors, closefd=False)  # noqa: SIM115 - descriptors
        for at, mode, buffering, errors in STREAMS
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    sys.dont_write_bytecode = True
    _start_warm()
    sys.argv = request["words"]
    warnings.filterwarnings("ignore", "'unitune", RuntimeWarning)  # it is imported already
    try:
        if sys.argv[0].endswith(".py"):
            sys.path[0] = str(Path(sys.argv[0]).parent)
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            sys.path[0] = str(GUARD.parent)  # for modules of `support`
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - as Python ends
        sys.excepthook(*sys.exc_info())
        code = 1
    for run_at_exit in (atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):
        with contextlib.suppress(OSError, ValueError):
            run_at_exit()
    return code & 0xFF


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(sys.argv[2])
    else:
        sys.exit(WarmPopen(sys.argv[1:], stdin=0, stdout=1, stderr=2).wait() & 0xFF)
