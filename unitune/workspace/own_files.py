"""Append to files in folders that others may write to, and refuse what others wrote.

The state folder keeps a record of each file: length and chained hash of everything that this user's
unitune has appended. A file may lack the last entries, as after a power cut.

Locks are among the processes of one machine; the kernel releases a lock when its holder dies.
Several machines need leases instead (`unitune.ledger.leases`).
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Generator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from unitune.errors import LockTimeout, Mismatch
from unitune.files.filesystem import flush, no_link, private_folder, refuse_strangers, replacing
from unitune.files.system import try_lock
from unitune.workspace.home import NAME, artifacts, home, make_home, project_id

FOLDER = "own-files"  # in the state folder
ENTRY = struct.Struct(">I16s")  # length and hash of a line


class OwnFile(FileIO):
    """File to read and append to; its record follows each write."""

    def __init__(self, path: Path, record: FileIO, advice: str) -> None:
        super().__init__(path, "a+", opener=no_link)
        self._record, self._last = record, b""
        self.seek(0)
        content, entries = self.read(), record.read()
        entries = entries[: len(entries) // ENTRY.size * ENTRY.size]
        known = size = 0
        for length, chained in ENTRY.iter_unpack(entries):
            part = content[size : size + length]
            if self._chained(part) != chained:
                break
            size, known, self._last = size + length, known + ENTRY.size, chained
        else:
            length = len(content) + 1
        # A write may be cut short, or lack its entry, if the process or the machine stopped.
        if content and (not known or len(content) - size >= length):
            self.close()
            raise Mismatch(
                f"{path} has content that unitune did not write here for you, so it is not used. "
                f"{advice}"
            )
        super().truncate(size)
        record.truncate(known)

    def write(self, content: bytes | bytearray | memoryview, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Append, then record it."""
        written = super().write(content)
        self._note(bytes(content[:written]))
        return written

    def truncate(self, size: int | None = None, /) -> int:
        """Cut the end off, and record the rest."""
        self.seek(0)
        self._last = b""
        self._record.truncate(0)
        self._note(self.read(size))
        return super().truncate(size)

    def sync(self) -> None:
        """Wait until content and record are on the disk."""
        os.fsync(self.fileno())
        os.fsync(self._record.fileno())

    def _chained(self, content: bytes) -> bytes:
        return hashlib.blake2b(self._last + content, digest_size=16).digest()

    def _note(self, content: bytes) -> None:
        entries = b""
        for line in content.splitlines(keepends=True):
            self._last = self._chained(line)
            entries += ENTRY.pack(len(line), self._last)
        self._record.write(entries)


@contextmanager
def own_file(path: Path, advice: str) -> Generator[OwnFile]:
    """Open a file to read and append what this user's unitune wrote; one process at a time.

    Args:
        path: File in an existing folder.
        advice: What to do about content of another origin, for the message.

    Raises:
        Mismatch: The content is of another origin.
        UserError: The file is a symbolic link, or its record may be part of a repository.
    """
    make_home(home())
    folder = home() / FOLDER
    private_folder(folder)
    record_path = folder / _key(path)
    if record_path.exists():  # `UNITUNE_DIR` may be in a checkout
        refuse_strangers(record_path, "Set UNITUNE_DIR to a folder outside of the repository.")
    with FileIO(record_path, "a+", opener=no_link) as record:
        record.seek(0)
        flush(folder)
        with OwnFile(path, record, advice) as file:
            yield file


def _key(path: Path) -> str:
    """Return the name of a file's record, which a move of its project does not change."""
    path = path.resolve()
    name = os.fsencode(path)
    # A command on a run may be started in another project.
    project = next((each for each in path.parents if each.name == NAME), artifacts().resolve())
    if path.is_relative_to(project):
        id_ = "" if project == home().resolve() else project_id(project) or ""
        if not id_ or not _is_copy(project, id_):
            name = id_.encode() + os.fsencode(path.relative_to(project))
    return hashlib.sha256(name).hexdigest()


def _is_copy(project: Path, id_: str) -> bool:
    """Return whether another project has the same id; otherwise record the project's folder."""
    known = home() / FOLDER / id_
    if known.exists():
        place = Path(known.read_text(encoding="utf-8"))
        if place != project and project_id(place) == id_:
            return True
    with replacing(known) as file:
        file.write(str(project))
    return False


@contextmanager
def locked(path: Path, what: str, wait_seconds: float = 30.0) -> Generator[None]:
    """Hold the lock of a file, which is created if needed, while the body runs.

    Args:
        path: The lock file.
        what: Name of the locked thing, for the message.
        wait_seconds: Maximum wait for another holder.

    Raises:
        LockTimeout: Another process kept the lock.
        UserError: The file is a symbolic link.
    """
    until = time.monotonic() + wait_seconds
    with open(path, "a", encoding="utf-8", opener=no_link) as file:
        while not try_lock(file.fileno()):
            if time.monotonic() >= until:
                raise LockTimeout(
                    f"{what} is still held by another process after {wait_seconds:g} seconds. Wait "
                    "until it is done, or end it, and try again."
                )
            time.sleep(0.02)
        yield


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a file."""
    if not path.exists():
        return False
    with open(path, "a", encoding="utf-8", opener=no_link) as file:
        return not try_lock(file.fileno())
