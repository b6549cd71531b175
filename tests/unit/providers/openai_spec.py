"""OpenAI on loopback for tests, and its published description to hold both sides against.

The description is read as JSON Schema after its OpenAPI 3.0 spellings are rewritten; it does not
close its objects, so what we send is also compared with the properties that it knows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from vendors.openai.vendor import KEY, OpenAIVendor
from vendors.shapes import OPENAI_PATH

from unitune.backends.protocol import Launch, State, Status, Upload
from unitune.job.job import Data, Job
from unitune.testing.loopback import Server, VendorRequest, VendorResponse, serve
from unitune.testing.vendor_setup import ServerBehavior
from unitune_providers.openai.backend import OpenAIBackend
from unitune_providers.openai.wire import WireBackend

DESCRIPTION = Path(__file__).parents[4] / "shared" / "specs" / "openai-openapi.json"
MODEL = "gpt-4.1-2025-04-14"
LAUNCH_KEY = "r0123456789abcdef-1"
CHAT_ROW = (
    '{"messages":[{"role":"user","content":"Colour of snow?"},'
    '{"role":"assistant","content":"white"}]}\n'
)
TRIPLE_ROW = (
    '{"input":{"messages":[{"role":"user","content":"Colour of snow?"}]},'
    '"preferred_output":[{"role":"assistant","content":"white"}],'
    '"non_preferred_output":[{"role":"assistant","content":"black"}]}\n'
)
GRADED_ROW = '{"messages":[{"role":"user","content":"Colour of snow?"}],"answer":"white"}\n'
GRADER = {
    "type": "string_check",
    "name": "same",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
}


@dataclass
class Recorder:
    """A vendor that remembers what it answered."""

    vendor: OpenAIVendor
    exchanges: list[tuple[VendorRequest, VendorResponse]] = field(default_factory=list)

    def answer(self, request: VendorRequest) -> VendorResponse:
        response = self.vendor.answer(request)
        self.exchanges.append((request, response))
        return response


@dataclass
class Stage:
    """A backend with the server that it speaks to."""

    backend: Any  # one of four; tests call what only some of them can
    vendor: OpenAIVendor
    server: Server
    recorder: Recorder
    folder: Path

    def launch(
        self,
        options: Mapping[str, Any] | None = None,
        *,
        key: str = LAUNCH_KEY,
        rows: str = CHAT_ROW * 10,
        job: Mapping[str, Any] | None = None,
    ) -> Launch:
        """Hand files over, and return what a submit needs."""
        made = self.job(options, **(job or {}))
        return Launch(
            key, made, self.upload("train.jsonl", rows), self.upload("v.jsonl", rows), self.folder
        )

    def job(self, options: Mapping[str, Any] | None = None, **settings: Any) -> Job:
        name = self.backend.name
        fixed = {"name": "colours", "model": self.vendor.bases[0], "backend": name}
        data, chosen = Data(train="train.jsonl"), {name: dict(options or {})}
        return Job.model_validate({**fixed, "data": data, "options": chosen, **settings})

    def upload(self, name: str, rows: str) -> Upload:
        path = self.folder / name
        path.write_text(rows, encoding="utf-8")
        return self.backend.upload(path, hashlib.sha256(rows.encode()).hexdigest())

    @property
    def newest(self) -> str:
        """The job that was created last."""
        return list(self.vendor.jobs)[-1]

    def submit(self, *args: Any, **settings: Any) -> str:
        return self.backend.submit(self.launch(*args, **settings))

    def follow(self, job_id: str) -> list[Status]:
        """Poll a job until it has ended."""
        statuses = [self.backend.poll(job_id, "")]
        while not statuses[-1].state.ended:
            assert len(statuses) < 50, statuses[-1]
            statuses.append(self.backend.poll(job_id, statuses[-1].cursor))
        return statuses

    def succeed(self, *args: Any, **settings: Any) -> str:
        job_id = self.submit(*args, **settings)
        assert State.SUCCEEDED is self.follow(job_id)[-1].state
        return job_id


@contextmanager
def on_stage(
    folder: Path,
    patch: pytest.MonkeyPatch,
    vendor: OpenAIVendor | None = None,
    backend: WireBackend[Any] | None = None,
) -> Iterator[Stage]:
    """Serve a vendor, and let the environment lead OpenAI's backend there."""
    vendor = vendor or OpenAIVendor(ServerBehavior(steps=4))
    recorder = Recorder(vendor)
    with serve(recorder) as server:
        patch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        patch.setenv("OPENAI_API_KEY", KEY)
        patch.setattr("unitune_providers.openai.backend.OPENAI_URL", f"{server.url}/v1")
        yield Stage(backend or OpenAIBackend(), vendor, server, recorder, folder)


