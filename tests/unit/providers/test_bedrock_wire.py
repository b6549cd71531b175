"""Every request that boto3 sends for the backend, and every answer of the loopback server, is held
against botocore's model of Bedrock, with the patterns, enumerations and bounds that boto3 skips."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

pytest.importorskip("boto3", reason="needs the extra `bedrock`")

import botocore.session
from botocore.model import OperationModel, Shape
from vendors.bedrock.storage import S3Storage, s3_storage
from vendors.bedrock.vendor import BUCKET, BedrockVendor, environment

from unitune.backends.protocol import Launch
from unitune.data.example import Message
from unitune.errors import BackendError
from unitune.job.job import Data, Job, Tuning
from unitune.models import Request
from unitune.testing.contract_base import reply_once
from unitune.testing.loopback import VendorRequest, VendorResponse, serve
from unitune.testing.vendor_setup import ServerBehavior
from unitune_providers.bedrock.backend import BedrockBackend

COMMON_ERRORS = {"UnrecognizedClientException": 403}
"""AWS's errors of every service, which are in no model."""
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells it.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}


def problems(shape: Shape, value: Any, at: str) -> list[str]:
    """Return what botocore's model says against a value as it stands in JSON."""
    if shape.type_name == "structure":
        return structure_problems(shape, value, at)
    issues = bound_problems(shape, value, at)
    if shape.type_name == "list":
        for number, item in enumerate(value):
            issues += problems(shape.member, item, f"{at}[{number}]")
    if shape.type_name == "map":
        for key, item in value.items():
            issues += problems(shape.key, key, f"{at} key")
            issues += problems(shape.value, item, f"{at}.{key}")
    return issues


def structure_problems(shape: Any, value: Any, at: str) -> list[str]:
    if shape.is_document_type:
        return []
    if not isinstance(value, dict):
        return [f"{at} is no object"]
    issues = [f"{at}.{name} is not known" for name in value if name not in shape.members]
    issues += [f"{at}.{name} is missing" for name in shape.required_members if name not in value]
    if shape.is_tagged_union and len(value) != 1:
        issues.append(f"{at} must have one member, not {sorted(value)}")
    for name in value.keys() & shape.members.keys():
        issues += problems(shape.members[name], value[name], f"{at}.{name}")
    return issues


def bound_problems(shape: Any, value: Any, at: str) -> list[str]:
    kinds: dict[str, Any] = {
        "string": str,
        "timestamp": str,
        "integer": int,
        "long": int,
        "float": (int, float),
        "double": (int, float),
        "boolean": bool,
        "list": list,
        "map": dict,
    }
    if not isinstance(value, kinds[shape.type_name]):
        return [f"{at} is {value!r}, no {shape.type_name}"]
    facts, issues = shape.metadata, list[str]()
    size = value if isinstance(value, int | float) else len(value)
    if size < facts.get("min", size) or size > facts.get("max", size):
        issues.append(f"{at} is {value!r}, beyond {facts.get('min')} to {facts.get('max')}")
    if shape.type_name == "timestamp" and not re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", value):
        issues.append(f"{at} is {value!r}, no ISO 8601 time")
    if value not in facts.get("enum", [value]):
        issues.append(f"{at} is {value!r}, none of {facts['enum']}")
    if "pattern" in facts and not re.fullmatch(facts["pattern"], value):
        issues.append(f"{at} is {value!r}, against {facts['pattern']}")
    return issues


