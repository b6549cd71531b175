"""Files on OpenAI's wire: handed over once, by the hash in their name; read; removed."""

from __future__ import annotations

import time
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO, Literal

from openai import omit

from unitune.errors import BackendError, DataError, Unreachable
from unitune.security.json_fields import Fields
from unitune_providers.openai.server import Server, client, everything, fields_of, id_of, once

UPLOAD_SECONDS = 600.0
"""Longest wait for a file to be taken."""
FILE_SECONDS = 600.0
"""Longest wait for a file to be looked through, where the vendor does so before any job."""
PAUSE_SECONDS = 2.0
FILES_PAGE = 1000
AT_WORK = ("pending", "running")
"""Azure's words for a file that no job can take yet."""
NOT_FOUND = 404


def hand_over(server: Server, path: Path, sha256: str) -> str:
    """Return the vendor's id of a file, sending it unless one with its hash is there.

    Args:
        server: Who takes it.
        path: In the vendor's own format.
        sha256: Hash of its content.

    Raises:
        BackendError: The vendor refused, or failed.
        DataError: It looked through the file and cannot use it.
    """
    with path.open("rb") as file:
        return hand_over_once(server, f"unitune-{sha256[:32]}.jsonl", file, "fine-tune")


def hand_over_once(
    server: Server, name: str, content: BinaryIO, purpose: Literal["fine-tune", "batch"]
) -> str:
    """Return the vendor's id of a file, sending it unless one of its name and size is there.

    Args:
        server: Who takes it.
        name: Says what is in it, so that two files of one name are the same.
        content: In the vendor's own format.
        purpose: What for.

    Raises:
        BackendError: The vendor refused, or failed.
        DataError: It looked through the file and cannot use it.
    """
    size = content.seek(0, SEEK_END)
    content.seek(0)
    with server.errors(f"look for file {name}"):
        file = _found(server, name, size, purpose)
    if file is None:
        with server.errors(f"take file {name}"):
            made = once(server, UPLOAD_SECONDS).files.with_raw_response.create(
                file=(name, content, "application/jsonl"), purpose=purpose
            )
            file_id, file = id_of(made), fields_of(made)
    else:
        file_id = file.text("id") or ""
    _look_through(server, file_id, file)
    return file_id


def content(server: Server, file_id: str) -> bytes | None:
    """Return what stands in a file; None when it is gone.

    Args:
        server: Who has it.
        file_id: The vendor's id.

    Raises:
        BackendError: The vendor failed.
    """
    try:
        with server.errors(f"send file {file_id}"):
            return client(server).files.content(file_id).content
    except BackendError as error:
        if error.status != NOT_FOUND:
            raise
        return None


def remove(server: Server, file_id: str) -> None:
    """Remove a file; one that is gone is no error.

    Args:
        server: Who has it.
        file_id: The vendor's id.

    Raises:
        BackendError: It could not be removed.
    """
    try:
        with server.errors(f"delete file {file_id}"):
            client(server).files.delete(file_id)
    except BackendError as error:
        if error.status != NOT_FOUND:
            raise


def _found(server: Server, name: str, size: int, purpose: str) -> Fields | None:
    """Return the file of this name; one of another size was cut short on its way."""
    files = client(server).files.with_raw_response
    listed = everything(
        lambda after: files.list(purpose=purpose, limit=FILES_PAGE, after=after or omit)
    )
    same = (
        file
        for file in listed
        if file.text("id") and file.text("filename") == name and file.whole("bytes") == size
    )
    return next((file for file in same if file.text("status") != "error"), None)


def _look_through(server: Server, file_id: str, file: Fields) -> None:
    """Wait until the vendor has looked through a file."""
    until = time.monotonic() + FILE_SECONDS
    while file.text("status") in AT_WORK:
        if time.monotonic() > until:
            raise Unreachable(
                f"{server.backend} is still looking through file {file_id} after "
                f"{FILE_SECONDS:.0f} seconds."
            )
        time.sleep(PAUSE_SECONDS)
        with server.errors(f"show file {file_id}"):
            file = fields_of(client(server).files.with_raw_response.retrieve(file_id))
    if file.text("status") == "error":
        reason = file.text("status_details") or "it gives no reason"
        name = file.text("filename") or file_id
        raise DataError(f"{server.backend} cannot use file {name}: {reason}")
