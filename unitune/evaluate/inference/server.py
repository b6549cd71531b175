"""Asking a model on any server that speaks OpenAI's chat completions, over aiohttp.

For servers that no vendor's SDK is made for: vLLM, llama.cpp, Ollama, a gateway. It costs a tenth
of the processor time of an SDK. A request is sent once, and again where the model has refused a
setting that it can do without (`unitune.backends.kit.chat_completions`); whether again after a
failure, `engine` decides. The connections belong to the event loop in which the first request is
sent, and are closed with it.

Not here: vendors' own models, which their backends ask through their SDKs.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from unitune.backends.kit.bodies import GZIP_ONLY, Body, BodyError
from unitune.backends.kit.chat_completions import Dialect, Refusal
from unitune.backends.rate_limits import asked_pause, rest
from unitune.errors import BackendError, JobError, Unreachable
from unitune.models import Reply, Request
from unitune.security.addresses import NotAnAddress, checked, redirected
from unitune.security.json_fields import Unreadable, read_json, whole_text
from unitune.security.redaction import redacted

ANSWER_SECONDS = 600.0
"""Longest wait for one answer, as the backends wait: a model may think for minutes."""
CONNECT_SECONDS = 10.0
NO_SUCCESS = 300
BAD = 400
SHOWN = 1000
"""Characters of what a server says."""
WORDS_BYTES = 16_000
"""Of an error body that is no JSON."""
FAILURES = (aiohttp.ClientError, TimeoutError, ConnectionError, BodyError)


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
        try:
            base = checked(url)
        except NotAnAddress as error:
            raise JobError(f"{error}.") from None
        self.fingerprint = f"{base}:{model}"
        self._url = f"{base}/chat/completions"
        self._model = model
        self._key = key
        self._dialect = Dialect()
        self._session: aiohttp.ClientSession | None = None
        self._keeper: AsyncGenerator[aiohttp.ClientSession] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def reply(self, request: Request) -> Reply:
        """Answer one request; a failure is in the reply's `error`."""
        session = await self._open()
        started = time.perf_counter()
        body = self._dialect.body(self._model, request)
        try:
            while True:
                sent = session.post(self._url, data=json.dumps(body), allow_redirects=False)
                async with sent as answer:
                    content = await _content(answer)
                seconds = time.perf_counter() - started
                if answer.status < NO_SUCCESS:
                    return self._read(body, content, seconds, rest(answer.headers))
                if not self._dialect.learn(body, request, _refusal(answer.status, content)):
                    return Reply.failed(self._refused(answer, content), seconds)
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

    def _read(
        self, body: dict[str, object], content: bytes, seconds: float, pause: float | None
    ) -> Reply:
        with suppress(Unreadable):
            reply = self._dialect.read(body, read_json(content), seconds, pause)
            if reply.error is None:
                return reply
        shown = self._safe(_words(content))
        broken = f"{self._url} sent no answer of a chat model: {shown!r}."
        return Reply.failed(Unreachable(broken), seconds)

    def _refused(self, answer: aiohttp.ClientResponse, content: bytes) -> BackendError:
        if answer.status < BAD:
            said = redirected(answer.headers.get("location"))
        else:
            said = _complaint(content) or answer.reason or "no reason given"
        words = self._safe(whole_text(said)).rstrip(". ")
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
        """Take the key out, in case that a server repeats it, then cut what is long."""
        return redacted(words, [self._key], SHOWN)


async def _content(answer: aiohttp.ClientResponse) -> bytes:
    body = Body(answer.headers.get("Content-Encoding"))
    content = bytearray()
    async for data in answer.content.iter_any():
        for piece in body.decompressed(data):
            content += piece
    body.end()
    return bytes(content)


def _refusal(status: int, content: bytes) -> Refusal:
    try:
        return Refusal.read(status, read_json(content))
    except Unreadable:
        return Refusal(status, _words(content))


def _complaint(content: bytes) -> str:
    """Return the message in an error's body, of any of its shapes."""
    try:
        said = read_json(content)
    except Unreadable:
        return _words(content)
    while isinstance(said, dict):
        fields = cast("dict[str, object]", said)
        said = fields.get("message") or fields.get("error") or fields.get("detail")
    return str(said or "")


def _words(content: bytes) -> str:
    """Return the beginning of a body that is no JSON."""
    return content[:WORDS_BYTES].decode(errors="replace")


async def _held_session(url: str, key: str | None) -> AsyncGenerator[aiohttp.ClientSession]:
    """Hold connections open; a loop that ends closes its asynchronous generators."""
    headers = {"Content-Type": "application/json", **GZIP_ONLY}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    # The engine limits what is in flight; a second limit here would only queue.
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        headers=headers,
        proxy=_proxy(url),
        auto_decompress=False,
    ) as session:
        yield session


def _proxy(url: str) -> str | None:
    """Return the proxy that the environment names; aiohttp would look it up for each request."""
    place = urlsplit(url)
    if proxy_bypass(place.hostname or ""):
        return None
    return getproxies().get(place.scheme)
