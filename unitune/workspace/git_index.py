"""Whether git tracks what stands in a folder, read from git's index; git itself is not run.

In a stranger's repository git could run what the configuration there names. A pull overwrites
ignored files without a word, so what git tracks may be a stranger's whoever has made it.

Source: gitformat-index(5), https://git-scm.com/docs/index-format (2026-11-26), versions 2 to 4.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

MAGIC, VERSIONS = b"DIRC", (2, 3, 4)
HEADER = struct.Struct(">4sII")
BEFORE_HASH = 40  # bytes of an entry: times, device, inode, mode, owner and size
HASHES = (20, 32)  # bytes of an object's name: SHA-1, SHA-256
# Of an entry's flags: two more bytes follow; the length of its path, or all ones
EXTENDED, NAME_LENGTH = 0x4000, 0x0FFF
COMPRESSED = 4  # the version that writes of each path only what differs from the path before


def tracked_in(folder: Path) -> str | None:
    """Return a file that git tracks, by its path in the repository: in a folder, or the file given.

    Args:
        folder: A folder or a file; absolute, without links.

    Returns:
        None where git tracks none.
    """
    for top in folder.parents:
        whole = os.fsencode(folder.relative_to(top)).lower()
        for index in _indexes(top / ".git"):
            seen = index.stat()
            for path in _paths(index, folder.name, seen.st_mtime_ns, seen.st_ino):
                # Some file systems know no case.
                if path.lower() == whole or path.lower().startswith(whole + b"/"):
                    return os.fsdecode(path)
    return None


def _indexes(git: Path) -> list[Path]:
    """Return the index of a repository, and the index that it builds upon where it is split."""
    with suppress(OSError, ValueError):
        if git.is_file():  # of a worktree or a submodule
            git = git.parent / git.read_text("utf-8").strip().removeprefix("gitdir: ")
        index = git / "index"
        if index.is_file():
            # What the index has removed from the other index since still counts.
            return [index, *(path for path in git.glob("sharedindex.*") if _builds_on(index, path))]
    return []


def _builds_on(index: Path, shared: Path) -> bool:
    name = re.fullmatch(r"\.([0-9a-f]{40}|[0-9a-f]{64})", shared.suffix)
    return name is not None and shared.is_file() and bytes.fromhex(name[1]) in index.read_bytes()


@lru_cache(maxsize=8)
def _paths(index: Path, name: str, *_version: int) -> tuple[bytes, ...]:
    """Return the paths in an index; none of one that does not speak of a name anywhere."""
    data = index.read_bytes()
    for hash_bytes in HASHES:
        with suppress(ValueError, IndexError, struct.error):
            magic, version, _ = HEADER.unpack_from(data)
            if magic != MAGIC or version not in VERSIONS:
                return ()
            if version < COMPRESSED and os.fsencode(name).lower() not in data.lower():
                return ()
            return tuple(_read(data, hash_bytes))
    return ()


def _read(data: bytes, hash_bytes: int) -> Iterator[bytes]:
    """Yield the paths of the entries.

    Raises:
        ValueError: Objects have names of another length here.
    """
    _, version, count = HEADER.unpack_from(data)
    at, path = HEADER.size, b""
    for _ in range(count):
        start = at
        at += BEFORE_HASH + hash_bytes
        (flags,) = struct.unpack_from(">H", data, at)
        at += 4 if flags & EXTENDED else 2
        kept = 0
        if version == COMPRESSED:
            dropped, at = _number(data, at)
            kept = len(path) - dropped
        end = data.index(b"\0", at)
        path = path[:kept] + data[at:end]
        if flags & NAME_LENGTH != min(len(path), NAME_LENGTH):
            raise ValueError("no such entry")
        at = end + 1 if version == COMPRESSED else start + (end - start) // 8 * 8 + 8
        yield path


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of varying length, as packs have it for offsets, and where it ends."""
    number = data[at] & 0x7F
    while data[at] & 0x80:
        at += 1
        number = ((number + 1) << 7) + (data[at] & 0x7F)
    return number, at + 1
