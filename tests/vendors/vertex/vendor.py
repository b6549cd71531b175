"""Vertex AI on loopback: tuning jobs and answers as its REST interface has them.

One server plays Vertex AI and Cloud Storage (`storage`), as the backend's two SDKs see them. Tuned
models (`models`), tuning jobs (`jobs`) and batches (`batches`) are classes, each upon the one
before; here are the key and the form of errors. It speaks ``v1beta1`` for tuning and answering, and
``v1`` for models and endpoints.

    with serve(VertexVendor(ServerBehavior(steps=2))) as server:
        for name, value in environment(server.url).items():
            monkeypatch.setenv(name, value)
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest, VendorResponse
from unitune.testing.omissions import Shape
from unitune.testing.vendor_setup import Refused
from vendors import shapes
from vendors.vertex.batches import BatchJobs
from vendors.vertex.storage import BUCKET, StorageVendor

KEY = "loopback"
STATUSES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND"}


def environment(url: str) -> dict[str, str]:
    """Return the environment that leads the backend to a server of this kind."""
    return {
        "UNITUNE_VERTEX_BASE_URL": url,
        "STORAGE_EMULATOR_HOST": url,
        "UNITUNE_VERTEX_BUCKET": BUCKET,
        "GOOGLE_CLOUD_PROJECT": "my-project",
        "GOOGLE_CLOUD_LOCATION": "us-central1",
    }


class VertexVendor(BatchJobs):
    """Vertex AI with one bucket."""

    key = KEY
    wrong_key = StorageVendor.wrong_key
    no_route = "{path} is not found."
    unreadable = "Invalid JSON payload received. {error}"

    def answer(self, request: VendorRequest) -> VendorResponse:
        """Answer a request to Vertex AI or Cloud Storage."""
        if "/storage/v1/" in request.path:
            self.storage.key = self.key  # one token for both; a test may have changed it
            return self.storage.answer(request)
        return super().answer(request)

    def error(self, refusal: Refused) -> JsonValue:
        """As Google's APIs write it."""
        status = refusal.details.get("code", STATUSES[refusal.status])
        return {"error": {"code": refusal.status, "message": refusal.message, "status": status}}

    def shapes(self) -> Sequence[Shape]:
        """Answers of Vertex AI, by its SDK."""
        return shapes.vertex()
