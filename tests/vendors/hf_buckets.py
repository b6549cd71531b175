"""Hugging Face's storage buckets on loopback, for the SDK's own client.

Names of files are kept here. Their content is kept by hf_xet, the SDK's client of content storage,
in a folder that stands for the servers of Xet (``local://``); this double reads it back the same
way. One process at a time can open such a folder. Fields are those of huggingface_hub 2.4.0
(`BucketInfo`, `BucketFile`, `BucketFolder`).
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest, VendorResponse
from unitune.testing.vendor_setup import Refused, ServerBehavior, route
from vendors.hf_jobs import HfJobsVendor

DAY = "2026-12-01T00:00:00.000Z"


class BucketVendor(HfJobsVendor):
    """Jobs and at most one bucket of an account."""

    def __init__(self, folder: Path, behavior: ServerBehavior | None = None, **given: Any) -> None:
        super().__init__(folder, behavior, **given)
        self.content = folder / "xet"
        self.private: bool | None = None
        self.hashes: dict[str, str] = {}
        self.sizes: dict[str, int] = {}

    @property
    def address(self) -> str:
        """Address of the content storage."""
        self.content.mkdir(exist_ok=True)
        return f"local://{self.content}"

    @route("GET", "/api/buckets/{account}/{name}")
    def bucket(self, _: VendorRequest, account: str, name: str) -> JsonValue:
        self._check_exists()
        sizes = {"size": sum(self.sizes.values()), "totalFiles": len(self.hashes)}
        return {"id": f"{account}/{name}", "private": self.private, "createdAt": DAY, **sizes}

    @route("POST", "/api/buckets/{account}/{name}")
    def create_bucket(self, request: VendorRequest, account: str, name: str) -> JsonValue:
        if self.private is not None:
            raise Refused(409, "You already created this bucket")
        self.private = request.json.get("visibility") == "private"
        return {"url": f"https://huggingface.co/buckets/{account}/{name}"}

    @route("GET", "/api/buckets/{account}/{name}/xet-{kind:read|write}-token")
    def xet_token(self, _: VendorRequest, account: str, name: str, kind: str) -> VendorResponse:
        del account, name, kind
        self._check_exists()
        ends = int(time.time()) + 3600
        given: JsonValue = {"accessToken": "t", "exp": ends, "casUrl": self.address}
        headers = {
            "X-Xet-Cas-Url": self.address,
            "X-Xet-Access-Token": "t",
            "X-Xet-Token-Expiration": str(ends),
        }
        return VendorResponse(given, 200, headers)

    @route("GET", "/api/buckets/{account}/{name}/tree")
    def whole_tree(self, request: VendorRequest, account: str, name: str) -> JsonValue:
        return self.tree(request, account, name, "")

    @route("GET", "/api/buckets/{account}/{name}/tree/{prefix:.+}")
    def tree(self, request: VendorRequest, account: str, name: str, prefix: str) -> JsonValue:
        del account, name
        self._check_exists()
        recursive = request.query.get("recursive", ["false"])[0].lower() == "true"
        under = [path for path in sorted(self.hashes) if path.startswith(prefix)]
        if recursive:
            return [self._file(path) for path in under]
        depth = len(PurePosixPath(prefix).parts) + 1 if prefix else 1
        items: dict[str, JsonValue] = {}
        for path in under:
            parts = PurePosixPath(path).parts
            if len(parts) <= depth:
                items[path] = self._file(path)
            else:
                folder = "/".join(parts[:depth])
                items[folder] = {"type": "directory", "path": folder, "uploadedAt": DAY}
        return list(items.values())

    @route("POST", "/api/buckets/{account}/{name}/batch")
    def batch(self, request: VendorRequest, account: str, name: str) -> JsonValue:
        del account, name
        self._check_exists()
        for line in request.body.splitlines():
            self._apply(json.loads(line))
        return {"success": True, "failed": []}

    @route("GET", "/buckets/{account}/{name}/resolve/{path:.+}")
    def resolve(self, request: VendorRequest, account: str, name: str, path: str) -> VendorResponse:
        del account, name
        if path not in self.hashes:
            raise Refused(404, "Entry not found")
        content, wanted = self._read(path), request.headers.get("range")
        if wanted is None:
            return VendorResponse(content)
        begin, _, end = wanted.removeprefix("bytes=").partition("-")
        return VendorResponse(content[int(begin) : int(end) + 1], 206)

    def _check_exists(self) -> None:
        if self.private is None:
            raise Refused(404, "Bucket not found")

    def _file(self, path: str) -> JsonValue:
        size, given = self.sizes[path], self.hashes[path]
        times = {"mtime": DAY, "uploadedAt": DAY}
        return {"type": "file", "path": path, "size": size, "xetHash": given, **times}

    def _apply(self, act: Mapping[str, Any]) -> None:
        path = str(act["path"])
        if act["type"] == "deleteFile":
            self.hashes.pop(path, None)
            return
        self.hashes[path] = str(act["xetHash"])
        self.sizes[path] = len(self._read(path))

    def _read(self, path: str) -> bytes:
        import hf_xet  # noqa: PLC0415 - of the SDK  # pyright: ignore[reportMissingTypeStubs]

        sdk: Any = hf_xet

        with tempfile.TemporaryDirectory() as folder:
            to = f"{folder}/content"
            with sdk.XetSession().new_file_download_group(endpoint=self.address) as group:
                group.start_download_file(sdk.XetFileInfo(self.hashes[path]), to)
            return Path(to).read_bytes()
