"""Asking a model over chat completions, on whichever server speaks them.

One request never raises: what went wrong is in the reply. It is sent once, and again where the
model has refused a setting that it can do without (`unitune.backends.kit.chat_completions`, by
which batches are made and read, too). The SDK's client belongs to an event loop, so each loop gets
its own, closed by the loop's end at the latest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import lru_cache

import openai
from httpx2 import Response
from openai import AsyncOpenAI

from unitune.backends.kit.chat_completions import Dialect, Refusal
from unitune.backends.rate_limits import rest
from unitune.models import Reply, Request
from unitune.security.json_fields import read_json
from unitune_providers.openai.errors import SDK_ERRORS, ours
from unitune_providers.openai.server import Server, async_client

CHAT_SECONDS = 600.0
"""Longest wait for one answer, as in the SDK: a model may think for minutes."""


@lru_cache(maxsize=256)
def dialect(server: Server, model: str, *, old_limit: bool) -> Dialect:
    """Return what is known of a model's wire; what it has refused once holds for this process.

    Args:
        server: Who is asked.
        model: The vendor's id.
        old_limit: Begin with `max_tokens`, which OpenAI has deprecated and others know alone.
    """
    del server, model  # each has its own
    return Dialect("max_tokens" if old_limit else "max_completion_tokens")


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
        old_limit: Begin with `max_tokens`, which OpenAI has deprecated and others know alone.
    """

    def __init__(self, server: Server, model: str, *, old_limit: bool = False) -> None:
        self._server = server
        self._model = model
        self._dialect = dialect(server, model, old_limit=old_limit)
        self._line: _Line | None = None

    @property
    def fingerprint(self) -> str:
        """Vendor and model id; the server too, where a job named it."""
        return f"{self._server.backend}:{self._server.mark(self._model)}"

    async def reply(self, request: Request) -> Reply:
        """Answer one request; a failure is in the reply's `error`."""
        started = time.perf_counter()
        body = self._dialect.body(self._model, request)
        while True:
            try:
                answer = await self._send(body)
                told = read_json(answer.content)
            except SDK_ERRORS as error:
                if not self._adapted(body, request, error):
                    known = ours(error, self._server, f"ask {self._model}")
                    return Reply.failed(known, time.perf_counter() - started)
            else:
                seconds = time.perf_counter() - started
                return self._dialect.read(body, told, seconds, rest(answer.headers))

    async def _send(self, body: dict[str, object]) -> Response:
        client = await self._client()
        # Its `create` would walk through every message once more, which takes longer than all
        # else that is done here.
        return await client.post("/chat/completions", cast_to=Response, body=body)

    def _adapted(self, body: dict[str, object], request: Request, error: Exception) -> bool:
        """Change a body that was refused for a setting that the model can do without."""
        if not isinstance(error, openai.APIStatusError):
            return False
        refusal = Refusal.read(error.status_code, error.body)
        return self._dialect.learn(body, request, refusal)

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


async def _kept_open(client: AsyncOpenAI) -> AsyncGenerator[None]:
    """Close a client when the loop shuts its asynchronous generators down, or before."""
    try:
        yield
    finally:
        await client.close()


async def _end(line: _Line) -> None:
    await line.keeper.aclose()
