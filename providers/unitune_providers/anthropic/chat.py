"""Claude's wire: a question and its answer, alone or in a batch.

Source: anthropic 2.13.0, types/message_create_params.py and message.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from pydantic import JsonValue

from unitune.backends.kit.chat import JsonChatModel
from unitune.backends.kit.chat_completions import Refusal, refuses
from unitune.backends.kit.chat_model import Endpoint
from unitune.data.example import Message
from unitune.models import Reply, Request, function_call
from unitune.security.json_fields import Fields

FINISHES = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}
NO_ARGUMENTS: JsonValue = {"type": "object", "properties": {}}
THOUGHTS = ("thinking", "redacted_thinking")


class ClaudeChatModel(JsonChatModel):
    """A Claude that answers one request at a time.

    Args:
        endpoint: Anthropic.
        model: Anthropic's name of it.
    """

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        super().__init__(endpoint, "/v1/messages", model, f"anthropic:{model}")
        self._takes_temperature = True

    def body(self, request: Request) -> dict[str, object]:
        """As of `JsonChatModel`."""
        warm = self._takes_temperature or "temperature" in request.fixed
        return {**question(self._model, request), **sampling(request, warm=warm)}

    def learn(self, body: dict[str, object], request: Request, refusal: Refusal) -> bool:
        """Leave the temperature out, which Claude 4.7 and later refuse.

        Which models do shows in their refusal alone ("`temperature` is deprecated for this
        model").
        """
        if "temperature" not in body or not refuses(refusal, request, "temperature"):
            return False
        self._takes_temperature = False
        del body["temperature"]
        return True

    def read(self, body: dict[str, object], answer: object, seconds: float) -> Reply | None:
        """As of `JsonChatModel`."""
        reply = read_answer(Fields(answer), seconds)
        left_out = () if "temperature" in body else ("temperature",)
        return reply and replace(reply, left_out=left_out)


def question(model: str, request: Request) -> dict[str, JsonValue]:
    """Return a request as Anthropic takes it, but for the temperature.

    Raises:
        ValueError: A tool call's arguments are no JSON.
        KeyError: A tool or a call of one lacks a part.
    """
    system = "\n\n".join(_system(request.messages))
    return {
        "model": model,
        "max_tokens": request.max_tokens,
        "messages": turns(request.messages),
        **({"system": system} if system else {}),
        **({"stop_sequences": list(request.stop)} if request.stop else {}),
        **({"tools": [_tool(tool) for tool in request.tools]} if request.tools else {}),
    }


def sampling(request: Request, *, warm: bool) -> dict[str, JsonValue]:
    """Return the sampling settings of a request.

    Args:
        request: The request.
        warm: Whether the model takes a temperature.
    """
    return {"temperature": request.temperature} if warm else {}


def turns(messages: Sequence[Message]) -> list[JsonValue]:
    """Return the messages that are no system prompt, as Anthropic takes them.

    Args:
        messages: In canonical form.

    Raises:
        ValueError: A tool call's arguments are no JSON.
        KeyError: A tool call lacks a part.
    """
    return [
        {
            "role": "assistant" if message.role == "assistant" else "user",
            "content": list(_blocks(message)),
        }
        for message in messages
        if message.role not in ("system", "developer")
    ]


def _system(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        if message.role in ("system", "developer") and message.text:
            yield message.text


def _blocks(message: Message) -> Iterator[JsonValue]:
    if message.role == "tool":
        called = message.tool_call_id or ""
        yield {"type": "tool_result", "tool_use_id": called, "content": message.text}
        return
    if message.text:
        yield {"type": "text", "text": message.text}
    for call in message.tool_calls or ():
        function = cast("Mapping[str, Any]", call["function"])
        arguments = json.loads(function["arguments"] or "{}")
        yield {
            "type": "tool_use",
            "id": call["id"],
            "name": function["name"],
            "input": arguments,
        }


def _tool(tool: Mapping[str, JsonValue]) -> JsonValue:
    function = cast("Mapping[str, Any]", tool["function"])
    described = {"description": function["description"]} if function.get("description") else {}
    schema = function.get("parameters") or NO_ARGUMENTS
    return {"name": function["name"], "input_schema": schema, **described}


def read_answer(answer: Fields, seconds: float | None = None) -> Reply | None:
    """Return Claude's answer as ours; thoughts are no part of the text.

    Args:
        answer: A message.
        seconds: Wall time; None where many were sent together.

    Returns:
        The reply; None where it is no message.
    """
    if not isinstance(answer.all.get("content"), list):
        return None
    blocks, usage = answer.items("content"), answer.fields("usage")
    word = answer.text("stop_reason") or "end_turn"
    text = "".join(block.text("text") or "" for block in blocks if block.text("type") == "text")
    if word == "refusal" and not text:
        text = answer.fields("stop_details").text("explanation") or ""
    input_tokens = usage.whole("input_tokens")
    cached = [usage.whole(f"cache_{kind}_input_tokens") or 0 for kind in ("creation", "read")]
    calls = tuple(
        function_call(block.text("name") or "", block.all.get("input"), block.text("id"))
        for block in blocks
        if block.text("type") == "tool_use"
    )
    return Reply(
        text=text,
        finish_reason=FINISHES.get(word, word),
        prompt_tokens=None if input_tokens is None else input_tokens + sum(cached),
        completion_tokens=usage.whole("output_tokens"),
        thought=any(block.text("type") in THOUGHTS for block in blocks),
        seconds=seconds,
        tool_calls=calls or None,
    )
