"""Files on OpenAI's wire: uploaded once, by the hash in their name, and read."""

from __future__ import annotations

from os import SEEK_END
from typing import BinaryIO, Literal

from unitune.backends.kit.api import Api, created_id
from unitune.backends.kit.hosted import wait_for_file
from unitune.backends.kit.paging import by_last_id
from unitune.errors import BackendError, DataError
from unitune.security.json_fields import Fields

FILES_PAGE = 1000
BEING_VALIDATED = ("pending", "running")
"""Azure's words for a file that no job can take yet."""


def upload_once(
    server: Api, name: str, content: BinaryIO, purpose: Literal["fine-tune", "batch"]
) -> str:
    """Return the vendor's id of a file, uploading it unless one of its name and size is there.

    Args:
        server: Who takes it.
        name: Says what is in it, so that two files of one name are the same.
        content: In the vendor's own format.
        purpose: What for.

    Raises:
        BackendError: The vendor refused, or failed.
        DataError: It has validated the file and cannot use it.
    """
    size = content.seek(0, SEEK_END)
    content.seek(0)
    file = _uploaded(server, name, size, purpose)
    if file is None:
        form = {"purpose": purpose}
        action = f"take file {name}"
        file = server.send_file("files", action=action, name=name, file=content, form=form)
    file_id = created_id(file, server.endpoint)
    if not _is_validated(server, file):
        what = f"{server.endpoint.vendor.name}: file {file_id}"
        action = f"read file {file_id}"
        wait_for_file(
            lambda: _is_validated(server, server.get("files", file_id, action=action)), what
        )
    return file_id


def content_of(server: Api, file_id: str) -> bytes | None:
    """Return the content of a file; None where it is gone."""
    try:
        return server.content("files", file_id, "content", action=f"send file {file_id}")
    except BackendError as error:
        if not error.is_not_found:
            raise
        return None


def _uploaded(server: Api, name: str, size: int, purpose: str) -> Fields | None:
    """Return the file of this name; one of another size was cut short on its way."""
    files = server.pages(
        "files",
        action=f"look for file {name}",
        next_page=by_last_id(),
        query={"purpose": purpose, "limit": FILES_PAGE},
    )
    same = (
        file
        for file in files
        if file.text("id") and file.text("filename") == name and file.whole("bytes") == size
    )
    return next((file for file in same if file.text("status") != "error"), None)


def _is_validated(server: Api, file: Fields) -> bool:
    if file.text("status") == "error":
        reason = file.text("status_details") or "it gives no reason"
        name = file.text("filename") or file.text("id")
        raise DataError(f"{server.endpoint.vendor.name} cannot use file {name}: {reason}")
    return file.text("status") not in BEING_VALIDATED
