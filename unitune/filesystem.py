"""Writing files where somebody else may have been before: whole or not at all, through no link.

A folder that came with a repository may hold symbolic links under the very names that are about to
be written. So drafts have names that nobody can guess, and what is appended to is opened as the
file that it is.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

from unitune.errors import UserError


@contextmanager
def replacing(path: Path) -> Generator[TextIO]:
    """Open a draft, UTF-8, that takes a file's place when the body ends without an error.

    A reader sees all of it or what was there before. A link there is replaced, not followed.

    Args:
        path: The file; its folder is there.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with draft.open("x", encoding="utf-8") as file:
            yield cast("TextIO", file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def no_link(path: str, flags: int) -> int:
    """Open a file that is no symbolic link; for the argument `opener` of `open`.

    Raises:
        UserError: It is one.
    """
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UserError(
            f"{path} is a symbolic link, and nothing is written through one. Remove it, or choose "
            "another folder."
        ) from error
