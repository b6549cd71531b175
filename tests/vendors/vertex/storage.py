"""Cloud Storage on loopback: the small part of its JSON API that the backend uses.

Objects can be written, only where none stands if that is requested (``ifGenerationMatch=0``), read,
listed and removed.

Source: Google's documentation of the JSON API.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest, VendorResponse
from unitune.testing.vendor_setup import Refused, RoutedVendor, route

BUCKET = "unitune-test"
OBJECTS = "/storage/v1/b/{bucket}/o"
OBJECT = f"{OBJECTS}/{{name:.+}}"
LISTED = 1000
"""Objects on a page of a list."""
REASONS = {401: "authError", 404: "notFound", 412: "conditionNotMet"}


@dataclass(frozen=True, slots=True)
class Stored:
    """One object."""

    content: bytes
    generation: int  # number of its writing


class StorageVendor(RoutedVendor):
    """Cloud Storage with one bucket; its key is that of Vertex AI."""

    wrong_key = "Request had invalid authentication credentials."
    no_route = "No such method: {method} {path}"
    unreadable = "Invalid request: {error}"

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, Stored] = {}
        """By ``gs://BUCKET/NAME``."""
        self._numbers = itertools.count(1_700_000_000_000_001)

    def error(self, refusal: Refused) -> JsonValue:
        """As the JSON API writes it."""
        reason = REASONS.get(refusal.status, "invalid")
        detail: JsonValue = {"message": refusal.message, "domain": "global", "reason": reason}
        return {"error": {"code": refusal.status, "message": refusal.message, "errors": [detail]}}

    def put(self, uri: str, content: bytes) -> None:
        """Write an object, as a service of Google's would."""
        self.objects[uri] = Stored(content, next(self._numbers))

    @route("POST", f"/upload{OBJECTS}")
    def upload(self, request: VendorRequest, bucket: str) -> JsonValue:
        name = request.first("name")
        if bucket != BUCKET:
            raise Refused(404, "The specified bucket does not exist.")
        if request.first("uploadType") != "media" or not name:
            raise Refused(400, "An upload of this kind needs uploadType=media and a name.")
        uri = f"gs://{bucket}/{name}"
        if request.first("ifGenerationMatch") == "0" and uri in self.objects:
            raise Refused(412, "At least one of the pre-conditions did not hold.")
        self.put(uri, request.body)
        return _resource(bucket, name, self.objects[uri])

    @route("GET", OBJECTS)
    def list_objects(self, request: VendorRequest, bucket: str) -> JsonValue:
        """Show a page of a bucket's objects, by name."""
        prefix = f"gs://{bucket}/{request.first('prefix') or ''}"
        uris = sorted(uri for uri in self.objects if uri.startswith(prefix))
        start = request.number("pageToken", 0)
        items: list[JsonValue] = [
            _resource(bucket, uri.removeprefix(f"gs://{bucket}/"), self.objects[uri])
            for uri in uris[start : start + LISTED]
        ]
        page: dict[str, JsonValue] = {"kind": "storage#objects", "items": items}
        more = start + LISTED < len(uris)
        return {**page, "nextPageToken": str(start + LISTED)} if more else page

    @route("GET", OBJECT)
    def object(self, request: VendorRequest, bucket: str, name: str) -> JsonValue | VendorResponse:
        stored = self.objects[self._uri(bucket, name)]
        if request.first("alt") == "media":
            return VendorResponse(stored.content)
        return _resource(bucket, name, stored)

    @route("DELETE", OBJECT)
    def delete_object(self, _: VendorRequest, bucket: str, name: str) -> VendorResponse:
        del self.objects[self._uri(bucket, name)]
        return VendorResponse(b"", 204)

    def _uri(self, bucket: str, name: str) -> str:
        uri = f"gs://{bucket}/{name}"
        if uri not in self.objects:
            raise Refused(404, f"No such object: {bucket}/{name}")
        return uri


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
