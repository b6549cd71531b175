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

import httpx
from together import APIStatusError, AsyncTogether

from unitune.backends.kit.chat_completions import Dialect, Refusal
from unitune.backends.rate_limits import rest
from unitune.models import Reply, Request
from unitune.security.json_fields import Unreadable, read_json
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
        self._dialect = Dialect()
        self._lent: dict[asyncio.AbstractEventLoop, _Lent] = {}
        self.fingerprint = f"together:{name}"

    async def reply(self, request: Request) -> Reply:
        """Answer one request; what goes wrong is in the reply's `error`."""
        began = time.monotonic()
        body = _body(self._name, request, self._dialect)
        while True:
            try:
                async with self._client() as client:
                    answer = await client.post(
                        "/v1/chat/completions", cast_to=httpx.Response, body=body
                    )
                told = read_json(answer.content)
            except Unreadable:
                return Reply(error="together's answer holds no choice.", finish_reason="error")
            except FOREIGN as error:
                if not self._adapted(body, request, error):
                    known = ours(error, f"answer as {self._name}")
                    return Reply.failed(known, time.monotonic() - began)
            else:
                seconds = time.monotonic() - began
                return self._dialect.read(body, told, seconds, rest(answer.headers))

    def _adapted(self, body: dict[str, Any], request: Request, error: Exception) -> bool:
        """Change a body that was refused for a setting that the model can do without."""
        if not isinstance(error, APIStatusError):
            return False
        refusal = Refusal.read(error.status_code, error.body)
        return self._dialect.learn(body, request, refusal)

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


def _body(name: str, request: Request, dialect: Dialect) -> dict[str, Any]:
    """Return what is sent; a seed only where answers are drawn."""
    body = dialect.body(name, request)
    if not request.temperature:
        body.pop("seed", None)
    return body
