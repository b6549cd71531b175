"""What goes wrong between unitune and AWS, and what becomes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("boto3", reason="needs the extra `bedrock`")

from botocore import exceptions as aws
from botocore.parsers import ResponseParserError
from vendors.bedrock.storage import S3Storage, s3_storage
from vendors.bedrock.vendor import BUCKET, BedrockVendor, environment

from unitune.backends.protocol import Launch, State
from unitune.data.example import Message
from unitune.errors import BackendError, UnituneError, Unreachable, UserError
from unitune.job.job import Data, Job
from unitune.models import Request
from unitune.testing.contract_base import reply_once
from unitune.testing.loopback import Fault, Server, VendorRequest, VendorResponse, serve
from unitune_providers.bedrock import clients as bedrock_clients
from unitune_providers.bedrock.backend import BedrockBackend
from unitune_providers.bedrock.chat import converse_request
from unitune_providers.bedrock.clients import aws_errors

KEY = "r251125-1k3fq7d0x2ab-1"
CREATE = "/model-customization-jobs$"
NOVA = "amazon.nova-micro-v1:0:128k"


@pytest.fixture(scope="module")
def storage() -> Iterator[S3Storage]:
    with s3_storage(BUCKET) as storage:
        yield storage


@pytest.fixture
def server(storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("READ_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(bedrock_clients, name, 0.5)
    monkeypatch.setattr(bedrock_clients, "ATTEMPTS", 1)
    with serve(BedrockVendor(storage)) as server:
        for name, value in environment(server.url, storage.url).items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def backend(server: Server) -> BedrockBackend:
    assert server.url
    return BedrockBackend()


@pytest.fixture
def launch(backend: BedrockBackend, tmp_path: Path) -> Launch:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"{}\n")
    rows = backend.upload(path, hashlib.sha256(b"{}\n").hexdigest())
    job = Job(name="faults", model=NOVA, backend="bedrock", data=Data(train="rows.jsonl"))
    return Launch(KEY, job, rows, None, tmp_path)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.RATE_LIMITED, BackendError),
        (Fault.SERVER_ERROR, BackendError),
        (Fault.SILENCE, Unreachable),
        (Fault.CUT, Unreachable),
        (Fault.SHORT, Unreachable),
    ],
)
def test_a_poll_that_fails_says_so_and_the_next_goes_on(
    backend: BedrockBackend,
    server: Server,
    launch: Launch,
    fault: Fault,
    kind: type[BackendError],
) -> None:
    job_id = backend.submit(launch)
    server.inject_fault(fault, "GET", "/model-customization-jobs/")
    with pytest.raises(BackendError, match="AWS could not read") as caught:
        backend.poll(job_id, "")

    assert kind is type(caught.value)
    assert not backend.poll(job_id, "").state.ended


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.SHORT])
def test_a_list_that_was_cut_is_not_an_empty_list(
    backend: BedrockBackend, server: Server, launch: Launch, fault: Fault
) -> None:
    backend.submit(launch)
    server.inject_fault(fault, "GET", CREATE, times=2)

    with pytest.raises(Unreachable):
        backend.find(KEY, launch.folder)
    with pytest.raises(Unreachable):
        backend.list_jobs("")


def test_what_may_be_repeated_is(
    backend: BedrockBackend, server: Server, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = backend.submit(launch)
    monkeypatch.setattr(bedrock_clients, "ATTEMPTS", 2)
    server.inject_fault(Fault.SERVER_ERROR, "GET", "/model-customization-jobs/")

    assert State.QUEUED is BedrockBackend().poll(job_id, "").state
    assert len(server.received("GET", "/model-customization-jobs/")) == 2


def test_a_create_call_is_never_repeated_whatever_reads_may(
    server: Server, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bedrock_clients, "ATTEMPTS", 5)
    server.inject_fault(Fault.SERVER_ERROR, "POST", CREATE)
    with pytest.raises(BackendError):
        BedrockBackend().submit(launch)
    assert len(server.received("POST", CREATE)) == 1


def test_nobody_listening_is_unreachable(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match="EndpointConnectionError"):
        BedrockBackend().submit(launch)
    assert server.requests == []


@pytest.mark.usefixtures("server")
def test_a_bucket_that_is_not_there_is_aws_saying_no(
    backend: BedrockBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_BEDROCK_BUCKET", "nobodys-bucket")
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"{}\n")
    with pytest.raises(BackendError, match="NoSuchBucket") as caught:
        backend.upload(path, "a" * 64)
    assert caught.value.status == 404


def test_a_tool_call_that_is_no_json_is_an_error_in_the_reply(backend: BedrockBackend) -> None:
    call: Any = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{"}}
    turns = (Message(role="user", content="?"), Message(role="assistant", tool_calls=(call,)))
    chat = backend.chat(NOVA)
    reply = reply_once(chat, Request(messages=turns))

    assert "cannot accept this request" in (reply.error or "")


def test_a_question_is_written_as_converse_takes_it() -> None:
    turns = (
        Message(role="system", content="Be brief."),
        Message(role="developer", content=""),
        Message(role="user", content="One."),
        Message(role="user", content="Two."),
        Message(role="assistant", content="Three."),
    )
    request = Request(messages=turns, max_tokens=5, temperature=0.5, stop=("x",), seed=3)

    assert converse_request("m", request) == {
        "modelId": "m",
        "system": [{"text": "Be brief."}],
        "messages": [
            {"role": "user", "content": [{"text": "One."}, {"text": "Two."}]},
            {"role": "assistant", "content": [{"text": "Three."}]},
        ],
        "inferenceConfig": {"maxTokens": 5, "temperature": 0.5, "stopSequences": ["x"]},
    }


class Cutting:
    """A vendor that answers in the middle of a word, and says why."""

    def answer(self, request: VendorRequest) -> VendorResponse:
        thinking = {"reasoningContent": {"reasoningText": {"text": "hm"}}}
        return VendorResponse(
            {
                "output": {
                    "message": {"role": "assistant", "content": [thinking, {"text": "whi"}]}
                },
                "stopReason": "max_tokens" if b"snow" in request.body else "content_filtered",
                "usage": {"inputTokens": 7, "outputTokens": 2, "totalTokens": 9},
                "metrics": {"latencyMs": 1},
            },
            headers={"x-amzn-RequestId": "r-1"},
        )


@pytest.mark.parametrize(("text", "finish"), [("snow", "length"), ("coal", "content_filtered")])
def test_an_answer_is_read_with_its_end_and_tokens(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch, text: str, finish: str
) -> None:
    with serve(Cutting()) as server:
        for name, value in environment(server.url, storage.url).items():
            monkeypatch.setenv(name, value)
        chat = BedrockBackend().chat(NOVA)
        reply = reply_once(chat, Request(messages=(Message(role="user", content=text),)))

    assert ("whi", finish, 7, 2) == (
        reply.text,
        reply.finish_reason,
        reply.prompt_tokens,
        reply.completion_tokens,
    )


def all_kinds(kind: type[aws.BotoCoreError]) -> Iterator[type[aws.BotoCoreError]]:
    for error in kind.__subclasses__():
        yield error
        yield from all_kinds(error)


def mapped(error: Exception) -> UnituneError:
    with pytest.raises(UnituneError) as caught, aws_errors("do it"):
        raise error
    return caught.value


@pytest.mark.parametrize(
    "kind", sorted(all_kinds(aws.BotoCoreError), key=lambda error: error.__name__)
)
def test_every_error_of_botocore_has_one_of_ours(kind: type[aws.BotoCoreError]) -> None:
    """What is no answer leaves the outcome open; all else happened before anything was sent."""
    error = mapped(kind.__new__(kind))

    no_answer = (aws.ConnectionError, aws.HTTPClientError, aws.IncompleteReadError)
    unreadable = (aws.ChecksumError, aws.FlexibleChecksumError)
    expected: type[UnituneError] = UserError
    if issubclass(kind, (*no_answer, *unreadable)):
        expected = Unreachable
    elif issubclass(kind, aws.PaginationError):
        expected = BackendError
    assert expected is type(error)


@pytest.mark.parametrize("error", [ResponseParserError("no XML"), TypeError("no object")])
def test_an_answer_that_cannot_be_read_is_unreachable(error: Exception) -> None:
    assert Unreachable is type(mapped(error))


def test_a_complaint_about_a_signature_does_not_quote_the_request() -> None:
    message = "The signature does not match.\n\nThe Canonical String was\nx-amz-security-token:hush"
    response: Any = {
        "Error": {"Code": "InvalidSignatureException", "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": 403, "RequestId": "r-1"},
    }
    error = mapped(aws.ClientError(response, "GetModelCustomizationJob"))

    assert "hush" not in str(error)
    assert "AWS_SECRET_ACCESS_KEY" in str(error)
    assert isinstance(error, BackendError)
    assert (error.status, error.request_id) == (403, "r-1")
