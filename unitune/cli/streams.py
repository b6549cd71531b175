r"""Guard standard output and standard error against closed pipes, full disks and ASCII encodings.

A closed standard output (``| head -1``) ends the command with exit code 141, as SIGPIPE would. A
failure of standard error is ignored, and the work continues. Characters that an encoding lacks are
written as escapes such as ``\u2026``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

# 128 plus the number of SIGPIPE, as in shells. The signal itself would end a command while it
# writes files, and whenever a vendor closes a connection.
CLOSED_PIPE = 141


class _GuardedStream:
    def __init__(self, stream: TextIO, failed: Callable[[OSError], None]) -> None:
        self._stream, self._failed = stream, failed

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._failed(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def guarded_streams() -> Generator[None]:
    """Replace both streams by guarded ones.

    Raises:
        SystemExit: Standard output was closed by its reader; the code is `CLOSED_PIPE`.
        OSError: Standard output cannot be written.
    """
    with ExitStack() as stack:
        # A stream is None if it was closed at the start.
        out, err = (
            stream or stack.enter_context(Path(os.devnull).open("w"))
            for stream in (sys.stdout, sys.stderr)
        )
        for stream in (out, err):
            if isinstance(stream, TextIOWrapper):
                cast("TextIOWrapper[Any]", stream).reconfigure(errors="backslashreplace")
        with (
            redirect_stdout(cast("TextIO", _GuardedStream(out, output_failed))),
            redirect_stderr(cast("TextIO", _GuardedStream(err, lambda _: _discard(err)))),
        ):
            yield


def output_failed(error: OSError) -> NoReturn:
    """End a command whose standard output cannot be written.

    Raises:
        SystemExit: Its reader closed it.
        OSError: The same error, with "standard output" as its file name.
    """
    if sys.__stdout__ is not None:
        _discard(sys.__stdout__)
    if isinstance(error, BrokenPipeError):
        raise SystemExit(CLOSED_PIPE) from error
    error.filename = "standard output"
    raise error


def _discard(stream: TextIO) -> None:
    """Redirect a stream, with its buffered data, to the null device."""
    with suppress(OSError, ValueError):  # a stream in a test has no file
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