@cache
def description() -> dict[str, Any]:
    """Return OpenAI's published description, as JSON Schema can read it."""
    return _rewritten(json.loads(DESCRIPTION.read_text(encoding="utf-8")))


def problems(request: VendorRequest, response: VendorResponse) -> list[str]:
    """Return what is wrong with an exchange by the description."""
    operation, path = _operation(request)
    wrong = [] if operation else [f"{request.method} {path} is not described"]
    parameters = {parameter["name"] for parameter in operation.get("parameters", ())}
    given = {name.partition("[")[0] for name in request.query}
    wrong += [f"unknown query parameter {name}" for name in sorted(given - parameters)]
    if request.headers.get("content-type", "").startswith("application/json") and request.body:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        wrong += _invalid(schema, request.json) + _unknown_keys(schema, request.json)
    if response.status != 200:
        return wrong + _invalid({"$ref": "#/components/schemas/ErrorResponse"}, response.content)
    if not isinstance(response.content, bytes):
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        wrong += _invalid(schema, _with_hyperparameters(response.content))
    return wrong


def _with_hyperparameters(content: Any) -> Any:
    """Add what the schema of a job requires and its own text and examples do not have.

    "This value will only be returned when running `supervised` jobs": null in the example of dpo,
    absent in that of reinforcement.
    """
    if not isinstance(content, dict):
        return content
    if isinstance(content.get("data"), list):
        return {**content, "data": [_with_hyperparameters(item) for item in content["data"]]}
    if content.get("object") != "fine_tuning.job" or "method" not in content:
        return content
    supervised = content["method"]["type"] == "supervised"
    return content if supervised else {**content, "hyperparameters": {}}


def problems_of(name: str, value: Any) -> list[str]:
    """Return what is wrong with a value by a schema of the description."""
    schema = {"$ref": f"#/components/schemas/{name}"}
    return _invalid(schema, value) + _unknown_keys(schema, value)


def _operation(request: VendorRequest) -> tuple[dict[str, Any], str]:
    path = re.sub(f"^{OPENAI_PATH}", "", request.path)
    for template, operations in description()["paths"].items():
        pattern = re.sub(r"\{[^}]+\}", "[^/]+", template)
        if re.fullmatch(pattern, path) and request.method.lower() in operations:
            return operations[request.method.lower()], path
    return {}, path


def _invalid(schema: dict[str, Any], value: Any) -> list[str]:
    whole = {**schema, "components": description()["components"]}
    errors = Draft202012Validator(whole).iter_errors(value)
    return [f"{error.json_path}: {error.message[:200]}" for error in errors]


def _unknown_keys(schema: dict[str, Any], value: Any, at: str = "$") -> list[str]:
    """Return the keys that no branch of a schema knows."""
    if not isinstance(value, dict):
        return []
    known = _properties(schema)
    if known is None:
        return []
    unknown = [f"{at}.{key} is not described" for key in value if key not in known]
    for key in value.keys() & known.keys():
        unknown += _unknown_keys(known[key], value[key], f"{at}.{key}")
    return unknown


def _properties(schema: dict[str, Any]) -> dict[str, Any] | None:
    """Return the properties of all branches; None where any key is allowed."""
    if "$ref" in schema:
        return _properties(description()["components"]["schemas"][schema["$ref"].split("/")[-1]])
    branches = [*schema.get("allOf", ()), *schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if schema.get("additionalProperties") or not (branches or "properties" in schema):
        return None
    properties = dict(schema.get("properties", {}))
    for branch in branches:
        inner = _properties(branch)
        if inner is None and branch.get("type") in ("object", None):
            return None
        properties |= inner or {}
    return properties


def _rewritten(value: Any) -> Any:
    """Rewrite `nullable` and Boolean `exclusiveMinimum`, which JSON Schema has no more."""
    if isinstance(value, list):
        return [_rewritten(item) for item in value]
    if not isinstance(value, dict):
        return value
    new = {key: _rewritten(item) for key, item in value.items()}
    if new.get("exclusiveMinimum") is True:
        new["exclusiveMinimum"] = new.pop("minimum")
    if new.pop("nullable", None) is True:
        return {"anyOf": [new, {"type": "null"}]}
    return new
