"""Training files at Together: named by their hash, found again, and looked at until they are valid.

Together takes a file in three steps (a place to send it to, the bytes, "look at it now"), which the
SDK does, and then validates it on its own time. An interrupted upload is taken up where it stands:
a file whose bytes never arrived is sent again, one that was never looked at is looked at.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from together.types import FileResponse

from unitune.errors import BackendError, Unreachable
from unitune_providers.together.client import Connection, translated

LOOK_SECONDS = 2.0
"""Between two looks at a file that is being validated."""
PATIENCE_SECONDS = 1800.0
"""After that an upload gives up, and can be repeated; large files take minutes."""
WAITING = ("PENDING", "QUEUED", "RUNNING")
REFUSED = ("FAILED", "INVALID_FORMAT")
CANNOT_LOOK = (400, 404, 409, 422)
"""Answers to "look at it now" that say no more than that it is being looked at, or was."""


def remote_name(sha256: str) -> str:
    """Return the name of a file at Together, by the hash of its content."""
    return f"unitune-{sha256[:32]}.jsonl"


def put(connection: Connection, path: Path, sha256: str) -> str:
    """Hand a file over unless it is there, wait until it is valid, and return its id.

    Args:
        connection: To Together.
        path: The file, in Together's format.
        sha256: Hash of its content.

    Raises:
        BackendError: The file is not valid; the message is Together's report.
        Unreachable: It was still being validated when patience ended.
    """
    file = _there(connection, remote_name(sha256), path.stat().st_size)
    if file is None:
        file = _sent(connection, path, remote_name(sha256))
    elif file.processing_status == "PENDING":
        _look_now(connection, file)
    return _validated(connection, file).id


def _there(connection: Connection, name: str, size: int) -> FileResponse | None:
    with translated("list the uploaded files"):
        files = connection.reads.files.list().data
    return next((file for file in files if file.filename == name and file.bytes == size), None)


def _sent(connection: Connection, path: Path, name: str) -> FileResponse:
    with TemporaryDirectory() as folder, translated(f"take the file {path.name}"):
        # The SDK calls a file what its path calls it.
        named = Path(folder) / name
        named.symlink_to(path.resolve())
        # Unchecked, because the core has checked the rows and Together will: the SDK's own check
        # reads the whole file into memory once more.
        return connection.writes.files.upload(named, purpose="fine-tune", check=False)


def _look_now(connection: Connection, file: FileResponse) -> None:
    """Ask for the validation of a file whose upload may have ended before its last step."""
    try:
        with translated(f"validate file {file.id}"):
            connection.writes.post(f"/v1/files/{file.id}/preprocess", cast_to=FileResponse)
    except BackendError as error:
        if error.status not in CANNOT_LOOK:
            raise


def _validated(connection: Connection, file: FileResponse) -> FileResponse:
    until = time.monotonic() + PATIENCE_SECONDS
    while file.processing_status in WAITING:
        if time.monotonic() > until:
            raise Unreachable(
                f"together is still validating file {file.id} ({file.processing_status}) after "
                f"{PATIENCE_SECONDS:.0f} seconds. Go on later; it is not sent again."
            )
        time.sleep(LOOK_SECONDS)
        with translated(f"look at file {file.id}"):
            file = connection.reads.files.retrieve(file.id)
    if file.processing_status in REFUSED:
        raise BackendError(_refusal(file), status=400)
    return file


def _refusal(file: FileResponse) -> str:
    report = file.validation_report
    reason = (report.error if report else None) or "no reason given"
    return (
        f"together refused file {file.filename} ({file.id}, {cast('str', file.processing_status)}):"
        f" {reason}. Mend the rows and launch again."
    )
