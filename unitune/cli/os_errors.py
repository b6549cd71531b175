"""Errors of the operating system (a full disk, a folder that may not be written) as ours.

`explained` turns an OSError that reached the command line into an error with the path and what to
do: exit code 2 where the path is one that the user gave, else 4. A full disk is always 4.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from unitune.errors import BackendError, UnituneError, UserError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
ELSEWHERE = "UNITUNE_DIR names the folder of unitune's own files"
_NOT_WRITABLE = f"Name a place that you may write to; {ELSEWHERE}."
_NO_FOLDER = f"A folder is needed there; move the file away, or name another. {ELSEWHERE}."
REMEDIES = {
    errno.EACCES: _NOT_WRITABLE,
    errno.EPERM: _NOT_WRITABLE,
    errno.EROFS: _NOT_WRITABLE,
    errno.ENOENT: "Check the name, and make its folder first.",
    errno.EEXIST: _NO_FOLDER,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EISDIR: "Name a file, not a folder.",
}


def explained(error: OSError | UnituneError, arguments: Sequence[str]) -> UnituneError:
    """Return an error of the machine as one that says where and what to do."""
    if isinstance(error, UnituneError):
        return error
    name = cast("object", error.filename2 or error.filename)  # of a copy, the target is the second
    path = os.fsdecode(name) if isinstance(name, str | bytes) else ""
    why = error.strerror or str(error) or type(error).__name__
    given = [os.environ.get("UNITUNE_DIR", ""), *arguments]  # or what stands in such a folder
    if error.errno in FULL:
        return BackendError(
            f"{path or 'a file'} cannot be written: {why}. Free some space, then run the same "
            f"command again; what was written is kept. {ELSEWHERE}, if another disk has more room."
        )
    if _current_folder_is_gone():
        return UserError("the current folder is not there any more. Change to another folder.")
    if not path and error.errno == errno.ENOENT:  # of `tempfile`: no name, and its own sentence
        return BackendError(f"{why}. Free some space there, or let TMPDIR name a folder with room.")
    is_given = path and any(
        Path(path).absolute().is_relative_to(Path(argument).absolute())
        for argument in filter(None, given)
    )
    kind = UserError if is_given else BackendError
    return kind(f"{path or 'a file'}: {why}. {REMEDIES.get(error.errno or 0, '')}".strip())


def first(error: Exception) -> OSError | UnituneError | None:
    """Return what ended a group of tasks that ran at once, or the error itself; None: a bug."""
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
