"""Files of the Together on loopback: sent in three steps, and validated over a few looks."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from typing import Any, cast

from unitune.testing.loopback import ServerBehavior, VendorRequest, VendorResponse
from vendors.together.parts import Fields, Refused, fresh, missing, said

LOOKS = 2
"""Looks at a file until its validation is over."""
SHAPES = (("messages",), ("input", "preferred_output", "non_preferred_output"), ("text",))


@dataclass(slots=True)
class File:
    """An uploaded file, or the place for one."""

    id: str
    name: str
    purpose: str
    checksum: str
    created: int = field(default_factory=lambda: int(time.time()))
    content: bytes | None = None
    sent: bool = False
    """Whether validation was asked for."""
    looks: int = 0


class Files:
    """All files of the account.

    Args:
        behavior: How the vendor behaves.
    """

    def __init__(self, behavior: ServerBehavior) -> None:
        self._conduct = behavior
        self.all: dict[str, File] = {}

    def place(self, asked: VendorRequest) -> VendorResponse:
        """VendorResponse where to send a file; one with the same content is there already."""
        fields = _form(asked)
        for name in ("purpose", "file_name", "file_type", "checksum"):
            if not fields.get(name):
                raise Refused(400, f"{name} is required")
        for file in self.all.values():
            if file.sent and file.checksum == fields["checksum"]:
                return said({"file_id": file.id, "message": "file already exists"}, 409)
        file = File(fresh("file-"), fields["file_name"], fields["purpose"], fields["checksum"])
        self.all[file.id] = file
        place = f"http://{asked.headers['host']}/storage/{file.id}?signature=loopback"
        return VendorResponse(b"", 302, {"Location": place, "X-Together-File-Id": file.id})

    def store(self, file_id: str, asked: VendorRequest) -> VendorResponse:
        """Take the bytes; storage refuses a request that has a key beside its signature."""
        if "authorization" in asked.headers:
            raise Refused(400, "Only one auth mechanism allowed")
        self._file(file_id).content = asked.body
        return VendorResponse(b"")

    def preprocess(self, file_id: str) -> VendorResponse:
        """Begin to validate."""
        file = self._file(file_id)
        if file.content is None:
            raise Refused(400, f"File {file_id} has no content")
        file.sent = True
        return said(self._shown(file))

    def listed(self) -> VendorResponse:
        """VendorResponse all files, those without bytes too."""
        return said({"data": [self._shown(file) for file in self.all.values()]})

    def retrieve(self, file_id: str) -> VendorResponse:
        """VendorResponse one file; looking lets its validation go on."""
        file = self._file(file_id)
        file.looks += 1
        return said(self._shown(file))

    def content(self, file_id: str) -> VendorResponse:
        """Answer the bytes."""
        return VendorResponse(self._file(file_id).content or b"")

    def delete(self, file_id: str) -> VendorResponse:
        """Remove a file."""
        del self.all[self._file(file_id).id]
        return said({"id": file_id, "deleted": True})

    def usable(self, file_id: str) -> bytes | None:
        """Return the content of a file that is valid, else None."""
        file = self.all.get(file_id)
        if file is None or self._problem(file) or self._status(file) != "COMPLETED":
            return None
        return file.content

    def _file(self, file_id: str) -> File:
        if file_id not in self.all:
            raise missing("File", file_id)
        return self.all[file_id]

    def _status(self, file: File) -> str:
        if not file.sent or file.looks == 0:
            return "PENDING"
        if file.looks < LOOKS:
            return "RUNNING"
        return "INVALID_FORMAT" if self._problem(file) else "COMPLETED"

    def _problem(self, file: File) -> str | None:
        """Return why a file is not valid."""
        return self._conduct.rejects_files or _problem(file.content or b"")

    def _shown(self, file: File) -> Fields:
        """A file as the description has it (``Processed``) and as the SDK has it (the rest)."""
        status = self._status(file)
        shown: Fields = {
            "id": file.id,
            "object": "file",
            "created_at": file.created,
            "filename": file.name,
            "bytes": len(file.content or b""),
            "purpose": file.purpose,
            "FileType": "jsonl",
            "Processed": status == "COMPLETED",
            "processing_status": status,
        }
        if status in ("COMPLETED", "INVALID_FORMAT"):
            problem = self._problem(file)
            shown["validation_report"] = {"valid": problem is None, "file_id": file.id}
            if problem:
                shown["validation_report"] |= {"error": problem, "error_type": "INVALID_FORMAT"}
        return shown


def _problem(content: bytes) -> str | None:
    for number, line in enumerate(content.splitlines(), 1):
        try:
            row: Any = json.loads(line)
        except ValueError:
            return f"Line {number} is not valid JSON"
        if not isinstance(row, dict) or not any(
            all(key in row for key in shape) for shape in SHAPES
        ):
            return f"Line {number} has none of the known formats"
    return None if content else "The file is empty"


def _form(asked: VendorRequest) -> dict[str, str]:
    """Return the fields of a multipart form."""
    head = f"Content-Type: {asked.headers.get('content-type', '')}\r\n\r\n".encode()
    form = message_from_bytes(head + asked.body)
    if not form.is_multipart():
        raise Refused(400, "the body must be a multipart form")
    parts = cast("list[Message]", form.get_payload())
    return {
        str(part.get_param("name", header="content-disposition")): cast(
            "bytes", part.get_payload(decode=True)
        ).decode()
        for part in parts
    }
