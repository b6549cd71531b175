"""`Server`: a server of OpenAI's wire, with its lists, its jobs and its files.

Files are uploaded once, by the hash in their name.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import SEEK_END
from typing import BinaryIO, ClassVar, Literal

from unitune.backends.kit.api import Api, created_id
from unitune.backends.kit.errors import Endpoint
from unitune.backends.kit.hosted import wait_for_file
from unitune.backends.kit.paging import Query, by_last_id
from unitune.errors import BackendError, DataError
from unitune.security.json_fields import Fields

JOBS = ("fine_tuning", "jobs")
BEING_VALIDATED = ("pending", "running")
"""Azure's words for a file that no job can take yet."""


class Server(Api):
    """A server of this wire.

    Args:
        endpoint: As of `Api`.
        named: Whether a job named it, so that ids must carry its address.
    """

    page: ClassVar[int] = 100
    """Items of a page."""
    files_page: ClassVar[int] = 1000

    def __init__(self, endpoint: Endpoint, *, named: bool = False) -> None:
        super().__init__(endpoint)
        self.named = named

    def mark(self, name: str) -> str:
        """Return an id as the ledger keeps it."""
        return f"{name}@{self.endpoint.url}" if self.named else name

    def listed(self, *path: str, action: str, query: Query | None = None) -> Iterator[Fields]:
        """Yield the items of a list, reading a page when its first is wanted."""
        query = {"limit": self.page, **(query or {})}
        return self.pages(*path, action=action, next_page=by_last_id(), query=query)

    def jobs(self, query: Query | None = None) -> Iterator[Fields]:
        """Yield the fine-tuning jobs."""
        return self.listed(*JOBS, action="list fine-tuning jobs", query=query)

    def job(self, name: str) -> Fields:
        """Return a fine-tuning job."""
        return self.get(*JOBS, name, action=f"show job {name}")

    def file_content(self, file_id: str) -> bytes | None:
        """Return the content of a file; None where it is gone."""
        try:
            return self.content("files", file_id, "content", action=f"send file {file_id}")
        except BackendError as error:
            if not error.is_not_found:
                raise
            return None

    def upload_once(
        self, name: str, content: BinaryIO, purpose: Literal["fine-tune", "batch"]
    ) -> str:
        """Return the vendor's id of a file, uploading it unless one of its name and size is there.

        Args:
            name: Says what is in it, so that two files of one name are the same.
            content: In the vendor's own format.
            purpose: What for.

        Raises:
            BackendError: The vendor refused, or failed.
            DataError: It has validated the file and cannot use it.
        """
        size = content.seek(0, SEEK_END)
        content.seek(0)
        file = self._uploaded(name, size, purpose)
        if file is None:
            action, form = f"take file {name}", {"purpose": purpose}
            file = self.send_file("files", action=action, name=name, file=content, form=form)
        file_id = created_id(file, self.endpoint)
        if not self._is_validated(file):
            action, what = f"show file {file_id}", f"{self.endpoint.vendor.name}: file {file_id}"
            wait_for_file(
                lambda: self._is_validated(self.get("files", file_id, action=action)), what
            )
        return file_id

    def _uploaded(self, name: str, size: int, purpose: str) -> Fields | None:
        """Return the file of this name; one of another size was cut short on its way."""
        query: Query = {"purpose": purpose, "limit": self.files_page}
        files = self.listed("files", action=f"look for file {name}", query=query)
        same = (
            file
            for file in files
            if (file.text("filename"), file.whole("bytes")) == (name, size)
            if file.text("id") and file.text("status") != "error"
        )
        return next(same, None)

    def _is_validated(self, file: Fields) -> bool:
        if file.text("status") == "error":
            reason = file.text("status_details") or "it gives no reason"
            name = file.text("filename") or file.text("id")
            raise DataError(f"{self.endpoint.vendor.name} cannot use file {name}: {reason}")
        return file.text("status") not in BEING_VALIDATED
