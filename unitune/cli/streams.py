r"""Handle failures of the operating system: closed pipes, full disks, ASCII encodings, files.

A closed standard output (``| head -1``) ends the command with exit code 141, as SIGPIPE would. A
failure of standard error is ignored, and the work continues. Characters that an encoding lacks are
written as escapes such as ``\u2026``.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

from unitune.errors import BackendError, UnituneError, UserError

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


FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
ELSEWHERE = "UNITUNE_DIR sets the folder of unitune's own files"
_NOT_WRITABLE = f"Choose a place that you may write to; {ELSEWHERE}."
_NO_FOLDER = f"A folder is needed there: move the file or choose another path. {ELSEWHERE}."
REMEDIES = {
    errno.EACCES: _NOT_WRITABLE,
    errno.EPERM: _NOT_WRITABLE,
    errno.EROFS: _NOT_WRITABLE,
    errno.ENOENT: "Check the name, and create its folder first.",
    errno.EEXIST: _NO_FOLDER,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EISDIR: "Pass a file, not a folder.",
}


def explained(error: OSError | UnituneError, arguments: Sequence[str]) -> UnituneError:
    """Return an error of the operating system as one with its path and a next step.

    The exit code is 2 if the user gave the path, else 4. A full disk is always 4.
    """
    if isinstance(error, UnituneError):
        return error
    name = cast("object", error.filename2 or error.filename)  # the second is the target of a copy
    path = os.fsdecode(name) if isinstance(name, str | bytes) else ""
    why = error.strerror or str(error) or type(error).__name__
    given = [os.environ.get("UNITUNE_DIR", ""), *arguments]  # files in a given folder count, too
    if error.errno in FULL:
        return BackendError(
            f"{path or 'a file'} cannot be written: {why}. Free some space, then run the same "
            f"command again; nothing written so far is lost. {ELSEWHERE}, if another disk has more "
            "space."
        )
    if _current_folder_is_gone():
        return UserError("the current folder no longer exists. Change to another folder.")
    if not path and error.errno == errno.ENOENT:  # `tempfile` gives no path
        return BackendError(f"{why}. Free some space there, or set TMPDIR to a folder with space.")
    is_given = path and any(
        Path(path).absolute().is_relative_to(Path(argument).absolute())
        for argument in filter(None, given)
    )
    kind = UserError if is_given else BackendError
    return kind(f"{path or 'a file'}: {why}. {REMEDIES.get(error.errno or 0, '')}".strip())


def first(error: Exception) -> OSError | UnituneError | None:
    """Return the error, or the first of an exception group; None if it is a bug."""
    if isinstance(error, ExceptionGroup):
        inner = cast("ExceptionGroup[Exception]", error).exceptions
        return next(filter(None, map(first, inner)), None)
    return error if isinstance(error, OSError | UnituneError) else None


def _current_folder_is_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False
