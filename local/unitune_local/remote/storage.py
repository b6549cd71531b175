"""Access the storage that workers and their users share, at any address that fsspec reads.

    files/unitune-HASH.jsonl   rows to train on, named by the hash of their content
    jobs/KEY/                  copy of a training's folder (`unitune_local.job_folder`)
    ray/KEY/                   files of Ray Train

Single files are stored atomically, folders file by file; readers of a checkpoint compare hashes. A
call that fails with a transient error is repeated.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import fsspec  # pyright: ignore[reportMissingTypeStubs]

from unitune.errors import UnituneError, Unreachable, UserError
from unitune.workspace.user_settings import variable

VARIABLE = "UNITUNE_STORAGE"
HUB = "hf://"  # beginning of addresses at the Hugging Face Hub
T = TypeVar("T")
ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 0.5  # before a call is repeated; doubled each time
# Errors that a repeated call would meet again
PERMANENT = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
MOST_BYTES = 64 << 20  # read at once; the largest file of unitune's that is read whole has some KB


class Storage:
    """Folder that several machines see, such as ``/mnt/shared/unitune`` or ``s3://bucket/unitune``.

    Raises:
        UserError: It cannot be used from here.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        if "://" not in address and not PurePath(address).is_absolute():
            raise UserError(
                f"{VARIABLE} is {address!r}, which other machines cannot find. Set it to the full "
                "path of a folder that they share, or to an address such as s3://bucket/unitune."
            )
        try:
            # Listings are not cached, because other machines write.
            options: dict[str, Any] = {"use_listings_cache": False}
            if address.startswith(HUB):
                given = {"token": variable("HF_TOKEN"), "endpoint": variable("HF_ENDPOINT")}
                options |= {name: value for name, value in given.items() if value}
                for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_TELEMETRY"):
                    os.environ.setdefault(name, "1")  # read when the package is imported
            there = cast("Any", fsspec).url_to_fs(self.address, **options)
        except (ImportError, ValueError) as error:
            raise UserError(f"{VARIABLE} is {address!r}: {error}.") from error
        self._files, self._root = cast("tuple[Any, str]", there)
        if urlsplit(self.address).password:
            raise UserError(
                f"{VARIABLE} holds a password, which would become part of your models' names. "
                "Write it into fsspec's own configuration, ~/.config/fsspec."
            )

    def url(self, name: str) -> str:
        """Return the address of a file or folder."""
        return f"{self.address}/{name}"

    def name_of(self, url: str) -> str | None:
        """Return the name of an address in the storage, or None if it is elsewhere."""
        name = url.removeprefix(f"{self.address}/")
        return None if name == url or ".." in name.split("/") else name

    def exists(self, name: str) -> bool:
        """Return whether a file or folder exists."""
        return bool(self._call("look for", name, lambda: self._files.exists(self._path(name))))

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return int(self._call("read", name, lambda: self._files.info(self._path(name))["size"]))

    def read(self, name: str, start: int = 0) -> bytes:
        """Return at most `MOST_BYTES` of a file from a byte on; nothing if it does not exist."""

        def read() -> bytes:
            try:
                if self._files.info(self._path(name))["size"] <= start:
                    return b""
                end = start + MOST_BYTES
                return bytes(self._files.cat_file(self._path(name), start=start, end=end))
            except FileNotFoundError:
                return b""

        return self._call("read", name, read)

    def put(self, file: Path, name: str) -> None:
        """Store a file."""
        # Each of two processes that send the same file has its own draft.
        draft, path = self._path(f"{name}.{os.urandom(4).hex()}.part"), self._path(name)

        def put() -> None:
            if self.address.startswith(HUB):  # shows no file in part, and moves by copying
                self._files.put_file(str(file), path)
                return
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(file), draft)
            self._files.mv(draft, path)

        self._call("write", name, put)

    def put_folder(self, folder: Path, name: str) -> None:
        """Store the files of a folder, over those of an earlier one."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.put(file, f"{name}/{file.relative_to(folder).as_posix()}")

    def fetch(self, name: str, to: Path) -> None:
        """Copy a file or folder to a path, if it exists.

        Raises:
            UserError: One of the files is a link, which may lead to any file of this machine.
        """
        root = self._path(name)

        def fetch() -> None:
            for path in cast("list[str]", self._files.find(root)):
                target = to / path.removeprefix(root).lstrip("/") if path != root else to
                if not path.endswith(".part") and ".." not in target.parts:
                    self._refuse_links(path)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self._files.get_file(path, str(target))

        self._call("read", name, fetch)

    def _refuse_links(self, path: str) -> None:
        if "file" in self._files.protocol:
            below = path.removeprefix(self._root).lstrip("/")
            if Path(path).resolve() != Path(self._root).resolve() / below:
                raise UserError(f"{path} is a link, or in a linked folder. Remove the link.")

    def names(self, name: str) -> set[str]:
        """Return the names of a folder's entries."""

        def entries() -> list[str]:
            try:
                return cast("list[str]", self._files.ls(self._path(name), detail=False))
            except FileNotFoundError:
                return []

        return {PurePath(entry).name for entry in self._call("list", name, entries)}

    def remove(self, name: str) -> None:
        """Remove a file or folder, if it exists."""

        def remove() -> None:
            try:
                self._files.rm(self._path(name), recursive=True)
            except FileNotFoundError:
                return

        self._call("delete", name, remove)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _call(self, doing: str, name: str, call: Callable[[], T]) -> T:
        attempt = 0
        while True:
            try:
                # The Hub's file system keeps listings of its own.
                self._files.invalidate_cache()
                return call()
            except UnituneError:
                raise
            except Exception as error:  # each implementation has errors of its own
                attempt += 1
                if attempt == ATTEMPTS or isinstance(error, PERMANENT):
                    raise Unreachable(
                        f"could not {doing} {self.url(name)} ({type(error).__name__}: {error}). "
                        f"Check that {VARIABLE} is a storage which you and the workers can read "
                        "and write."
                    ) from error
            time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
