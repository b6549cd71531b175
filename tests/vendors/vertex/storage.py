"""Cloud Storage on loopback: the small part of its JSON API that the backend uses.

Objects can be written, only where none stands if that is requested (``ifGenerationMatch=0``), read,
listed and removed.

Source: Google's documentation of the JSON API.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from pydantic import JsonValue

from unitune.testing.loopback import UNREADABLE, VendorRequest, VendorResponse

OBJECT = re.compile(r"/storage/v1/b/([^/]+)/o/(.+)")
LIST = re.compile(r"/storage/v1/b/([^/]+)/o")
UPLOAD = re.compile(r"/upload/storage/v1/b/([^/]+)/o")
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


class StorageVendor:
    """Buckets with their objects.

    Args:
        buckets: Those that exist.
    """

    def __init__(self, buckets: tuple[str, ...]) -> None:
        self.buckets = buckets
        self.objects: dict[str, Stored] = {}
        """By ``gs://BUCKET/NAME``."""
        self._numbers = itertools.count(1_700_000_000_000_001)

    def answer(self, asked: VendorRequest) -> VendorResponse:
        """Answer a request for a bucket."""
        try:
            return self._answer(asked)
        except UNREADABLE as problem:
            return storage_error(400, f"Invalid request: {problem}")

    def _answer(self, asked: VendorRequest) -> VendorResponse:
        if (found := UPLOAD.fullmatch(asked.path)) and asked.method == "POST":
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
            return VendorResponse(stored.content)
        return VendorResponse(_resource(bucket, name, stored))

    def _upload(self, asked: VendorRequest, bucket: str) -> VendorResponse:
        name = asked.first("name")
        if bucket not in self.buckets:
            return storage_error(404, "The specified bucket does not exist.")
        if asked.first("uploadType") != "media" or not name:
            return storage_error(400, "An upload of this kind needs uploadType=media and a name.")
        uri = f"gs://{bucket}/{name}"
        if asked.first("ifGenerationMatch") == "0" and uri in self.objects:
            return storage_error(412, "At least one of the pre-conditions did not hold.")
        self.put(uri, asked.body)
        return VendorResponse(_resource(bucket, name, self.objects[uri]))


def storage_error(status: int, message: str) -> VendorResponse:
    """Return an error in the JSON API's shape."""
    reason = REASONS.get(status, "invalid")
    detail: JsonValue = {"message": message, "domain": "global", "reason": reason}
    return VendorResponse(
        {"error": {"code": status, "message": message, "errors": [detail]}}, status
    )


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
    }
