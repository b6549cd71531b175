"""Turn errors of the operating system into errors of unitune with a path and a next step.

The exit code is 2 if the user gave the path, else 4. A full disk is always 4.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from unitune.errors import BackendError, UnituneError, UserError

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
    """Return an error of the operating system as one with its path and a next step."""
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
