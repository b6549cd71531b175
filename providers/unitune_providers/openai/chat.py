"""Asking a model over chat completions, on whichever server speaks them.

One request is sent once and never raises: what went wrong is in the reply. The SDK's client belongs
to an event loop, so each loop gets its own, closed by the loop's end at the latest. `body_of` and
`reply_of` say what is sent and what an answer means; batches (`unitune_providers.openai.batches`)
use the same two.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import Any, cast

import openai
from httpx2 import Response
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageToolCallUnion

from unitune.models import Reply, Request, ToolCalls, function_call
from unitune.ratelimits import rest
from unitune_providers.openai.errors import ours
from unitune_providers.openai.server import Server, async_client

CHAT_SECONDS = 120.0
"""Longest wait for one answer."""


@dataclass(slots=True)
class _Line:
    """A client with the loop that it belongs to.

    Args:
        loop: Whose end closes the client.
        client: Of the SDK.
        keeper: Closes it; the loop knows it as one of its asynchronous generators.
    """

    loop: asyncio.AbstractEventLoop
    client: AsyncOpenAI
    keeper: AsyncGenerator[None]


class OpenAIChatModel:
    """A model on a server.

    Args:
        server: Who is asked.
        model: The vendor's id.
        old_limit: Send `max_tokens`, which OpenAI has deprecated and others know alone.
    """

    def __init__(self, server: Server, model: str, *, old_limit: bool = False) -> None:
        self._server = server
        self._model = model
        self._old_limit = old_limit
        self._line: _Line | None = None

    @property
    def fingerprint(self) -> str:
        """Vendor and model id; the server too, where a job named it."""
        return f"{self._server.backend}:{self._server.mark(self._model)}"

    async def reply(self, request: Request) -> Reply:
        """Answer one request; a failure is in the reply's `error`."""
        started = time.perf_counter()
        try:
            client = await self._client()
            body = body_of(self._model, request, old_limit=self._old_limit)
            # Its `create` would walk through every message once more, which takes longer than all
            # else that is done here.
            answer = await client.post("/chat/completions", cast_to=Response, body=body)
            said: object = answer.json()
        except (openai.OpenAIError, json.JSONDecodeError) as error:
            known = ours(error, self._server, f"ask {self._model}")
            return Reply.failed(known, time.perf_counter() - started)
        fields = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
        completion = ChatCompletion.construct(None, **fields)
        return reply_of(completion, time.perf_counter() - started, rest(answer.headers))

    def close(self) -> None:
        """Close the connection, if its loop has not done so."""
        line, self._line = self._line, None
        if line is None or line.loop.is_closed():
            return
        if line.loop.is_running():
            asyncio.run_coroutine_threadsafe(_end(line), line.loop)
        else:
            line.loop.run_until_complete(_end(line))

    async def _client(self) -> AsyncOpenAI:
        loop = asyncio.get_running_loop()
        if self._line is None or self._line.loop is not loop:
            client = async_client(self._server, CHAT_SECONDS)
            line = _Line(loop, client, _kept_open(client))
            self._line = line
            await anext(line.keeper)
        return self._line.client


def body_of(model: str, request: Request, *, old_limit: bool) -> dict[str, object]:
    """Return what is sent for a request.

    Args:
        model: The vendor's id.
        request: What is asked.
        old_limit: Say `max_tokens`, which OpenAI has deprecated and others know alone.
    """
    return {
        "model": model,
        "messages": [message.asked for message in request.messages],
        **({"tools": list(request.tools)} if request.tools else {}),
        "temperature": request.temperature,
        "seed": request.seed,
        **({"stop": list(request.stop)} if request.stop else {}),
        "max_tokens" if old_limit else "max_completion_tokens": request.max_tokens,
    }


def reply_of(
    answer: ChatCompletion, seconds: float | None, pause_seconds: float | None = None
) -> Reply:
    """Return an answer in our words.

    Args:
        answer: As the vendor gave it.
        seconds: Wall time; None where many were asked together.
        pause_seconds: What the vendor asks to wait before the next request.
    """
    # Servers other than OpenAI's may send less than the SDK's types promise.
    if not answer.choices:
        return Reply(finish_reason="error", error="the answer has no choices", seconds=seconds)
    choice = answer.choices[0]
    refused = choice.message.refusal
    return Reply(
        text=choice.message.content or refused or "",
        finish_reason="refusal" if refused else choice.finish_reason,
        prompt_tokens=answer.usage.prompt_tokens if answer.usage else None,
        completion_tokens=answer.usage.completion_tokens if answer.usage else None,
        seconds=seconds,
        pause_seconds=pause_seconds,
        tool_calls=_calls(choice.message.tool_calls or ()),
    )


def _calls(calls: Iterable[ChatCompletionMessageToolCallUnion]) -> ToolCalls | None:
    """Return the functions that are called; a custom tool's call is no function's."""
    found = (
        function_call(call.function.name, call.function.arguments, call.id)
        for call in calls
        if call.type == "function"
    )
    return tuple(found) or None


async def _kept_open(client: AsyncOpenAI) -> AsyncGenerator[None]:
    """Close a client when the loop shuts its asynchronous generators down, or before."""
    try:
        yield
    finally:
        await client.close()


async def _end(line: _Line) -> None:
    await line.keeper.aclose()
