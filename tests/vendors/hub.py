"""The Hugging Face Hub on loopback, as huggingface_hub 2.4 speaks to it to push a model.

Repositories, preupload, Git LFS, commits, refs and tags. Strict: bodies hold what the client's own
source sends and nothing else; a large file is in a commit only once its content has come, with the
hash that it was announced by; a commit that names another parent than the newest one is refused.

Source: huggingface_hub 2.4.0: hf_api.py (create_repo, model_info, create_tag, list_repo_refs,
whoami, _validate_yaml), _commit_api.py (_fetch_upload_modes, _send_commit), lfs.py; the API of Git
LFS: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md (2026-11-28).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest, VendorResponse
from unitune.testing.vendor_setup import Refused, RoutedVendor, route

KEY = "hf_loopback"
ACCOUNT = "ana"
LARGE = (".safetensors", ".gguf", ".bin")
LFS_TYPE = "application/vnd.git-lfs+json"
REPOSITORY = "/api/models/{owner}/{name}"
SIGNED = "/lfs-storage/"
"""Where content is put: the address is signed, and carries no token."""


Commit = tuple[str, dict[str, str]]
"""A commit's hash, and all files of it by path, each with the hash of its content."""


@dataclass(slots=True)
class Repository:
    """A repository: its commits, the oldest first, and its tags."""

    private: bool
    commits: list[tuple[str, dict[str, str]]] = field(
        default_factory=list[tuple[str, dict[str, str]]]
    )
    tags: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, str]:
        return self.commits[-1][1]

    def commit(self, files: dict[str, str]) -> str:
        text = json.dumps([len(self.commits), files], sort_keys=True)
        self.commits.append((hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), files))
        return self.head


