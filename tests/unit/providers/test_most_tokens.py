"""No wire sends more than a request is taken to cost at most, nor asks for a longer answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

pytest.importorskip("together", reason="needs the vendors' extras")
pytest.importorskip("boto3", reason="needs the vendors' extras")
pytest.importorskip("google.genai", reason="needs the vendors' extras")
pytest.importorskip("anthropic", reason="needs the vendors' extras")

from hypothesis import given
from hypothesis import strategies as st
from vendors.openai import vendor as openai
from vendors.serving import ANTHROPIC, VENDORS

from unitune.backends import registry
from unitune.backends.kit.chat import open_server
from unitune.data.example import Message
from unitune.evaluate.inference.budget import most_tokens
from unitune.models import ChatModel, Request
from unitune.testing.loopback import Server
from unitune.testing.vendor_setup import serve_vendor

SETUPS = {**VENDORS, "anthropic": ANTHROPIC, "server": VENDORS["openai"]}
LIMITS = ("max_tokens", "max_completion_tokens", "maxTokens", "maxOutputTokens")
TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=60)
NAME = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAME, inner, max_size=4),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(NAME, VALUES, max_size=4)


def a_call(name: str, arguments: dict[str, Any], number: int, *, ascii_only: bool) -> Any:
    text = json.dumps(arguments, ensure_ascii=ascii_only, separators=(",", ":"))
    return {
        "id": f"call{number}",
        "type": "function",
        "function": {"name": name, "arguments": text},
    }


@st.composite
def dialogues(draw: st.DrawFn) -> Request:
    """Questions with calls of tools and what came of them, as an agent's history has them."""
    messages = [Message(role="system", content=draw(TEXT))] if draw(st.booleans()) else []
    messages.append(Message(role="user", content=draw(TEXT)))
    tools = draw(st.lists(NAME, max_size=3, unique=True))
    for number, name in enumerate(tools):
        call = a_call(name, draw(ARGUMENTS), number, ascii_only=draw(st.booleans()))
        messages.append(Message(role="assistant", tool_calls=(call,)))
        told = Message(role="tool", tool_call_id=f"call{number}", content=draw(TEXT))
        messages.append(told)
    messages.append(Message(role="user", content=draw(TEXT)))
    described = tuple(
        {
            "type": "function",
            "function": {
                "name": name,
                "description": draw(TEXT),
                "parameters": {"type": "object", "properties": {}},
            },
        }
        for name in tools
    )
    return Request(
        messages=tuple(messages),
        tools=cast("Any", described) or None,
        max_tokens=draw(st.integers(16, 4096)),
    )


@contextmanager
def played(name: str) -> Iterator[tuple[Server, ChatModel]]:
    with serve_vendor(SETUPS[name]) as served:
        model = served.setup.model
        if name == "server":
            url = f"{served.server.url}/v1"
            yield served.server, open_server(url, model, key=lambda: openai.KEY)
        else:
            yield served.server, registry.backend(name).chat(model)


def texts(value: Any) -> Iterator[str]:
    """Yield every text and number of a JSON value."""
    match value:
        case dict():
            for each in cast("dict[str, Any]", value).values():
                yield from texts(each)
        case list():
            for each in cast("list[Any]", value):
                yield from texts(each)
        case _:
            yield value if isinstance(value, str) else json.dumps(value)


def limits(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        for key, each in cast("dict[str, Any]", value).items():
            if key in LIMITS:
                yield each
            yield from limits(each)


@pytest.mark.parametrize("name", sorted(SETUPS))
def test_the_most_is_never_less_than_what_is_sent_and_counted(name: str) -> None:
    with played(name) as (server, model), asyncio.Runner() as runner:

        @given(dialogues())
        def holds(request: Request) -> None:
            server.requests.clear()
            reply = runner.run(model.reply(request))
            most = most_tokens(request)
            bodies = [json.loads(one.body) for one in server.requests if one.method == "POST"]
            assert bodies, reply.error
            for body in bodies:
                parts = {key: each for key, each in body.items() if key not in ("model", "modelId")}
                sent = sum(len(text.encode()) for text in texts(parts))
                assert sent <= most.prompt_tokens
                assert all(limit <= most.completion_tokens for limit in limits(body))
            assert (reply.prompt_tokens or 0) <= most.prompt_tokens
            assert (reply.completion_tokens or 0) <= most.completion_tokens

        holds()
        runner.run(model.aclose())
