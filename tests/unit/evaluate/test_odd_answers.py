"""Whatever a vendor answers, it is that question's answer or error, and can be written down."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

pytest.importorskip("together", reason="needs the vendors' extras")


from unitune.backends import registry, retry
from unitune.backends.kit.chat import open_server
from unitune.data.example import Message
from unitune.evaluate.inference import requests
from unitune.evaluate.inference.engine import Question, record_of
from unitune.evaluate.inference.journal import line_of, read_record
from unitune.evaluate.inference.requests import AdaptiveLimiter
from unitune.models import ChatModel, Reply, Request
from unitune.testing.loopback import VendorRequest, VendorResponse, serve
from unitune.workspace.user_settings import current

DEEP = b"[" * 100_000 + b"]" * 100_000
ASKED = Request(messages=(Message(role="user", content="Capital of France?"),))


def said(message: object, **others: object) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return json.dumps({"choices": [choice], **others}).encode()


BODIES: Mapping[str, tuple[int, bytes, str | None]] = {
    "a content filter": (200, b'{"choices":[{"index":0,"finish_reason":"content_filter"}]}', None),
    "content in parts": (200, said({"content": [{"type": "text", "text": "Paris"}]}), "Paris"),
    "no UTF-8": (200, b'{"choices":[{"message":{"content":"\xff"}}]}', None),
    "half a character": (200, said({"content": "a\ud800"}), "a\ufffd"),
    "half a character in an error": (400, b'{"error":{"message":"bad \\ud800"}}', None),
    "deep": (200, b'{"choices":' + DEEP + b"}", None),
    "deep error": (400, DEEP, None),
    "a choice that is a text": (200, b'{"choices":["x"]}', None),
    "a call without a function": (200, said({"tool_calls": [{"type": "function"}]}), ""),
    "usage that is a text": (
        200,
        said({"content": "Paris"}, usage={"prompt_tokens": "many"}),
        "Paris",
    ),
    "a prompt that Azure's filter refuses": (
        400,
        b'{"error":{"message":"The response was filtered.","code":"content_filter"}}',
        "",
    ),
    "a failed upstream": (
        200,
        b'{"choices":[{"message":{"content":""},"finish_reason":"error","error":{"code":502}}]}',
        None,
    ),
    "a page": (200, b"<html></html>", None),
    "a number": (200, b"1", None),
}


class Odd:
    """Answers every request with the same body."""

    def __init__(self, status: int, body: bytes) -> None:
        self.given = VendorResponse(body, status, {"Content-Type": "application/json"})

    def answer(self, _: VendorRequest) -> VendorResponse:
        return self.given


def compressed(size: int) -> bytes:
    return gzip.compress(b'{"choices":[{"message":{"content":"' + b"A" * size + b'"}}]}', 9)


def hosted(backend: str) -> Callable[[str], ChatModel]:
    return lambda _: registry.backend(backend).chat("m")


async def request_with_retry(model: ChatModel) -> Reply:
    async with model:
        return (await requests.request_with_retry(model, ASKED, AdaptiveLimiter(1))).reply


MODELS: Mapping[str, Callable[[str], ChatModel]] = {
    "server": lambda url: open_server(f"{url}/v1", "m"),
    "openai": hosted("openai"),
    "azure": hosted("azure"),
    "together": hosted("together"),
}


@pytest.mark.parametrize("kind", list(MODELS))
@pytest.mark.parametrize("name", list(BODIES))
def test_an_odd_answer_is_a_row(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    status, body, text = BODIES[name]
    monkeypatch.setattr(retry, "ATTEMPTS", 1)
    with serve(Odd(status, body)) as server:
        point(monkeypatch, server.url)
        model = MODELS[kind](server.url)
        reply = asyncio.run(request_with_retry(model))
    current().backends.clear()
    assert (text or "", text is None) == (reply.text, reply.error is not None)
    record = record_of("c", Question("case", ASKED), "m", "hash", reply)
    assert record == read_record(line_of(record))


@pytest.mark.parametrize("kind", [*MODELS, "anthropic"])
def test_a_compressed_body_is_not_decompressed_beyond_an_answer(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """99 KiB of gzip hold 100 MiB; `tracemalloc` sees what Python asks for, and no more."""
    model = {**MODELS, "anthropic": hosted("anthropic")}[kind]
    monkeypatch.setattr(retry, "ATTEMPTS", 1)
    odd = Odd(200, compressed(100 << 20))
    odd.given = replace(odd.given, headers={"Content-Encoding": "gzip"})
    with serve(odd) as server:
        point(monkeypatch, server.url)
        chat = model(server.url)
        tracemalloc.start()
        reply = asyncio.run(request_with_retry(chat))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    current().backends.clear()
    assert "longer than 16,777,216 bytes" in str(reply.error)
    assert peak < 64 << 20, f"{peak >> 20} MiB"


def point(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let all vendors be found at an address."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", url)
    monkeypatch.setenv("TOGETHER_BASE_URL", url)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
    for vendor in ("OPENAI", "AZURE_OPENAI", "TOGETHER", "ANTHROPIC"):
        monkeypatch.setenv(f"{vendor}_API_KEY", "key-0123456789")
    current().backends.clear()
