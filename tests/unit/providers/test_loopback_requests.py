"""Servers that play vendors answer a broken request as the vendor does, and cut no connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

import pytest

pytest.importorskip("together", reason="needs the vendors' extras")
pytest.importorskip("google.genai", reason="needs the vendors' extras")
pytest.importorskip("boto3", reason="needs the vendors' extras")

from vendors import anthropic
from vendors.bedrock import vendor as bedrock
from vendors.openai import vendor as openai
from vendors.together import vendor as together
from vendors.vertex import vendor as vertex

from unitune.testing.loopback import Server, Vendor, serve

LOCATION = "/v1beta1/projects/p/locations/l"
BROKEN = {
    "no JSON": b"name=job",
    "cut": b'{"model": "a',
    "a list": b"[1, 2]",
    "a text": b'"job"',
    "deep": b"[" * 100_000,
    "not UTF-8": b'{"model": "\xff"}',
}
ODD = (
    {"model": 5, "messages": 7, "contents": 7, "requests": 7, "training_file": [], "tools": "x"},
    {"model": "claude-haiku-4-5", "max_tokens": "many", "messages": [5], "contents": [5]},
    {"supervisedTuningSpec": 4, "baseModel": ["x"], "jobName": {}, "hyperParameters": [1]},
    {"messages": [{"role": "user", "content": 5}], "max_tokens": 5, "requests": [{"params": 1}]},
)


class NoStorage:
    """An S3 with nothing in it."""

    def read(self, uri: str) -> bytes | None:
        del uri

    def write(self, uri: str, content: bytes) -> None:
        del uri, content


@dataclass(frozen=True)
class Play:
    """A vendor, how it is let in, where it takes bodies and pages, and how it words an error."""

    vendor: Callable[[], Vendor]
    headers: Mapping[str, str]
    bodies: tuple[str, ...]
    pages: tuple[str, ...]
    message: Callable[[Any], Any]


BEARER = {"authorization": f"Bearer {together.KEY}"}
PLAYS = {
    "openai": Play(
        openai.OpenAIVendor,
        {"authorization": f"Bearer {openai.KEY}"},
        ("/v1/fine_tuning/jobs", "/v1/chat/completions", "/v1/batches"),
        ("/v1/fine_tuning/jobs?limit=abc", "/v1/files?limit=abc"),
        lambda body: body["error"]["message"],
    ),
    "together": Play(
        together.TogetherVendor,
        BEARER,
        ("/v1/fine-tunes", "/v1/fine-tunes/estimate-price", "/v1/chat/completions"),
        (f"/v2/projects/{together.PROJECT_ID}/endpoints?after=abc",),
        lambda body: body["error"]["message"],
    ),
    "vertex": Play(
        vertex.VertexVendor,
        {"authorization": f"Bearer {vertex.KEY}"},
        (f"{LOCATION}/tuningJobs", f"{LOCATION}/batchPredictionJobs"),
        (f"{LOCATION}/tuningJobs?pageSize=abc", f"{LOCATION}/batchPredictionJobs?pageToken=abc"),
        lambda body: (body["error"]["code"] == 400) and body["error"]["message"],
    ),
    "bedrock": Play(
        lambda: bedrock.BedrockVendor(NoStorage()),
        {"authorization": f"AWS4-HMAC-SHA256 Credential={bedrock.KEY}/x"},
        (
            "/model-customization-jobs",
            "/model-customization/custom-model-deployments",
            "/model/amazon.nova-micro-v1:0/converse",
        ),
        ("/model-customization-jobs?maxResults=abc", "/model-customization-jobs?nextToken=abc"),
        lambda body: body["message"],
    ),
    "anthropic": Play(
        anthropic.AnthropicVendor,
        {"x-api-key": anthropic.KEY, "anthropic-version": "2023-06-01"},
        ("/v1/messages", "/v1/messages/count_tokens", "/v1/messages/batches"),
        ("/v1/messages/batches?limit=abc", "/v1/messages/batches?after_id=abc"),
        lambda body: (body["type"] == "error") and body["error"]["message"],
    ),
}


@pytest.fixture(params=sorted(PLAYS))
def play(request: pytest.FixtureRequest) -> Iterator[tuple[Play, Server]]:
    play = PLAYS[request.param]
    with serve(play.vendor()) as server:
        yield play, server


def answered(server: Server, play: Play, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """Return status and body; a cut connection raises."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    connection = HTTPConnection(host, int(port), timeout=10)
    try:
        headers = {**play.headers, "content-type": "application/json"}
        connection.request(method, path, body, headers)
        with connection.getresponse() as answer:
            return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_a_body_that_cannot_be_read_is_a_400_in_the_vendors_form(
    play: tuple[Play, Server], body: bytes
) -> None:
    kind, server = play
    for path in kind.bodies:
        status, content = answered(server, kind, "POST", path, body)
        assert status == 400, (path, content)
        assert kind.message(json.loads(content)), path


def test_a_body_of_another_shape_is_refused(play: tuple[Play, Server]) -> None:
    kind, server = play
    for path in kind.bodies:
        for odd in ODD:
            status, content = answered(server, kind, "POST", path, json.dumps(odd).encode())
            assert status in (400, 404, 422), (path, odd, content)
            assert json.loads(content)


def test_a_page_of_no_number_is_a_400_in_the_vendors_form(play: tuple[Play, Server]) -> None:
    kind, server = play
    for path in kind.pages:
        status, content = answered(server, kind, "GET", path, b"")
        assert status == 400, (path, content)
        assert kind.message(json.loads(content)), path
