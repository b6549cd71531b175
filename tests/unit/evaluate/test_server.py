"""Asking any server that speaks chat completions: what is sent, what a reply holds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.providers.openai_spec import MODEL, Stage, on_stage
from vendors.openai.vendor import KEY, OpenAIVendor

from unitune.backends.kit import chat as kit_chat
from unitune.backends.kit.chat import open_server
from unitune.data.example import Message
from unitune.errors import JobError
from unitune.models import ChatModel, Reply, Request
from unitune.testing.contract_base import reply_once
from unitune.testing.loopback import OF_VENDORS, Fault, VendorResponse

QUESTION = Message(role="user", content="Colour of snow?")
ASKED = Request(messages=(QUESTION,))
CHAT = "/chat/completions$"


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with on_stage(tmp_path, monkeypatch) as stage:
        yield stage


def model_on(stage: Stage, name: str = MODEL) -> ChatModel:
    return open_server(f"{stage.server.url}/v1/", name, key=lambda: KEY)


def ask(stage: Stage, request: Request = ASKED, name: str = MODEL) -> Reply:
    model = model_on(stage, name)
    return reply_once(model, request)


def test_an_answer_comes_with_what_it_used(stage: Stage) -> None:
    reply = ask(stage)
    assert (reply.text, reply.finish_reason, reply.error) == ("I do not know.", "stop", None)
    assert (reply.prompt_tokens, reply.completion_tokens) == (3, 4)
    assert reply.seconds is not None
    assert 0 < reply.seconds < 10


def test_everything_that_the_request_says_is_sent(stage: Stage) -> None:
    tool = {"type": "function", "function": {"name": "look_up"}}
    asked = Request(
        messages=(Message(role="assistant", content="Hm", weight=0), QUESTION),
        tools=(tool,),
        max_tokens=7,
        temperature=0.5,
        seed=3,
        stop=("END",),
    )
    ask(stage, asked)
    (sent,) = stage.server.received("POST", CHAT)
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.json == {
        "model": MODEL,
        "messages": [
            {"role": "assistant", "content": "Hm"},
            {"role": "user", "content": "Colour of snow?"},
        ],
        "tools": [tool],
        "max_tokens": 7,
        "temperature": 0.5,
        "seed": 3,
        "stop": ["END"],
    }


@pytest.mark.parametrize(
    ("fault", "words", "status"),
    [
        (Fault.RATE_LIMITED, "HTTP 429", 429),
        (Fault.SERVER_ERROR, "HTTP 500", 500),
        (Fault.ERROR_AFTER, "HTTP 500", 500),
        (Fault.SILENCE, "no complete answer", None),
        (Fault.CUT, "no complete answer", None),
        (Fault.SHORT, "no complete answer", None),
        (Fault.EXPIRED_KEY, "HTTP 401", 401),
    ],
)
def test_a_fault_is_in_the_reply_and_the_request_is_sent_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, fault: Fault, words: str, status: int | None
) -> None:
    monkeypatch.setattr(kit_chat, "ANSWER_SECONDS", 0.3)
    stage.server.inject_fault(fault, "POST", CHAT)
    reply = ask(stage)
    assert ("", "error", status) == (reply.text, reply.finish_reason, reply.status)
    assert words in (reply.error or "")
    assert KEY not in (reply.error or "")
    assert (fault is not Fault.EXPIRED_KEY) == reply.retryable
    assert (1.0 if fault is Fault.RATE_LIMITED else None) == reply.retry_after_seconds
    assert len(stage.server.received("POST", CHAT)) == 1


def test_every_fault_is_tried() -> None:
    (tried,) = [
        mark.args[1]
        for mark in test_a_fault_is_in_the_reply_and_the_request_is_sent_once.pytestmark
    ]
    assert set(OF_VENDORS) == {fault for fault, _, _ in tried}


def test_a_server_that_is_not_there_passes() -> None:
    reply = reply_once(open_server("http://127.0.0.1:9/v1", "m"), ASKED)
    assert reply.retryable
    assert "127.0.0.1:9" in (reply.error or "")


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"choices": []}', b'{"choices": [{}]}'])
def test_what_is_no_answer_is_shown(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(OpenAIVendor, "answer", lambda *_: VendorResponse(content))
    reply = ask(stage)
    assert "is not a chat completion" in (reply.error or "")
    assert content.decode() in (reply.error or "")


def test_a_smaller_servers_answer_is_enough(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = VendorResponse({"choices": [{"message": {"content": "white"}}]})
    monkeypatch.setattr(OpenAIVendor, "answer", lambda *_: bare)
    reply = ask(stage)
    assert (reply.text, reply.finish_reason, reply.prompt_tokens) == ("white", "stop", None)


def test_limits_are_told_beside_the_answer(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    left = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
    }
    last = VendorResponse({"choices": [{"message": {"content": "white"}}]}, headers=left)
    monkeypatch.setattr(OpenAIVendor, "answer", lambda *_: last)
    assert ask(stage).retry_after_seconds == 1.0


def test_a_missing_model_is_in_the_reply(stage: Stage) -> None:
    reply = ask(stage, name="ft:none")
    assert (reply.status, reply.retryable) == (404, False)
    assert "does not exist" in (reply.error or "")


def test_connections_are_shared_within_a_loop_and_closed_with_the_model(stage: Stage) -> None:
    model = open_server(f"{stage.server.url}/v1/", MODEL, key=lambda: KEY)

    async def ask_many() -> list[Reply]:
        async with model:
            replies = await asyncio.gather(*(model.reply(ASKED) for _ in range(20)))
            session = model.session()
        assert session.closed
        return replies

    for _ in range(2):
        assert len([reply for reply in asyncio.run(ask_many()) if reply.error is None]) == 20


def test_a_call_of_a_tool_is_kept_with_its_arguments(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = {"name": "look_up", "arguments": '{"id": 7}'}
    call = {"id": "call-1", "type": "function", "function": function}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer = VendorResponse({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    monkeypatch.setattr(OpenAIVendor, "answer", lambda *_: answer)
    reply = ask(stage)
    assert ("", "tool_calls", (call,)) == (reply.text, reply.finish_reason, reply.tool_calls)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://here/v1", "http://", "http://me@here/v1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(JobError, match=r"is not an address|user name"):
        open_server(url, "m")


def test_another_server_is_another_model() -> None:
    one, other = (open_server(f"http://{host}/v1", "m").fingerprint for host in "ab")
    assert one != other