class HubVendor(RoutedVendor):
    """The hub, with one account; `organisations` may be written to besides."""

    key = KEY
    organisations = ("acme",)

    def __init__(self) -> None:
        super().__init__()
        self.url = ""
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}
        """Content by its hash: SHA-256 of large files, Git's of others."""

    def check_key(self, request: VendorRequest) -> None:
        if not request.path.startswith(SIGNED):
            super().check_key(request)

    def refuse(self, refusal: Refused) -> VendorResponse:
        headers = {"X-Error-Message": refusal.message, **refusal.details}
        return VendorResponse({"error": refusal.message}, refusal.status, headers)

    @route("GET", "/api/whoami-v2")
    def whoami(self, _: VendorRequest) -> JsonValue:
        return {
            "type": "user",
            "name": ACCOUNT,
            "orgs": [{"name": each} for each in self.organisations],
        }

    @route("POST", "/api/repos/create")
    def create(self, request: VendorRequest) -> JsonValue:
        body = _exactly(request.json, {"name", "organization", "visibility"})
        owner = body["organization"] or ACCOUNT
        self._may_write(owner)
        full = f"{owner}/{body['name']}"
        if full in self.repositories:
            raise Refused(409, "You already created this model repo")
        if body["visibility"] not in ("private", "public"):
            raise Refused(400, "Invalid visibility")
        self.repositories[full] = made = Repository(body["visibility"] == "private")
        made.commit({".gitattributes": self._store(b"*.safetensors filter=lfs\n")})
        return {"url": f"{self.url}/{full}", "name": full}

    @route("GET", REPOSITORY)
    def model(self, _: VendorRequest, owner: str, name: str) -> JsonValue:
        found = self._existing(owner, name)
        siblings: list[JsonValue] = [{"rfilename": path} for path in found.files]
        return {
            "id": f"{owner}/{name}",
            "sha": found.head,
            "private": found.private,
            "siblings": siblings,
        }

    @route("GET", f"{REPOSITORY}/revision/{{revision}}")
    def revision(self, request: VendorRequest, owner: str, name: str, revision: str) -> JsonValue:
        _check_revision(revision)
        return self.model(request, owner, name)

    @route("POST", "/api/validate-yaml")
    def validate(self, request: VendorRequest) -> JsonValue:
        body = _exactly(request.json, {"content", "repoType"})
        match = re.match(r"---\n(.*?)\n---\n", body["content"], re.DOTALL)
        if match is None or not isinstance(yaml.safe_load(match[1]), dict):
            raise Refused(400, "Invalid metadata")
        return {"errors": [], "warnings": []}

    @route("POST", f"{REPOSITORY}/preupload/{{revision}}")
    def preupload(self, request: VendorRequest, owner: str, name: str, revision: str) -> JsonValue:
        found = self._writable(owner, name, revision)
        answers: list[JsonValue] = []
        for file in _exactly(request.json, {"files"})["files"]:
            path = _exactly(file, {"path", "sample", "size"})["path"]
            if len(base64.b64decode(file["sample"], validate=True)) != min(file["size"], 512):
                raise Refused(400, "the sample must be the first 512 bytes")
            mode = "lfs" if path.endswith(LARGE) else "regular"
            known: dict[str, JsonValue] = {"oid": found.files[path]} if path in found.files else {}
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **known})
        return {"files": answers}

    @route("POST", "/{owner}/{name}.git/info/lfs/objects/batch")
    def batch(self, request: VendorRequest, owner: str, name: str) -> JsonValue:
        self._writable(owner, name, "main")
        body = _exactly(request.json, {"operation", "transfers", "objects", "hash_algo", "ref"})
        if request.headers.get("accept") != LFS_TYPE or body["operation"] != "upload":
            raise Refused(422, "not a request of the LFS batch API")
        objects: list[JsonValue] = []
        for each in body["objects"]:
            oid, size = (_exactly(each, {"oid", "size"})[part] for part in ("oid", "size"))
            answer: dict[str, JsonValue] = {"oid": oid, "size": size, "authenticated": True}
            if oid not in self.stored:
                answer["actions"] = {
                    "upload": {"href": f"{self.url}{SIGNED}{oid}?size={size}"},
                    "verify": {"href": f"{self.url}/{owner}/{name}.git/info/lfs/verify"},
                }
            objects.append(answer)
        return {"transfer": "basic", "objects": objects}

    @route("PUT", f"{SIGNED}{{oid}}")
    def put(self, request: VendorRequest, oid: str) -> VendorResponse:
        if "authorization" in request.headers:
            raise Refused(400, "a signed address takes no token")
        if hashlib.sha256(request.body).hexdigest() != oid:
            raise Refused(400, "the content has another hash")
        self.stored[oid] = request.body
        return VendorResponse(b"")

    @route("POST", "/{owner}/{name}.git/info/lfs/verify")
    def verify(self, request: VendorRequest, owner: str, name: str) -> JsonValue:
        self._writable(owner, name, "main")
        body = _exactly(request.json, {"oid", "size"})
        if len(self.stored.get(body["oid"], b"")) != body["size"]:
            raise Refused(404, "there is no such object")
        return {}

    @route("POST", f"{REPOSITORY}/commit/{{revision}}")
    def commit(self, request: VendorRequest, owner: str, name: str, revision: str) -> JsonValue:
        found = self._writable(owner, name, revision)
        header, *lines = (json.loads(line) for line in request.body.splitlines())
        about = _exactly(header["value"], {"summary", "description", "parentCommit"})
        if header["key"] != "header" or not about["summary"] or not lines:
            raise Refused(400, "a commit needs a summary, and something to commit")
        if about["parentCommit"] != found.head:
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        fresh = dict(self._added(line["key"], line["value"]) for line in lines)
        oid = found.commit({**found.files, **fresh})
        url = f"{self.url}/{owner}/{name}/commit/{oid}"
        return {"success": True, "commitOid": oid, "commitUrl": url}

    @route("GET", f"{REPOSITORY}/refs")
    def refs(self, _: VendorRequest, owner: str, name: str) -> JsonValue:
        found = self._existing(owner, name)
        tags: list[JsonValue] = [
            {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": oid}
            for tag, oid in found.tags.items()
        ]
        main: JsonValue = {"name": "main", "ref": "refs/heads/main", "targetCommit": found.head}
        return {"tags": tags, "branches": [main], "converts": []}

    @route("POST", f"{REPOSITORY}/tag/{{revision}}")
    def tag(self, request: VendorRequest, owner: str, name: str, revision: str) -> JsonValue:
        found = self._writable(owner, name, "main")
        if revision not in {oid for oid, _ in found.commits}:
            raise Refused(404, f"Invalid rev id: {revision}")
        tag = _exactly(request.json, {"tag"})["tag"]
        if tag in found.tags:
            raise Refused(409, f"Tag {tag} already exists")
        found.tags[tag] = revision
        return {}

    def content(self, repository: str, path: str) -> bytes:
        """Return what a file of a repository holds."""
        return self.stored[self.repositories[repository].files[path]]

    def _added(self, key: str, value: dict[str, Any]) -> tuple[str, str]:
        if key == "file":
            _exactly(value, {"content", "path", "encoding"})
            return value["path"], self._store(base64.b64decode(value["content"], validate=True))
        if key != "lfsFile":
            raise Refused(400, f"there is no {key!r} in a commit of a push")
        _exactly(value, {"path", "algo", "oid", "size"})
        if len(self.stored.get(value["oid"], b"")) != value["size"]:
            raise Refused(400, f"the content of {value['path']} was never uploaded")
        return value["path"], value["oid"]

    def _store(self, content: bytes) -> str:
        """Keep a small file by the hash that Git gives it."""
        blob = b"blob %d\0" % len(content) + content
        oid = hashlib.sha1(blob, usedforsecurity=False).hexdigest()
        self.stored[oid] = content
        return oid

    def _existing(self, owner: str, name: str) -> Repository:
        if (found := self.repositories.get(f"{owner}/{name}")) is None:
            raise Refused(404, "Repository not found", **{"X-Error-Code": "RepoNotFound"})
        return found

    def _writable(self, owner: str, name: str, revision: str) -> Repository:
        self._may_write(owner)
        _check_revision(revision)
        return self._existing(owner, name)

    def _may_write(self, owner: str) -> None:
        if owner not in (ACCOUNT, *self.organisations):
            raise Refused(403, f"You don't have the rights to create a model under {owner!r}")


def _check_revision(revision: str) -> None:
    if revision != "main":
        raise Refused(404, f"Invalid rev id: {revision}", **{"X-Error-Code": "RevisionNotFound"})


def _exactly(body: dict[str, Any], names: set[str]) -> dict[str, Any]:
    if body.keys() != names:
        raise Refused(400, f"expected {sorted(names)}, got {sorted(body)}")
    return body
