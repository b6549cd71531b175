"""Answers that come in pieces: ours are the vendors' own SDKs', of the same bytes.

The calls of tools are the streams of the vendors' documentation (platform.openai.com, Function
calling, Streaming; platform.claude.com, Streaming messages, Streaming request with tool use; read
2026-11-27).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

import pytest
from anthropic import Anthropic
from openai import OpenAI
from vendors import streams
from vendors.anthropic import KEY, AnthropicVendor

from unitune.backends.kit.chat import open_server
from unitune.backends.kit.chat_completions import json_events
from unitune.data.example import Message
from unitune.models import Reply, Request
from unitune.testing.contract_base import reply_once, stream_once
from unitune.testing.loopback import Fault, VendorRequest, VendorResponse, serve
from unitune.testing.vendor_setup import ServerBehavior
from unitune_providers.anthropic import AnthropicBackend

QUESTION = Message(role="user", content="What is the weather in San Francisco?")
REQUEST = Request(messages=(QUESTION,), max_tokens=64)
CLAUDE = "claude-haiku-4-5"
USAGE = {"prompt_tokens": 82, "completion_tokens": 17, "total_tokens": 99}
WHOLE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "It is  sunny,\n18 °C."},
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}


class Answers:
    """A server whose every response is made by a function of the request's body."""

    def __init__(self, respond: Callable[[dict[str, Any]], VendorResponse]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self._respond = respond

    def answer(self, request: VendorRequest) -> VendorResponse:
        self.bodies.append(request.json)
        return self._respond(request.json)


def split(pieces: list[str | Reply]) -> tuple[list[str], Reply]:
    *texts, reply = pieces
    assert isinstance(reply, Reply)
    return cast("list[str]", texts), reply


def streamed(respond: Callable[[dict[str, Any]], VendorResponse]) -> tuple[list[str], Reply]:
    """Return what a server of OpenAI's wire streams."""
    with serve(Answers(respond)) as server:
        return split(stream_once(open_server(f"{server.url}/v1", "m"), REQUEST))


def refusal(message: str) -> VendorResponse:
    return VendorResponse({"error": {"message": message, "type": "invalid_request_error"}}, 400)


def test_a_completion_is_read_as_openais_sdk_reads_it() -> None:
    with serve(Answers(lambda body: streams.completion(body, cast("Any", WHOLE)))) as server:
        url = f"{server.url}/v1"
        with OpenAI(api_key="k", base_url=url) as client:
            chunks = client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": "Why?"}],
                stream=True,
                stream_options={"include_usage": True},
            )
            expected = [
                choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta
            ]
        texts, reply = split(stream_once(open_server(url, "m"), REQUEST))
    assert [text for text in expected if text] == texts
    assert len(texts) == 5
    assert (
        "".join(texts),
        reply.finish_reason,
        reply.prompt_tokens,
        reply.completion_tokens,
    ) == ("It is  sunny,\n18 °C.", "stop", 82, 17)
    assert reply.text == "".join(texts)


def test_a_message_is_read_as_anthropics_sdk_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    behavior = ServerBehavior(otherwise="It is sunny in San Francisco.")
    with serve(AnthropicVendor(behavior)) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        with Anthropic(api_key=KEY, base_url=server.url) as client:
            turns: Any = [{"role": "user", "content": "Why?"}]
            with client.messages.stream(model=CLAUDE, max_tokens=64, messages=turns) as stream:
                expected, final = list(stream.text_stream), stream.get_final_message()
        chat = AnthropicBackend().chat(CLAUDE)
        question = REQUEST.model_copy(update={"messages": (Message(role="user", content="Why?"),)})
        texts, reply = split(stream_once(chat, question))
        whole = reply_once(AnthropicBackend().chat(CLAUDE), question)
    assert expected == texts
    assert reply.text == "".join(texts) == "It is sunny in San Francisco."
    assert final.usage.output_tokens == reply.completion_tokens
    assert (whole.text, whole.prompt_tokens) == (reply.text, reply.prompt_tokens)


