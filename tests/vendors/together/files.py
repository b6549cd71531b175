"""Files of the Together on loopback: sent in three steps, and validated over a few looks."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest, VendorResponse
from unitune.testing.vendor_setup import Refused, RoutedVendor, ServerBehavior, route
from vendors.bodies import form_parts
from vendors.together.parts import Fields, fresh, missing

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


class Files(RoutedVendor):
    """All files of the account."""

    def __init__(self, behavior: ServerBehavior | None = None) -> None:
        super().__init__(behavior)
        self.files: dict[str, File] = {}

    @route("POST", "/v1/files")
    def place_file(self, request: VendorRequest) -> VendorResponse:
        """Answer where to send a file, or that one with the same content is there already."""
        fields = {name: part.content.decode() for name, part in form_parts(request).items()}
        for name in ("purpose", "file_name", "file_type", "checksum"):
            if not fields.get(name):
                raise Refused(400, f"{name} is required")
        for file in self.files.values():
            if file.sent and file.checksum == fields["checksum"]:
                content: JsonValue = {"file_id": file.id, "message": "file already exists"}
                return VendorResponse(content, 409)
        file = File(fresh("file-"), fields["file_name"], fields["purpose"], fields["checksum"])
        self.files[file.id] = file
        address = f"http://{request.headers['host']}/storage/{file.id}?signature=loopback"
        return VendorResponse(b"", 302, {"Location": address, "X-Together-File-Id": file.id})

    def check_key(self, request: VendorRequest) -> None:
        """Refuse a request without the key; the place of a file is secret itself."""
        if not request.path.startswith("/storage/"):
            super().check_key(request)

    @route("PUT", "/storage/{file_id}")
    def store_file(self, request: VendorRequest, file_id: str) -> VendorResponse:
        """Take the bytes; storage refuses a request that has a key beside its signature."""
        if "authorization" in request.headers:
            raise Refused(400, "Only one auth mechanism allowed")
        self._file(file_id).content = request.body
        return VendorResponse(b"")

    @route("POST", "/v1/files/{file_id}/preprocess")
    def preprocess(self, _: VendorRequest, file_id: str) -> Fields:
        """Begin to validate."""
        file = self._file(file_id)
        if file.content is None:
            raise Refused(400, f"File {file_id} has no content")
        file.sent = True
        return self._file_json(file)

    @route("GET", "/v1/files")
    def list_files(self, _: VendorRequest) -> Fields:
        """Answer all files, those without bytes too."""
        return {"data": [self._file_json(file) for file in self.files.values()]}

    @route("GET", "/v1/files/{file_id}")
    def file(self, _: VendorRequest, file_id: str) -> Fields:
        """Answer one file; looking lets its validation go on."""
        file = self._file(file_id)
        file.looks += 1
        return self._file_json(file)

    @route("GET", "/v1/files/{file_id}/content")
    def file_content(self, _: VendorRequest, file_id: str) -> VendorResponse:
        """Answer the bytes."""
        return VendorResponse(self._file(file_id).content or b"")

    @route("DELETE", "/v1/files/{file_id}")
    def delete_file(self, _: VendorRequest, file_id: str) -> Fields:
        """Remove a file."""
        del self.files[self._file(file_id).id]
        return {"id": file_id, "deleted": True}

    def usable(self, file_id: str) -> bytes | None:
        """Return the content of a file that is valid, else None."""
        file = self.files.get(file_id)
        if file is None or self._problem(file) or self._file_status(file) != "COMPLETED":
            return None
        return file.content

    def _file(self, file_id: str) -> File:
        if file_id not in self.files:
            raise missing("File", file_id)
        return self.files[file_id]

    def _file_status(self, file: File) -> str:
        if not file.sent or file.looks == 0:
            return "PENDING"
        if file.looks < LOOKS:
            return "RUNNING"
        return "INVALID_FORMAT" if self._problem(file) else "COMPLETED"

    def _problem(self, file: File) -> str | None:
        """Return why a file is not valid."""
        return self.behavior.rejects_files or _problem(file.content or b"")

    def _file_json(self, file: File) -> Fields:
        """A file as the description has it (``Processed``) and as the SDK has it (the rest)."""
        status = self._file_status(file)
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
