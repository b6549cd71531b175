"""Asking a model on any server that speaks OpenAI's chat completions, over aiohttp.

For servers that no vendor's SDK is made for: vLLM, llama.cpp, Ollama, a gateway. It costs a tenth
of the processor time of an SDK. A request is sent once; whether again, `engine` decides. The
connections belong to the event loop in which the first request is sent, and are closed with it.

Not here: vendors' own models, which their backends ask through their SDKs.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from typing import Annotated, Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from pydantic import BaseModel, Field, ValidationError

from unitune.errors import BackendError, JobError, Unreachable
from unitune.models import Reply, Request
from unitune.ratelimits import asked_pause, rest

ANSWER_SECONDS = 120.0
"""Longest wait for one answer, as the backends wait."""
CONNECT_SECONDS = 10.0
BAD = 400
SHOWN = 300
"""Characters of an error body that is no JSON."""
FAILURES = (aiohttp.ClientError, TimeoutError, ConnectionError)


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Answer(BaseModel):
    """What is read of an answer; servers may send less than OpenAI does."""

    choices: Annotated[tuple[_Choice, ...], Field(min_length=1)]
    usage: _Usage | None = None


class ServerChatModel:
    """A model on a server.

    Args:
        url: Base URL, with its version: ``http://127.0.0.1:8000/v1``.
        model: Its name there.
        key: Sent as bearer token; None: none is sent.

    Raises:
        JobError: The URL is none.
    """

    def __init__(self, url: str, model: str, *, key: str | None = None) -> None:
        place = urlsplit(url)
        if place.scheme not in ("http", "https") or not place.hostname or "@" in place.netloc:
            raise JobError(
                f"{url!r} is no base URL of a server. Write it like http://127.0.0.1:8000/v1, "
                "without user name."
            )
        self.fingerprint = f"{url.rstrip('/')}:{model}"
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._model = model
        self._key = key
        self._session: aiohttp.ClientSession | None = None
        self._keeper: AsyncGenerator[aiohttp.ClientSession] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def reply(self, request: Request) -> Reply:
        """Answer one request; a failure is in the reply's `error`."""
        session = await self._open()
        started = time.perf_counter()
        try:
            async with session.post(self._url, data=self._body(request)) as answer:
                text = await answer.text()
                seconds = time.perf_counter() - started
                if answer.status >= BAD:
                    return Reply.failed(self._refusal(answer, text), seconds)
                return self._read(text, seconds, rest(answer.headers))
        except FAILURES as error:
            return Reply.failed(self._silence(error), time.perf_counter() - started)

    def close(self) -> None:
        """Close the connections, if their loop has not done so."""
        keeper, loop = self._keeper, self._loop
        self._keeper = self._loop = self._session = None
        if keeper is not None and loop is not None and not loop.is_closed():
            if loop.is_running():
                return  # it closes them when it ends
            loop.run_until_complete(keeper.aclose())

    async def _open(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._keeper, self._loop = _held_session(self._url, self._key), loop
            self._session = await anext(self._keeper)
        return self._session

    def _body(self, request: Request) -> bytes:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [message.asked for message in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if request.tools:
            body["tools"] = list(request.tools)
        if request.stop:
            body["stop"] = list(request.stop)
        return json.dumps(body).encode()

    def _read(self, text: str, seconds: float, pause: float | None) -> Reply:
        try:
            answer = _Answer.model_validate_json(text)
        except ValidationError:
            broken = f"{self._url} sent no answer of a chat model: {self._safe(text[:SHOWN])!r}."
            return Reply.failed(Unreachable(broken), seconds)
        choice, usage = answer.choices[0], answer.usage or _Usage()
        refused = choice.message.refusal
        return Reply(
            text=choice.message.content or refused or "",
            finish_reason="refusal" if refused else choice.finish_reason or "stop",
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            seconds=seconds,
            pause_seconds=pause,
        )

    def _refusal(self, answer: aiohttp.ClientResponse, text: str) -> BackendError:
        try:
            said: object = json.loads(text)
            while isinstance(said, dict):
                fields = cast("dict[str, object]", said)
                said = fields.get("message") or fields.get("error") or fields.get("detail")
        except ValueError:
            said = text[:SHOWN]
        words = self._safe(str(said or answer.reason or "no reason given")).rstrip(". ")
        return BackendError(
            f"{self._url} could not answer as {self._model}: {words} (HTTP {answer.status}).",
            status=answer.status,
            request_id=answer.headers.get("x-request-id"),
            retry_after=asked_pause(answer.headers),
        )

    def _silence(self, error: Exception) -> Unreachable:
        words = self._safe(f"{type(error).__name__}: {error}".rstrip(": "))
        return Unreachable(f"{self._url} gave no whole answer ({words}).")

    def _safe(self, words: str) -> str:
        """Take the key out, in case that a server repeats it."""
        return words.replace(self._key, "***") if self._key else words


async def _held_session(url: str, key: str | None) -> AsyncGenerator[aiohttp.ClientSession]:
    """Hold connections open; a loop that ends closes its asynchronous generators."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    # The engine limits what is in flight; a second limit here would only queue.
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, headers=headers, proxy=_proxy(url)
    ) as session:
        yield session


def _proxy(url: str) -> str | None:
    """Return the proxy that the environment names; aiohttp would look it up for each request."""
    place = urlsplit(url)
    if proxy_bypass(place.hostname or ""):
        return None
    return getproxies().get(place.scheme)
