"""Asking Gemini: a tuned model's endpoint, or a base model, through the SDK's async client.

A question is written as the training rows were, by the same pure functions (`formats.vertex`), so
that a tuned model is asked as it was trained. Gemini thinks before it answers, and its thoughts
count as answer tokens: both sides of a comparison are asked with the least thinking that their
base takes, as Google advises for tuned models, whose training has no thoughts.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from typing import Protocol, cast

import httpx2
from google import genai
from google.genai import types
from pydantic import JsonValue

from unitune.backends.formats import UnrepresentableRow, WireRow
from unitune.backends.kit.bodies import GZIP_ONLY, async_hooks
from unitune.backends.kit.chat_model import RemoteChatModel
from unitune.data.example import Example, Message
from unitune.errors import UnituneError
from unitune.models import Reply, Request, function_call
from unitune_providers.formats.vertex import SFT
from unitune_providers.vertex.cloud import Cloud
from unitune_providers.vertex.errors import ours

FINISHES = {"STOP": "stop", "MAX_TOKENS": "length"}
ANSWER = Message(role="assistant", content="answer")
"""Stands where a training row has its answer, and is cut off again."""


@dataclass(frozen=True, slots=True)
class _Client:
    """The SDK's client, with the connections that it is given and does not close."""

    genai: genai.Client
    connections: httpx2.AsyncClient

    async def close(self) -> None:
        await self.connections.aclose()


class VertexChatModel(RemoteChatModel[_Client]):
    """A model that answers one request at a time.

    Args:
        cloud: How it is reached.
        name: A published model's name, or the resource name of an endpoint.
        base: Name of the base, which decides how little it can think.
        location: Where it is asked.
    """

    def __init__(self, cloud: Cloud, name: str, base: str, location: str) -> None:
        thinking = least_thinking(base)
        told = thinking.model_dump_json(exclude_none=True) if thinking else "own"
        super().__init__(f"vertex:{name}:thinking={told}")
        self._cloud, self._name, self._location = cloud, name, location
        self._thinking = thinking

    def new_client(self) -> _Client:
        """As of `RemoteChatModel`."""
        # The SDK would take aiohttp where that happens to be installed, and leave connections open.
        connections = httpx2.AsyncClient(
            follow_redirects=False, event_hooks=async_hooks(), headers=GZIP_ONLY
        )
        return _Client(self._cloud.new_client(self._location, connections), connections)

    async def reply(self, request: Request) -> Reply:
        """Answer one request; a failure is in the reply's `error`."""
        started = time.perf_counter()
        try:
            row = question(request)
            try:
                answer = await self._ask(request, row)
            except httpx2.RemoteProtocolError:
                # The server closed the connection in the moment in which it was taken up again.
                answer = await self._ask(request, row)
        except UnrepresentableRow as problem:
            return Reply(error=f"Gemini cannot be asked this: {problem}", finish_reason="error")
        except Exception as error:  # noqa: BLE001 - a failed request is a row, whatever failed
            known = error if isinstance(error, UnituneError) else ours(error, "answer")
            return Reply.failed(known, time.perf_counter() - started)
        return read_answer(answer, time.perf_counter() - started)

    async def _ask(self, request: Request, row: WireRow) -> types.GenerateContentResponse:
        return await _models(self.client().genai).generate_content(
            model=self._name, contents=row["contents"], config=self._config(request, row)
        )

    def _config(self, request: Request, row: WireRow) -> types.GenerateContentConfig:
        settings = generation(request, self._thinking).model_dump(exclude_none=True)
        config: dict[str, object] = {
            **settings,
            "system_instruction": row.get("systemInstruction"),
            "tools": row.get("tools"),
        }
        return types.GenerateContentConfig.model_validate(config)


class _Models(Protocol):
    """The one call that is used, without the types of images and files that it could take too."""

    async def generate_content(
        self, *, model: str, contents: JsonValue, config: types.GenerateContentConfig
    ) -> types.GenerateContentResponse: ...


def _models(client: genai.Client) -> _Models:
    return cast("_Models", client.aio.models)


def question(request: Request) -> WireRow:
    """Return a request as a training row without its answer.

    Raises:
        UnrepresentableRow: It says something that Gemini's rows have no place for.
    """
    # Weights say what is learned from, which is nothing here.
    asked = [replace(turn, weight=None) for turn in request.messages]
    row = SFT.encode(Example(messages=(*asked, ANSWER), tools=request.tools))
    turns = cast("list[JsonValue]", row["contents"])
    return {**row, "contents": turns[:-1]}


def generation(request: Request, thinking: types.ThinkingConfig | None) -> types.GenerationConfig:
    """Return how a request is to be answered.

    Args:
        request: What is asked.
        thinking: How much the model is to think; None leaves it to the model.
    """
    return types.GenerationConfig(
        max_output_tokens=request.max_tokens,
        temperature=request.temperature,
        seed=request.seed if request.temperature else None,
        stop_sequences=list(request.stop) or None,
        thinking_config=thinking,
    )


def least_thinking(base: str) -> types.ThinkingConfig | None:
    """Return the setting with which a base thinks least; None: it is not known.

    Source: docs.cloud.google.com, Developer's guide to Gemini 3.5 Flash (levels of 3.5 Flash, 3.1
    Pro and 3.1 Flash-Lite), and About supervised fine-tuning (advice for tuned models), read
    2026-11-25. Gemini 2.5 takes a budget instead of a level, and only its Flash models take 0.
    """
    name = base.rpartition("/")[2]
    if re.match(r"gemini-3(\.\d+)?-pro", name):
        return types.ThinkingConfig(thinking_level=types.ThinkingLevel.LOW)
    if re.match(r"gemini-3(\.\d+)?-flash", name):
        return types.ThinkingConfig(thinking_level=types.ThinkingLevel.MINIMAL)
    if name.startswith("gemini-2.5-flash"):
        return types.ThinkingConfig(thinking_budget=0)
    return None


def read_answer(answer: types.GenerateContentResponse, seconds: float | None) -> Reply:
    """Return Gemini's answer as ours; thoughts are no part of the text."""
    if not answer.candidates:
        blocked = answer.prompt_feedback and answer.prompt_feedback.block_reason
        why = f"it blocked the question ({blocked.value})" if blocked else "it gave no reason"
        return Reply(error=f"Gemini gave no answer: {why}.", finish_reason="error", seconds=seconds)
    first, usage = answer.candidates[0], answer.usage_metadata
    parts = (first.content and first.content.parts) or []
    finish = first.finish_reason.value if first.finish_reason else "STOP"
    return Reply(
        text="".join(part.text for part in parts if part.text and not part.thought),
        finish_reason=FINISHES.get(finish, finish),
        prompt_tokens=usage.prompt_token_count if usage else None,
        completion_tokens=_written(usage) if usage else None,
        reasoning_tokens=usage.thoughts_token_count if usage else None,
        thought=bool(usage and usage.thoughts_token_count),
        seconds=seconds,
        tool_calls=tuple(
            function_call(call.name or "", call.args or {}, call.id)
            for part in parts
            if (call := part.function_call)
        )
        or None,
    )


def _written(usage: types.GenerateContentResponseUsageMetadata) -> int:
    """Tokens that the model wrote; its thoughts are paid for like its answer."""
    return (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
