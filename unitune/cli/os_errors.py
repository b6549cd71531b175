"""What the machine refused (a full disk, a folder that may not be written), in words.

`explained` turns an OSError that reached the command line into an error with the path and what to
do: exit code 2 where the path is one that the user gave, else 4. A full disk is always 4.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from unitune.errors import BackendError, UnituneError, UserError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
ELSEWHERE = "UNITUNE_DIR names the folder of unitune's own files"
REMEDIES = {
    errno.EACCES: f"Name a place that you may write to; {ELSEWHERE}.",
    errno.EPERM: f"Name a place that you may write to; {ELSEWHERE}.",
    errno.EROFS: f"Name a place that you may write to; {ELSEWHERE}.",
    errno.ENOENT: "Check the name, and make its folder first.",
    errno.EEXIST: f"A folder is needed there; move the file away, or name another. {ELSEWHERE}.",
    errno.ENOTDIR: f"A folder is needed there; move the file away, or name another. {ELSEWHERE}.",
    errno.EISDIR: "Name a file, not a folder.",
}
ROOM = 1 << 20
"""A disk with less free bytes than this is taken for the one that is full."""


def explained(error: OSError | UnituneError, arguments: Sequence[str]) -> UnituneError:
    """Return an error of the machine as one that says where and what to do.

    Args:
        error: As Python raised it; one of ours says so already.
        arguments: Of the command line.
    """
    if isinstance(error, UnituneError):
        return error
    place = error.filename2 or error.filename  # of a copy, the target is the second
    why = error.strerror or str(error) or type(error).__name__
    if error.errno in FULL:
        return BackendError(
            f"{_where(place) or _full_place(arguments)} cannot be written: {why}. Free "
            "some space, then run the same command again; what was written is kept. "
            f"{ELSEWHERE}, if another disk has more room."
        )
    if _folder_is_gone():
        return UserError("the current folder is not there any more. Change to another one.")
    if not place and error.errno == errno.ENOENT:  # of `tempfile`: no name, and its own sentence
        return BackendError(f"{why}. Free some space there, or let TMPDIR name a folder with room.")
    text = f"{_where(place) or 'a file'}: {why}. {REMEDIES.get(error.errno or 0, '')}"
    kind = UserError if _is_given(place, arguments) else BackendError
    return kind(text.strip())


def first(error: Exception) -> OSError | UnituneError | None:
    """Return what ended a group of tasks that ran at once, or the error itself; None: a bug."""
    if isinstance(error, ExceptionGroup):
        inner = cast("ExceptionGroup[Exception]", error).exceptions
        return next(filter(None, map(first, inner)), None)
    return error if isinstance(error, OSError | UnituneError) else None


def _where(name: object) -> str:
    return os.fsdecode(name) if isinstance(name, str | bytes) else ""


def _folder_is_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _full_place(arguments: Iterable[str]) -> str:
    """Return the folder that has no room; a failed write does not say where it was."""
    for folder in _places(arguments):
        with suppress(OSError):
            if shutil.disk_usage(folder).free < ROOM:
                return str(folder)
    return "a file"


def _places(arguments: Iterable[str]) -> Iterator[Path]:
    given = [os.environ.get("UNITUNE_DIR", ""), ".", *arguments]
    with suppress(OSError):  # where there is no room at all, it says that there is no such folder
        given.append(tempfile.gettempdir())
    for text in filter(None, given):
        path = Path(text).absolute()
        yield next((folder for folder in (path, *path.parents) if folder.is_dir()), path)


def _is_given(name: object, arguments: Iterable[str]) -> bool:
    """Whether a path is one that the user gave, or stands in such a one."""
    where = _where(name)
    if not where:
        return False
    path = Path(where).absolute()
    given = [os.environ.get("UNITUNE_DIR", ""), *arguments]
    return any(path.is_relative_to(Path(text).absolute()) for text in given if text)