class Model:
    """Bedrock's operations, of both services."""

    def __init__(self) -> None:
        session = botocore.session.get_session()
        services = [session.get_service_model(name) for name in ("bedrock", "bedrock-runtime")]
        self.operations = [
            service.operation_model(name)
            for service in services
            for name in service.operation_names
        ]

    def operation(self, request: VendorRequest) -> tuple[OperationModel, dict[str, str]]:
        """Return which operation a request is, and the members in its path."""
        for operation in sorted(
            self.operations, key=lambda operation: -len(operation.http["requestUri"])
        ):
            template = operation.http["requestUri"].partition("?")[0]
            path = re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+)", re.escape(template))
            match = re.fullmatch(path, request.path)
            if match and operation.http["method"] == request.method:
                return operation, match.groupdict()
        raise AssertionError(f"no operation is {request.method} {request.path}")

    def request_problems(self, request: VendorRequest) -> list[str]:
        operation, members = self.operation(request)
        shape: Any = operation.input_shape
        given: dict[str, Any] = {**members, **request.json}
        by_query = {
            member.serialization["name"]: (name, member)
            for name, member in shape.members.items()
            if member.serialization.get("location") == "querystring"
        }
        for name, values in request.query.items():
            own, member = by_query[name]
            given[own] = int(values[0]) if member.type_name == "integer" else values[0]
        return problems(shape, given, f"{operation.name} request")

    def answer_problems(self, request: VendorRequest, answer: VendorResponse) -> list[str]:
        operation, _ = self.operation(request)
        at = f"{operation.name} answer"
        code = answer.headers.get("x-amzn-ErrorType")
        if code is not None:
            known = {
                error.name: error.metadata["error"]["httpStatusCode"]
                for error in operation.error_shapes
            }
            status = {**COMMON_ERRORS, **known}.get(code)
            return [] if status == answer.status else [f"{at}: {code} with {answer.status}"]
        if answer.status != operation.http["responseCode"]:
            return [f"{at} has status {answer.status}"]
        return problems(operation.output_shape, json.loads(answer.body), at)


@dataclass
class Recorded:
    """A vendor whose answers are kept."""

    vendor: BedrockVendor
    exchanges: list[tuple[VendorRequest, VendorResponse]] = field(default_factory=list)

    def answer(self, request: VendorRequest) -> VendorResponse:
        answer = self.vendor.answer(request)
        self.exchanges.append((request, answer))
        return answer


@pytest.fixture(scope="module")
def exchanges(
    tmp_path_factory: pytest.TempPathFactory,
) -> list[tuple[VendorRequest, VendorResponse]]:
    """All that was said while every verb of the backend was used, in good and in bad."""
    with s3_storage(BUCKET) as storage:
        return exchanges_with(storage, tmp_path_factory.mktemp("rows"))


def exchanges_with(storage: S3Storage, folder: Path) -> list[tuple[VendorRequest, VendorResponse]]:
    recorded = Recorded(BedrockVendor(storage, ServerBehavior(queued_polls=2, lists_repeat=True)))
    with serve(recorded) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(server.url, storage.url).items():
            patch.setenv(name, value)
        use_every_verb(BedrockBackend(), recorded.vendor, folder)
    return recorded.exchanges


def use_every_verb(backend: BedrockBackend, vendor: BedrockVendor, folder: Path) -> None:
    first = train(backend, folder, "r251125-1k3fq7d0x2ab-1", "amazon.nova-lite-v1:0")
    second = train(backend, folder, "r251125-1k3fq7d0x2ac-1", "amazon.nova-micro-v1:0")
    vendor.behavior.rejects_files = "Line 1 is not valid."
    train(backend, folder, "r251125-1k3fq7d0x2ad-12", "amazon.nova-2-lite-v1:0:256k")
    vendor.behavior.rejects_files = None
    stopped = backend.submit(
        launch(backend, folder, "r251125-1k3fq7d0x2ae-1", "amazon.nova-pro-v1:0")
    )
    backend.cancel(stopped)
    follow(backend, stopped)
    cursor = backend.list_jobs("").cursor
    while cursor:
        cursor = backend.list_jobs(cursor).cursor
    assert first is not None
    assert second is not None
    backend.import_job(vendor.jobs[0].arn)
    ref = backend.deploy(first, "r251125-1k3fq7d0x2ab-d1", {})
    backend.deploy(first, "r251125-1k3fq7d0x2ab-d1", {})
    while backend.deployment_status(ref, first).state != "ready":
        pass
    ask(backend, first)
    ask(backend, "amazon.nova-2-lite-v1:0:256k")
    backend.undeploy(ref)
    backend.undeploy(ref)
    backend.delete_model(first)
    backend.delete_model(first)
    for refused in (lambda: backend.poll("no-such-job", ""), lambda: backend.cancel(stopped)):
        with pytest.raises(BackendError):
            refused()


def train(backend: BedrockBackend, folder: Path, key: str, base: str) -> Any:
    job_id = backend.submit(launch(backend, folder, key, base))
    assert backend.find(key, folder) == [job_id]
    return follow(backend, job_id).model


