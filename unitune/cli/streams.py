r"""Standard output and standard error, whatever they lead to: a closed pipe, a full disk, ASCII.

Who closes the pipe behind a command (``| head -1``) has seen enough of its result: it ends as
SIGPIPE would end it, with 141 in a shell, which is no verdict. A failure of standard error is
ignored and the work goes on: progress that no one reads is no reason to stop. Characters that an
encoding lacks become escapes such as ``\u2026``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

# 128 and the number of SIGPIPE, as shells have it. The signal itself would end a command in the
# middle of its files, and whenever a vendor hangs up.
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
    """Replace both streams by ones that cope with whatever stands behind them.

    Raises:
        SystemExit: `CLOSED_PIPE`, when standard output was written to and no one reads it.
        OSError: Standard output cannot be written; names it.
    """
    with ExitStack() as stack:
        # None: it was closed at the start.
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
    """End the command whose standard output cannot be written.

    Raises:
        SystemExit: No one reads it any more.
        OSError: The same error, with a name for the place.
    """
    if sys.__stdout__ is not None:
        _discard(sys.__stdout__)
    if isinstance(error, BrokenPipeError):
        raise SystemExit(CLOSED_PIPE) from error
    error.filename = "standard output"
    raise error


def _discard(stream: TextIO) -> None:
    """Send what a stream still holds, and all that follows, to the null device."""
    with suppress(OSError, ValueError):  # a stream of a test has no file
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