def test_claudes_call_of_a_tool_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the documentation: its arguments come in pieces that are no JSON by themselves."""
    arguments = [
        "",
        '{"location":',
        ' "San',
        " Francisc",
        "o,",
        ' CA"',
        ', "unit": "fah',
        'renheit"}',
    ]
    start = {
        "id": "msg_014p7gG3wDgGV9EUtLvnow3U",
        "type": "message",
        "role": "assistant",
        "model": CLAUDE,
        "stop_sequence": None,
        "usage": {"input_tokens": 472, "output_tokens": 2},
        "content": [],
        "stop_reason": None,
    }
    tool = {"type": "tool_use", "id": "toolu_01T1x1fJ34qAmk2tNTrN7Up6", "name": "get_weather"}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": text},
            }
            for text in ("Okay", ",", " let", "'s", " check")
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {**tool, "input": {}}},
        *(
            {
                "type": "content_block_delta",
                "index": 1,
                "delta": {"type": "input_json_delta", "partial_json": piece},
            }
            for piece in arguments
        ),
        {"type": "content_block_stop", "index": 1},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"output_tokens": 89},
        },
        {"type": "message_stop"},
    ]
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with serve(Answers(lambda _: streams.server_sent(events))) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        turns: Any = [{"role": "user", "content": "Weather?"}]
        with (
            Anthropic(api_key=KEY, base_url=server.url) as client,
            client.messages.stream(model=CLAUDE, max_tokens=64, messages=turns) as stream,
        ):
            expected = stream.get_final_message().content[1]
        texts, reply = split(stream_once(AnthropicBackend().chat(CLAUDE), REQUEST))
    assert reply.tool_calls is not None
    function = cast("Mapping[str, str]", reply.tool_calls[0]["function"])
    assert expected.type == "tool_use"
    assert (expected.name, expected.input) == (function["name"], json.loads(function["arguments"]))
    assert expected.input == {"location": "San Francisco, CA", "unit": "fahrenheit"}
    assert (
        "".join(texts),
        reply.finish_reason,
        reply.prompt_tokens,
        reply.completion_tokens,
    ) == ("Okay, let's check", "tool_use", 472, 89)


def test_openais_call_of_a_tool_is_put_together() -> None:
    """Of the documentation: id and name come first, then the arguments bit by bit."""
    first = {"id": "call_DdmO9pD3xa9XTPNJ32zg2hcA", "type": "function"}
    pieces = ["", '{"', "location", '":"', "Paris", ",", " France", '"}']
    calls = [{"index": 0, **first, "function": {"name": "get_weather", "arguments": ""}}]
    calls += [{"index": 0, "function": {"arguments": piece}} for piece in pieces]
    deltas: list[dict[str, Any]] = [{"tool_calls": [call]} for call in calls]
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    texts, reply = streamed(lambda _: streams.server_sent([*chunks, end]))
    assert texts == []
    function = {"name": "get_weather", "arguments": '{"location":"Paris, France"}'}
    assert reply.tool_calls == ({**first, "function": function},)
    assert (reply.finish_reason, reply.error) == ("tool_calls", None)


def test_two_streamed_calls_that_both_say_index_0_are_two_calls() -> None:
    """As older versions of Ollama number them."""
    calls = [
        {"index": 0, "id": name, "function": {"name": name, "arguments": "{}"}} for name in "fg"
    ]
    chunks = [{"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]} for call in calls]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    _, reply = streamed(lambda _: streams.server_sent([*chunks, end]))
    named = [cast("Mapping[str, str]", call["function"])["name"] for call in reply.tool_calls or ()]
    assert named == ["f", "g"]


@pytest.mark.parametrize("end", [{"finish_reason": "error"}, {"error": {"message": "gone"}}])
def test_a_streamed_answer_whose_last_event_is_a_failure_is_an_error(end: dict[str, Any]) -> None:
    text = {"choices": [{"index": 0, "delta": {"content": "whi"}}]}
    other = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "stop"}]}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", **end}]}
    texts, reply = streamed(lambda _: streams.server_sent([text, other, last]))
    assert (texts, reply.text, reply.retryable) == (["whi"], "", True)
    assert reply.error is not None


def test_a_server_that_knows_no_stream_options_streams_without() -> None:
    def respond(body: dict[str, Any]) -> VendorResponse:
        if "stream_options" in body:
            return refusal("Unrecognized request argument supplied: stream_options")
        return streams.completion(body, cast("Any", WHOLE))

    texts, reply = streamed(respond)
    assert len(texts) == 5
    assert (reply.error, reply.completion_tokens) == (None, None)


@pytest.mark.parametrize("refuses", [True, False])
def test_a_server_that_cannot_stream_answers_at_once(*, refuses: bool) -> None:
    """One refuses the request; another does not know the word, and answers as ever."""

    def respond(body: dict[str, Any]) -> VendorResponse:
        if refuses and body.get("stream"):
            return refusal("Streaming is disabled on this server.")
        return VendorResponse(cast("Any", WHOLE))

    texts, reply = streamed(respond)
    assert texts == ["It is  sunny,\n18 °C."]
    assert (texts[0], 17) == (reply.text, reply.completion_tokens)


def test_a_refused_request_says_why() -> None:
    texts, reply = streamed(lambda _: refusal("the context is too long"))
    assert texts == []
    assert "the context is too long" in str(reply.error)
    assert reply.status == 400


def test_an_answer_that_breaks_off_is_an_error() -> None:
    """A stream that ends before its last event was cut, whatever its transport says."""
    chunks = [{"choices": [{"index": 0, "delta": {"content": "It is "}}]}]
    texts, reply = streamed(lambda _: streams.server_sent(chunks))
    assert texts == ["It is "]
    assert "its stream ended before the answer did" in str(reply.error)


def test_a_failure_in_the_middle_is_said_in_the_servers_words() -> None:
    chunks = [{"choices": [{"index": 0, "delta": {"content": "It is "}}]}]
    failure = {"error": {"message": "the engine died", "type": "server_error"}}
    texts, reply = streamed(lambda _: streams.server_sent([*chunks, failure]))
    assert texts == ["It is "]
    assert "the engine died" in str(reply.error)


def test_a_connection_that_is_cut_is_an_error() -> None:
    vendor = Answers(lambda body: streams.completion(body, cast("Any", WHOLE)))
    with serve(vendor) as server:
        server.inject_fault(Fault.SHORT, "POST", "completions")
        _, reply = split(stream_once(open_server(f"{server.url}/v1", "m"), REQUEST))
    assert "no complete answer" in str(reply.error)
    assert reply.retryable


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_events_are_read_however_they_are_cut(end: bytes, size: int) -> None:
    """Of the specification: comments are ignored, and lines of data belong together."""
    lines = [
        ": keep-alive",
        "",
        "event: a",
        'data: {"text":',
        'data: "sunny °C"}',
        "",
        "data:[1]",
        "",
    ]
    content = end.join(line.encode() for line in [*lines, 'data: {"n": 2}', "", "data: [DONE]"])

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), size):
            yield content[start : start + size]

    async def read() -> list[dict[str, Any]]:
        return [dict(event.all) async for event in json_events(pieces())]

    assert asyncio.run(read()) == [{"text": "sunny °C"}, {}, {"n": 2}]
