"""Cloud Storage on loopback: the small part of its JSON API that google-cloud-storage uses here.

Objects can be written in one request or in parts (resumable), only where none stands if that is
asked (``ifGenerationMatch=0``), read, looked at, listed and removed. Hashes are real, because the
client compares them.

Source: the requests of google-cloud-storage 3.17.1, and its documentation of the JSON API.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import json
import re
from dataclasses import dataclass
from typing import Any, cast

from pydantic import JsonValue

from unitune.testing.loopback import UNREADABLE, VendorRequest, VendorResponse

OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/(.+)")
LIST = re.compile(r"/storage/v1/b/([^/]+)/o")
UPLOAD = re.compile(r"(?:/upload|/resumable/upload)/storage/v1/b/([^/]+)/o")
CASTAGNOLI = 0x82F63B78
"""The polynomial of CRC-32C, reversed (RFC 3720)."""
EIGHT_STEPS = tuple(
    functools.reduce(
        lambda value, _: value >> 1 ^ (CASTAGNOLI if value & 1 else 0), range(8), first
    )
    for first in range(256)
)
"""What the polynomial makes of each byte."""
LISTED = 1000
"""Objects on a page of a list."""
REASONS = {401: "authError", 404: "notFound", 412: "conditionNotMet"}


@dataclass(frozen=True, slots=True)
class Stored:
    """One object.

    Args:
        content: Its bytes.
        generation: Number of its writing.
    """

    content: bytes
    generation: int


@dataclass(slots=True)
class _Sending:
    bucket: str
    name: str
    only_new: bool
    content: bytes = b""


class StorageVendor:
    """Buckets with their objects.

    Args:
        buckets: Those that exist.
    """

    def __init__(self, buckets: tuple[str, ...]) -> None:
        self.buckets = buckets
        self.objects: dict[str, Stored] = {}
        """By ``gs://BUCKET/NAME``."""
        self._sending: dict[str, _Sending] = {}
        self._sent: dict[str, VendorResponse] = {}
        self._numbers = itertools.count(1_700_000_000_000_001)

    def answer(self, asked: VendorRequest) -> VendorResponse:
        """Answer a request for a bucket."""
        try:
            return self._answer(asked)
        except UNREADABLE as problem:
            return storage_error(400, f"Invalid request: {problem}")

    def _answer(self, asked: VendorRequest) -> VendorResponse:
        if (found := UPLOAD.fullmatch(asked.path)) and asked.method in ("POST", "PUT"):
            return self._upload(asked, found[1])
        if (found := LIST.fullmatch(asked.path)) and asked.method == "GET":
            return self._list(asked, found[1])
        if found := OBJECT.fullmatch(asked.path):
            return self._object(asked, found[1], found[2])
        return storage_error(404, f"No such method: {asked.method} {asked.path}")

    def put(self, uri: str, content: bytes) -> None:
        """Write an object, as a service of Google's would."""
        self.objects[uri] = Stored(content, next(self._numbers))

    def _list(self, asked: VendorRequest, bucket: str) -> VendorResponse:
        """Return a page of a bucket's objects, by name."""
        begins = f"gs://{bucket}/{asked.first('prefix') or ''}"
        found = sorted(uri for uri in self.objects if uri.startswith(begins))
        start = asked.number("pageToken", 0)
        items: list[JsonValue] = [
            _resource(bucket, uri.removeprefix(f"gs://{bucket}/"), self.objects[uri])
            for uri in found[start : start + LISTED]
        ]
        page: dict[str, JsonValue] = {"kind": "storage#objects", "items": items}
        more = start + LISTED < len(found)
        return VendorResponse({**page, "nextPageToken": str(start + LISTED)} if more else page)

    def _object(self, asked: VendorRequest, bucket: str, name: str) -> VendorResponse:
        uri = f"gs://{bucket}/{name}"
        stored = self.objects.get(uri)
        if stored is None:
            return storage_error(404, f"No such object: {bucket}/{name}")
        if asked.method == "DELETE":
            del self.objects[uri]
            return VendorResponse(b"", 204)
        if asked.first("alt") == "media":
            hashes = f"crc32c={crc32c(stored.content)},md5={md5(stored.content)}"
            headers = {"X-Goog-Hash": hashes, "X-Goog-Generation": str(stored.generation)}
            return VendorResponse(stored.content, headers=headers)
        return VendorResponse(_resource(bucket, name, stored))

    def _upload(self, asked: VendorRequest, bucket: str) -> VendorResponse:
        if bucket not in self.buckets:
            return storage_error(404, "The specified bucket does not exist.")
        if upload_id := asked.first("upload_id"):
            return self._part(asked, upload_id)
        only_new = asked.first("ifGenerationMatch") == "0"
        if asked.first("uploadType") == "resumable":
            return self._begin(asked, _Sending(bucket, str(asked.json["name"]), only_new))
        if asked.first("uploadType") == "media":
            return self._keep(_Sending(bucket, asked.first("name") or "", only_new, asked.body))
        metadata, content = _related(asked)
        return self._keep(_Sending(bucket, str(metadata["name"]), only_new, content))

    def _begin(self, asked: VendorRequest, sending: _Sending) -> VendorResponse:
        upload_id = str(next(self._numbers))
        self._sending[upload_id] = sending
        place = f"http://{asked.headers['host']}/upload/storage/v1/b/{sending.bucket}/o"
        location = f"{place}?uploadType=resumable&upload_id={upload_id}"
        return VendorResponse(b"", headers={"Location": location})

    def _part(self, asked: VendorRequest, upload_id: str) -> VendorResponse:
        if upload_id in self._sent:
            return self._sent[upload_id]
        sending = self._sending.get(upload_id)
        if sending is None:
            return storage_error(404, f"No such upload: {upload_id}")
        sending.content += asked.body
        total = asked.headers["content-range"].rpartition("/")[2]
        if total != str(len(sending.content)):
            return VendorResponse(b"", 308, {"Range": f"bytes=0-{len(sending.content) - 1}"})
        self._sent[upload_id] = self._keep(sending)
        return self._sent[upload_id]

    def _keep(self, sending: _Sending) -> VendorResponse:
        uri = f"gs://{sending.bucket}/{sending.name}"
        if sending.only_new and uri in self.objects:
            said = "At least one of the pre-conditions you specified did not hold."
            return storage_error(412, said)
        self.put(uri, sending.content)
        return VendorResponse(_resource(sending.bucket, sending.name, self.objects[uri]))


