"""Files at OpenAI: multipart bodies in, content out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest
from unitune.testing.vendor_setup import Refused, RoutedVendor, ServerBehavior, route
from vendors.bodies import form_parts
from vendors.openai.lists import Json, paged, with_ends

MOST_BYTES = {"fine-tune": 512 << 20, "batch": 200 << 20}
"""By purpose, of those whose files are JSON lines."""


@dataclass(frozen=True, slots=True)
class LoopbackFile:
    """A file as it was sent."""

    id: str
    name: str  # as the sender named it
    purpose: str
    content: bytes
    created: int  # seconds since 1970, UTC

    def as_json(self, status: str = "processed") -> Json:
        """Return the file as the vendor shows it."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": self.created,
            "filename": self.name,
            "purpose": self.purpose,
            "status": status,
        }


@dataclass
class Files(RoutedVendor):
    """All files of the account."""

    behavior: ServerBehavior = field(default_factory=ServerBehavior)
    # existing files by id, oldest first
    files: dict[str, LoopbackFile] = field(default_factory=dict[str, LoopbackFile])
    file_count: int = 0  # number of files ever sent
    # what the next looks at files show, as on a vendor that validates them first
    file_statuses: list[str] = field(default_factory=list[str])
    file_details: str | None = None  # why a file has the status error

    @route("POST", "/files")
    def create_file(self, request: VendorRequest) -> JsonValue:
        parts = form_parts(request)
        for part in ("purpose", "file"):
            if part not in parts:
                raise Refused(400, f"'{part}' is a required property")
        name, content = parts["file"]
        purpose = parts["purpose"].content.decode()
        if purpose not in ("fine-tune", "batch", "assistants", "vision", "user_data", "evals"):
            raise Refused(400, f"'{purpose}' is not one of the purposes", param="purpose")
        if purpose in MOST_BYTES and not name.endswith(".jsonl"):
            raise Refused(400, f"Invalid file format: files for {purpose} must end in .jsonl")
        if not content and purpose == "fine-tune":
            raise Refused(400, "The file is empty.", param="file")
        most = MOST_BYTES.get(purpose, MOST_BYTES["fine-tune"])
        if len(content) > most:
            raise Refused(413, f"The file is larger than {most >> 20} MB")
        return self.show_file(request, self.store_file(name, purpose, content))

    @route("GET", "/files")
    def list_files(self, request: VendorRequest) -> JsonValue:
        """List files, the newest first."""
        purpose, newest = request.first("purpose"), reversed(self.files.values())
        listed = [file.as_json() for file in newest if purpose in (None, file.purpose)]
        return with_ends(paged(request, listed, 10_000, most=10_000), empty="")

    @route("GET", "/files/{file_id}")
    def show_file(self, _: VendorRequest, file_id: str) -> JsonValue:
        status = self.file_statuses.pop(0) if self.file_statuses else "processed"
        shown = self._file(file_id).as_json(status)
        return {**shown, **({"status_details": self.file_details} if self.file_details else {})}

    @route("GET", "/files/{file_id}/content")
    def read_file(self, _: VendorRequest, file_id: str) -> bytes:
        return self.content(file_id)

    @route("DELETE", "/files/{file_id}")
    def delete_file(self, _: VendorRequest, file_id: str) -> JsonValue:
        del self.files[self._file(file_id).id]
        return {"id": file_id, "object": "file", "deleted": True}

    def content(self, file_id: str) -> bytes:
        """Return the content of a file."""
        return self._file(file_id).content

    def store_file(self, name: str, purpose: str, content: bytes) -> str:
        """Keep a file, be it sent or made here, and return its id."""
        self.file_count += 1
        file_id = f"file-{self.file_count:024d}"
        self.files[file_id] = LoopbackFile(file_id, name, purpose, content, int(time.time()))
        return file_id

    def _file(self, file_id: str) -> LoopbackFile:
        if file_id not in self.files:
            raise Refused(404, f"No such File object: {file_id}", param="id")
        return self.files[file_id]