def launch(backend: BedrockBackend, folder: Path, key: str, base: str) -> Launch:
    path = folder / "rows.jsonl"
    path.write_text('{"messages": []}\n')
    uploaded = backend.upload(path, "a" * 64)
    job = Job(
        name="held-against-the-model",
        model=base,
        backend="bedrock",
        data=Data(train="rows.jsonl"),
        tuning=Tuning(epochs=3, learning_rate=1e-5, warmup=0),
        options={"bedrock": {"kms_key": "alias/mine"}},
    )
    return Launch(key, job, uploaded, uploaded, folder)


def follow(backend: BedrockBackend, job_id: str) -> Any:
    status = backend.poll(job_id, "")
    while not status.state.ended:
        status = backend.poll(job_id, status.cursor)
    return status


def ask(backend: BedrockBackend, model: Any) -> None:
    called = {"id": "call-1", "type": "function"}
    called |= {"function": {"name": "weather", "arguments": '{"place": "Bonn"}'}}
    turns = (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Is it wet?"),
        Message(role="assistant", tool_calls=(called,)),
        Message(role="tool", tool_call_id="call-1", content="rain"),
        Message(role="user", content="So?"),
    )
    request = Request(messages=turns, tools=(WEATHER,), stop=("\n",), max_tokens=8)
    chat = backend.chat(model)
    reply = reply_once(chat, request)
    assert reply.error is None


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


def test_every_operation_of_the_backend_was_held(
    model: Model, exchanges: list[tuple[VendorRequest, VendorResponse]]
) -> None:
    used = {model.operation(request)[0].name for request, _ in exchanges}

    assert used == {
        "Converse",
        "CreateCustomModelDeployment",
        "CreateModelCustomizationJob",
        "DeleteCustomModel",
        "DeleteCustomModelDeployment",
        "GetCustomModelDeployment",
        "GetModelCustomizationJob",
        "ListCustomModelDeployments",
        "ListModelCustomizationJobs",
        "StopModelCustomizationJob",
    }


def test_every_request_fits_the_model(
    model: Model, exchanges: list[tuple[VendorRequest, VendorResponse]]
) -> None:
    assert [
        problem for request, _ in exchanges for problem in model.request_problems(request)
    ] == []


def test_every_answer_fits_the_model(
    model: Model, exchanges: list[tuple[VendorRequest, VendorResponse]]
) -> None:
    assert [
        problem
        for request, answer in exchanges
        for problem in model.answer_problems(request, answer)
    ] == []


def test_refusals_are_among_what_was_held(
    exchanges: list[tuple[VendorRequest, VendorResponse]],
) -> None:
    codes = {answer.headers.get("x-amzn-ErrorType") for _, answer in exchanges}

    assert codes == {None, "ConflictException", "ResourceNotFoundException"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"jobName": "-x"}, "jobName is '-x', against"),
        ({"jobName": "x" * 64}, "beyond 1 to 63"),
        ({"customizationType": "TUNING"}, "none of"),
        ({"hyperParameters": {"epochCount": 3}}, "is 3, no string"),
        ({"customModelName": "a--b"}, "customModelName is 'a--b', against"),
        ({"seed": 1}, "seed is not known"),
        ({"trainingDataConfig": {"s3Uri": "s3://A/x"}}, "s3Uri is 's3://A/x', against"),
        ({"jobTags": [{"key": "unitune"}]}, "jobTags[0].value is missing"),
    ],
)
def test_the_check_itself_finds_what_boto3_lets_through(
    model: Model,
    exchanges: list[tuple[VendorRequest, VendorResponse]],
    change: dict[str, Any],
    problem: str,
) -> None:
    request = next(
        request
        for request, _ in exchanges
        if request.path == "/model-customization-jobs" and request.body
    )
    changed = json.dumps({**request.json, **change}).encode()
    wrong = VendorRequest(request.method, request.path, parse_qs(""), request.headers, changed)

    (message,) = model.request_problems(wrong)
    assert problem in message


def test_nova_2_gets_no_validation_rows_and_others_do(
    exchanges: list[tuple[VendorRequest, VendorResponse]],
) -> None:
    created = [
        request.json
        for request, _ in exchanges
        if request.path == "/model-customization-jobs" and request.body
    ]

    assert {body["baseModelIdentifier"]: "validationDataConfig" in body for body in created} == {
        "amazon.nova-lite-v1:0:300k": True,
        "amazon.nova-micro-v1:0:128k": True,
        "amazon.nova-2-lite-v1:0:256k": False,
        "amazon.nova-pro-v1:0:300k": True,
    }
