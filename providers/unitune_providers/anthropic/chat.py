"""Asking Claude: a question and its answer on Anthropic's wire, through the SDK's async client.

The client belongs to the event loop in which it is first used; a loop that ends closes it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import anthropic
from anthropic import AsyncAnthropic
from anthropic.types import Message as Answer
from anthropic.types import MessageParam, ToolParam
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from pydantic import JsonValue

from unitune.backends.kit.chat_completions import Refusal, refuses
from unitune.backends.kit.chat_model import RemoteChatModel
from unitune.backends.rate_limits import rate_limit_delay
from unitune.data.example import Message
from unitune.models import Reply, Request, function_call
from unitune_providers.anthropic.client import NAME, SDK_ERRORS, VENDOR, new_client

FINISHES = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}
NO_ARGUMENTS: JsonValue = {"type": "object", "properties": {}}


class ClaudeChatModel(RemoteChatModel[AsyncAnthropic]):
    """A Claude that answers one request at a time.

    Args:
        model: Anthropic's name of it.
    """

    def __init__(self, model: str) -> None:
        super().__init__(f"{NAME}:{model}")
        self._model = model
        self._takes_temperature = True

    async def reply(self, request: Request) -> Reply:
        """Answer one request; a failure is in the reply's `error`."""
        started = time.perf_counter()
        try:
            reply = await self._ask(request)
        except (KeyError, ValueError) as problem:
            words = f"{self._model} cannot be asked this: {problem}"
            return Reply(error=words, finish_reason="error")
        except SDK_ERRORS.all as error:
            failed = SDK_ERRORS.map_error(error, VENDOR, f"ask {self._model}")
            return Reply.failed(failed, time.perf_counter() - started)
        return replace(reply, seconds=time.perf_counter() - started)

    def new_client(self) -> AsyncAnthropic:
        """As of `RemoteChatModel`."""
        return new_client()

    async def _ask(self, request: Request) -> Reply:
        warm = self._takes_temperature or "temperature" in request.fixed
        try:
            return await self._send(request, warm=warm)
        except anthropic.BadRequestError as error:
            if not warm or not refuses_temperature(error, request):
                raise
            self._takes_temperature = False
        return await self._send(request, warm=False)

    async def _send(self, request: Request, *, warm: bool) -> Reply:
        client = self.client()
        asked = question(self._model, request)
        answer = await client.messages.with_raw_response.create(
            **asked, extra_body=sampling(request, warm=warm)
        )
        reply = read_answer(await answer.parse(), None)
        missing = () if warm else ("temperature",)
        return replace(
            reply, retry_after_seconds=rate_limit_delay(answer.headers), left_out=missing
        )


def question(model: str, request: Request) -> MessageCreateParamsNonStreaming:
    """Return a request as Anthropic takes it, but for the temperature.

    Raises:
        ValueError: A tool call's arguments are no JSON.
        KeyError: A tool or a call of one lacks a part.
    """
    asked: MessageCreateParamsNonStreaming = {
        "model": model,
        "max_tokens": request.max_tokens,
        "messages": turns(request.messages),
    }
    if system := "\n\n".join(_system(request.messages)):
        asked["system"] = system
    if request.stop:
        asked["stop_sequences"] = list(request.stop)
    if request.tools:
        asked["tools"] = [_tool(tool) for tool in request.tools]
    return asked


def sampling(request: Request, *, warm: bool) -> dict[str, float] | None:
    """Return what the SDK has no name for since newer models refuse it; older ones still take it.

    Args:
        request: What is asked.
        warm: Whether the model takes a temperature.
    """
    return {"temperature": request.temperature} if warm else None


def refuses_temperature(error: anthropic.BadRequestError, request: Request) -> bool:
    """Whether a model refused a question for its temperature alone.

    Claude 4.7 and later refuse any but their own ("`temperature` is deprecated for this model");
    which do is not told before.

    Raises:
        JobError: It did, and the job itself has set the temperature.
    """
    refusal = Refusal.read(error.status_code, error.body)
    return refuses(refusal, request, "temperature")


def turns(messages: Sequence[Message]) -> list[MessageParam]:
    """Return the messages that are no system prompt, as Anthropic takes them.

    Args:
        messages: In canonical form.

    Raises:
        ValueError: A tool call's arguments are no JSON.
        KeyError: A tool call lacks a part.
    """
    taken = [
        {
            "role": "assistant" if message.role == "assistant" else "user",
            "content": list(_blocks(message)),
        }
        for message in messages
        if message.role not in ("system", "developer")
    ]
    return cast("list[MessageParam]", taken)


def _system(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        if message.role in ("system", "developer") and message.text:
            yield message.text


def _blocks(message: Message) -> Iterator[dict[str, JsonValue]]:
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


def _tool(tool: Mapping[str, JsonValue]) -> ToolParam:
    function = cast("Mapping[str, Any]", tool["function"])
    schema = cast("Any", function.get("parameters") or NO_ARGUMENTS)
    taken: ToolParam = {"name": function["name"], "input_schema": schema}
    if function.get("description"):
        taken["description"] = function["description"]
    return taken


def read_answer(answer: Answer, seconds: float | None) -> Reply:
    """Return Claude's answer as ours; thoughts are no part of the text."""
    usage, word = answer.usage, answer.stop_reason or "end_turn"
    text = "".join(block.text for block in answer.content if block.type == "text")
    if word == "refusal" and not text and answer.stop_details is not None:
        text = answer.stop_details.explanation or ""
    cached = (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
    return Reply(
        text=text,
        finish_reason=FINISHES.get(word, word),
        prompt_tokens=usage.input_tokens + cached,
        completion_tokens=usage.output_tokens,
        thought=any(block.type in ("thinking", "redacted_thinking") for block in answer.content),
        seconds=seconds,
        tool_calls=tuple(
            function_call(block.name, cast("JsonValue", block.input), block.id)
            for block in answer.content
            if block.type == "tool_use"
        )
        or None,
    )
