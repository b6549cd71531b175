"""Read and write files in folders that others may have prepared.

Such a folder may have symbolic links with the names of files to write, or links to a device. So
files are written as a whole, under unpredictable names and never through a link.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shlex
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import TextIO, cast

from unitune.errors import UserError
from unitune.files.system import NO_LINK, POSIX, is_own

MOST_BYTES = 1 << 30  # default limit for a file that is read whole
ROOT = 0
SHARED = stat.S_IRWXG | stat.S_IRWXO  # permissions of anyone but the owner


def opened(path: Path) -> BufferedReader:
    """Open a file or a pipe to read its bytes; OSError for a device."""
    file = path.open("rb")
    mode = os.fstat(file.fileno()).st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        file.close()
        raise OSError(errno.EINVAL, "it is a device, not a file", str(path))
    return file


def content_of(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the content of a file or a pipe; OSError for a device or more than the limit."""
    with opened(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EINVAL, f"it has more than {most_bytes:,} bytes", str(path))
    return content


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Generator[TextIO]:
    """Open a UTF-8 draft that replaces a file, or a link, when the body ends without an error.

    Args:
        path: The file.
        private: Whether only the user may read it; always so in a private folder.

    Raises:
        IsADirectoryError: The path is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(draft, "x", encoding="utf-8", opener=_private if private else no_link) as file:
            yield cast("TextIO", file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Generator[Path]:
    """Yield a draft of a folder, which gets its name when the body ends without an error.

    Raises:
        OSError: The folder exists and is not empty.
    """
    draft = path.with_name(f".{path.name}.part")
    shutil.rmtree(draft, ignore_errors=True)  # left by a killed process
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
    if not POSIX and path.is_dir():
        return  # Windows opens no folders, and writes their entries with their files
    handle = os.open(
        path, os.O_RDONLY if POSIX else os.O_RDWR
    )  # Windows flushes what may be written
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def no_link(path: str, flags: int) -> int:
    """Open a file for the argument `opener` of `open`; UserError for a symbolic link."""
    advice = UserError(
        f"{path} is a symbolic link, and unitune does not write through one. Remove it, or "
        "choose another folder."
    )
    if not POSIX and Path(path).is_symlink():
        raise advice
    try:
        return os.open(path, flags | NO_LINK, 0o600 if _is_private(path) else 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise advice from error


def refuse_strangers(path: Path, advice: str) -> None:
    """Raise UserError, with advice, if others may have written a file or folder.

    Git cannot set private permissions. So a clone may have created any file in a repository that
    other users may read.
    """
    real = path.resolve()
    status = real.stat()
    if not is_own(status) and status.st_uid != ROOT:
        why = "it belongs to another user"
    elif (
        POSIX
        and status.st_mode & SHARED
        and any((parent / ".git").exists() for parent in real.parents)
    ):
        why = (
            "it is in a git repository, so a clone or a pull may have written it. If it is yours, "
            f"run `chmod go= {shlex.quote(str(path))}`"
        )
    else:
        return
    raise UserError(f"{path} is not used: {why}. {advice}")


def private_folder(folder: Path) -> None:
    """Create a folder, with missing parents, that only the user may enter."""
    if not folder.exists():
        private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def private_file(file: Path, text: str = "") -> None:
    """Create a file that only the user may read, unless it exists."""
    with suppress(FileExistsError), open(file, "x", encoding="utf-8", opener=_private) as fresh:
        fresh.write(text)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | NO_LINK, 0o600)


def _is_private(path: str) -> bool:
    return not Path(path).parent.stat().st_mode & SHARED
