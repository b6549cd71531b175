"""Files at OpenAI: multipart bodies in, content out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import HTTP

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest
from vendors.openai.checks import Refused
from vendors.openai.lists import Json

MOST_BYTES = {"fine-tune": 512 << 20, "batch": 200 << 20}
"""By purpose, of those whose files are JSON lines."""


@dataclass(frozen=True, slots=True)
class LoopbackFile:
    """A file as it was sent.

    Args:
        id: As the vendor names it.
        name: As the sender named it.
        purpose: What for.
        content: As sent.
        created: Seconds since 1970, UTC.
    """

    id: str
    name: str
    purpose: str
    content: bytes
    created: int

    def as_json(self, status: str = "processed") -> Json:
        """Return the file as the vendor tells it.

        Args:
            status: uploaded, processed or error; on Azure pending and running too.
        """
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": self.created,
            "filename": self.name,
            "purpose": self.purpose,
            "status": status,
        }


@dataclass(slots=True)
class FileShelf:
    """All files, by id, oldest first.

    Args:
        stored: Those that are there.
        count: How many there ever were.
        statuses: What the next looks at files show, as on a vendor that looks through them first.
        details: Why a file has the status error.
    """

    stored: dict[str, LoopbackFile] = field(default_factory=dict[str, LoopbackFile])
    count: int = 0
    statuses: list[str] = field(default_factory=list[str])
    details: str | None = None

    def keep(self, asked: VendorRequest) -> JsonValue:
        """Keep the file of a multipart request.

        Raises:
            Refused: It is not what the vendor takes.
        """
        parts = _parts(asked)
        if "purpose" not in parts:
            raise Refused("'purpose' is a required property")
        if "file" not in parts:
            raise Refused("'file' is a required property")
        name, content = parts["file"]
        purpose = parts["purpose"][1].decode()
        if purpose not in ("fine-tune", "batch", "assistants", "vision", "user_data", "evals"):
            raise Refused(f"'{purpose}' is not one of the purposes", param="purpose")
        if purpose in MOST_BYTES and not name.endswith(".jsonl"):
            raise Refused(f"Invalid file format: files for {purpose} must end in .jsonl")
        if not content and purpose == "fine-tune":
            raise Refused("The file is empty.", param="file")
        most = MOST_BYTES.get(purpose, MOST_BYTES["fine-tune"])
        if len(content) > most:
            raise Refused(f"The file is larger than {most >> 20} MB", 413)
        return self.shown(self.put(name, purpose, content))

    def put(self, name: str, purpose: str, content: bytes) -> str:
        """Keep a file, be it sent or made here, and return its id.

        Args:
            name: Its name.
            purpose: What for.
            content: What stands in it.
        """
        self.count += 1
        kept = LoopbackFile(f"file-{self.count:024d}", name, purpose, content, int(time.time()))
        self.stored[kept.id] = kept
        return kept.id

    def listed(self, purpose: str | None) -> list[Json]:
        """Return files as the vendor lists them, the newest first."""
        newest = reversed(self.stored.values())
        return [file.as_json() for file in newest if purpose in (None, file.purpose)]

    def shown(self, file_id: str) -> Json:
        """Return a file as a look at it shows it.

        Raises:
            Refused: It is not there.
        """
        told = self.at(file_id).as_json(self.statuses.pop(0) if self.statuses else "processed")
        return {**told, **({"status_details": self.details} if self.details else {})}

    def at(self, file_id: str) -> LoopbackFile:
        """Return a file.

        Raises:
            Refused: It is not there.
        """
        if file_id not in self.stored:
            raise Refused(f"No such File object: {file_id}", 404, param="id")
        return self.stored[file_id]

    def forget(self, file_id: str) -> JsonValue:
        """Remove a file.

        Raises:
            Refused: It is not there.
        """
        del self.stored[self.at(file_id).id]
        return {"id": file_id, "object": "file", "deleted": True}


def _parts(asked: VendorRequest) -> dict[str, tuple[str, bytes]]:
    """Return file name and content of each part, by the part's name."""
    head = f"Content-Type: {asked.headers.get('content-type', '')}\r\n\r\n".encode()
    message = message_from_bytes(head + asked.body, policy=HTTP)
    found: dict[str, tuple[str, bytes]] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(content, bytes):
            found[name] = (part.get_filename() or "", content)
    return found