def storage_error(status: int, message: str) -> VendorResponse:
    """Return an error in the JSON API's shape."""
    reason = REASONS.get(status, "invalid")
    detail: JsonValue = {"message": message, "domain": "global", "reason": reason}
    return VendorResponse(
        {"error": {"code": status, "message": message, "errors": [detail]}}, status
    )


def md5(content: bytes) -> str:
    """Return the MD5 of a content, as Cloud Storage writes it."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def crc32c(content: bytes) -> str:
    """Return the CRC-32C of a content, as Cloud Storage writes it."""
    value = 0xFFFFFFFF
    for byte in content:
        value = value >> 8 ^ EIGHT_STEPS[(value ^ byte) & 0xFF]
    return base64.b64encode((value ^ 0xFFFFFFFF).to_bytes(4, "big")).decode()


def _resource(bucket: str, name: str, stored: Stored) -> JsonValue:
    return {
        "kind": "storage#object",
        "id": f"{bucket}/{name}/{stored.generation}",
        "name": name,
        "bucket": bucket,
        "generation": str(stored.generation),
        "metageneration": "1",
        "contentType": "application/jsonl",
        "size": str(len(stored.content)),
        "md5Hash": md5(stored.content),
        "crc32c": crc32c(stored.content),
    }


def _related(asked: VendorRequest) -> tuple[dict[str, Any], bytes]:
    """The two parts of an upload in one request: what is said of the object, and its content."""
    boundary = asked.headers["content-type"].partition("boundary=")[2].strip("\"'").encode()
    _, said, content, _ = asked.body.split(b"--" + boundary)
    metadata = cast("dict[str, Any]", json.loads(said.partition(b"\r\n\r\n")[2]))
    return metadata, content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
