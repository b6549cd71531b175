"""Files in folders that others may have prepared: written whole or not at all, through no link.

A folder that came with a repository may hold symbolic links under the very names that are about to
be written. So drafts have names that no one can guess, and what is appended to is opened as the
file that it is. A link may also lead to a device that never ends, so what is read is no device and
has a limit.

What stands in a folder that only its owner may enter is for its owner alone, whatever the umask.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import TextIO, cast

from unitune.errors import UserError

MOST_BYTES = 1 << 30  # of a file that is read whole, by default


def opened(path: Path) -> BufferedReader:
    """Open a file, or a pipe, to read its bytes.

    Raises:
        OSError: It cannot be opened, or is a device.
    """
    file = path.open("rb")
    mode = os.fstat(file.fileno()).st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        file.close()
        raise OSError(errno.EINVAL, "it is a device, no file", str(path))
    return file


def content_of(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Return what a file, or a pipe, holds.

    Raises:
        OSError: It cannot be read, is a device, or holds more.
    """
    with opened(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EINVAL, f"it holds more than {most_bytes:,} bytes", str(path))
    return content


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Generator[TextIO]:
    """Open a draft, UTF-8, that takes a file's place when the body ends without an error.

    A reader sees all of it or what was there before. A link there is replaced, not followed.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(draft, "x", encoding="utf-8", opener=no_link) as file:
            yield cast("TextIO", file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Generator[Path]:
    """Give a draft of a folder, which gets its name when the body ends well, and is gone otherwise.

    Raises:
        OSError: Such a folder is there already, and not empty.
    """
    draft = path.with_name(f".{path.name}.part")
    shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
    draft.mkdir(parents=True)
    try:
        yield draft
        for file in draft.rglob("*"):
            flush(file)
        draft.rename(path)
        flush(path.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def no_link(path: str, flags: int) -> int:
    """Open a file that is no symbolic link; for the argument `opener` of `open`.

    Raises:
        UserError: It is one.
    """
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o600 if _is_private(path) else 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UserError(
            f"{path} is a symbolic link, and nothing is written through one. Remove it, or choose "
            "another folder."
        ) from error


def private_folder(folder: Path) -> None:
    """Make a folder, and those above it that are not there, which only the user may enter."""
    if not folder.exists():
        private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def private_file(file: Path, text: str = "") -> None:
    """Make a file, unless it is there, which only the user may read."""
    with suppress(FileExistsError), open(file, "x", encoding="utf-8", opener=_private) as fresh:
        fresh.write(text)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _is_private(path: str) -> bool:
    return not Path(path).parent.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
