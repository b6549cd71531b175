"""Asking a model at Together: `TogetherChatModel`, over the SDK's asynchronous client.

A client belongs to the event loop that it was made in, and evaluations begin a loop of their own
each time. So it is made for the first request in flight and closed with the last: requests that
overlap share its connections, nothing outlives a loop, and `close` can be called from anywhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from together import AsyncTogether
from together.types.chat import ChatCompletion

from unitune.models import Reply, Request, function_call
from unitune_providers.together.client import FOREIGN, api_key, chat_client, ours


@dataclass(slots=True)
class _Lent:
    client: AsyncTogether
    users: int = 0


class TogetherChatModel:
    """A base model, or the endpoint of a tuned one.

    Args:
        name: As Together calls it.

    Raises:
        UserError: There is no key.
    """

    def __init__(self, name: str) -> None:
        api_key()  # said now rather than once for each case
        self._name = name
        self._lent: dict[asyncio.AbstractEventLoop, _Lent] = {}
        self.fingerprint = f"together:{name}"

    async def reply(self, request: Request) -> Reply:
        """Answer one request; what goes wrong is in the reply's `error`."""
        began = time.monotonic()
        try:
            async with self._client() as client:
                completions: Any = client.chat.completions  # overloads that a mapping cannot meet
                answer: object = await completions.create(**_body(self._name, request))
        except FOREIGN as error:
            known = ours(error, f"answer as {self._name}")
            return Reply.failed(known, time.monotonic() - began)
        return _reply(answer, time.monotonic() - began)

    def close(self) -> None:
        """Free nothing: the last request in flight has closed the client."""

    @asynccontextmanager
    async def _client(self) -> AsyncGenerator[AsyncTogether]:
        loop = asyncio.get_running_loop()
        lent = self._lent.get(loop) or _Lent(chat_client())
        self._lent[loop] = lent
        lent.users += 1
        try:
            yield lent.client
        finally:
            lent.users -= 1
            if not lent.users:
                del self._lent[loop]
                await lent.client.close()


def _body(name: str, request: Request) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": name,
        "messages": [message.asked for message in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
    }
    if request.temperature:
        body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    if request.tools:
        body["tools"] = list(request.tools)
    return body


def _reply(answer: object, seconds: float) -> Reply:
    # A gateway's page in the place of an answer comes through the SDK as a string.
    choices = answer.choices if isinstance(answer, ChatCompletion) else None
    choice = choices[0] if choices else None
    if not isinstance(answer, ChatCompletion) or choice is None or choice.message is None:
        return Reply(error="together's answer holds no choice.", finish_reason="error")
    ended = choice.finish_reason or "stop"
    return Reply(
        text=choice.message.content or "",
        finish_reason="stop" if ended == "eos" else ended,
        prompt_tokens=answer.usage.prompt_tokens if answer.usage else None,
        completion_tokens=answer.usage.completion_tokens if answer.usage else None,
        seconds=seconds,
        tool_calls=tuple(
            function_call(call.function.name, call.function.arguments, call.id)
            for call in choice.message.tool_calls or ()
        )
        or None,
    )
