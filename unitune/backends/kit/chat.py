"""Models behind HTTP: `JsonChatModel` for any wire, `ChatCompletions` for OpenAI's.

They go over aiohttp, whose call costs a tenth of the processor time of an SDK's. A request is sent
once, and again where the model has refused a setting that it can do without
(`unitune.backends.kit.chat_completions`); whether again after a failure, the evaluation engine
decides.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from unitune.backends.kit.bodies import GZIP_ONLY, Body, BodyError
from unitune.backends.kit.chat_completions import Dialect, Refusal
from unitune.backends.kit.errors import TEXT_BYTES, Endpoint, ErrorResponse, Vendor, complaint
from unitune.backends.retry import rate_limit_delay
from unitune.errors import JobError, UnituneError
from unitune.models import ChatModel, Reply, Request
from unitune.security.addresses import NotAnAddress, checked
from unitune.security.json_fields import Unreadable, read_json

ANSWER_SECONDS = 600.0
"""Longest wait for one answer: a model may think for minutes."""
CONNECT_SECONDS = 10.0
NO_SUCCESS = 300
SILENT = (aiohttp.ClientError, TimeoutError, ConnectionError, BodyError)


class JsonChatModel(ChatModel):
    """A model that answers a POST of JSON; a subclass knows the wire.

    Its methods may raise a `JobError` for what the job itself has set, and a KeyError or ValueError
    for a request that cannot be sent.

    Args:
        endpoint: The server.
        path: Of its resource, below the address.
        model: Its name there, for messages.
        fingerprint: As `ChatModel.fingerprint`.
    """

    def __init__(self, endpoint: Endpoint, path: str, model: str, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._endpoint = endpoint
        self._url = f"{endpoint.url}{path}"
        self._model = model

    def body(self, request: Request) -> dict[str, object]:
        """Return a request as the wire has it; a ValueError says why it cannot be sent."""
        raise NotImplementedError

    def learn(self, body: dict[str, object], request: Request, refusal: Refusal) -> bool:
        """Change a body that was refused; False, the default: it cannot be mended."""
        del body, request, refusal
        return False

    def read(self, body: dict[str, object], answer: object, seconds: float) -> Reply | None:
        """Return a reply; None where the answer is none of a model."""
        raise NotImplementedError

    def headers(self) -> Mapping[str, str]:
        """Return what is sent beside the endpoint's own headers, anew for each request."""
        return {}

    async def reply(self, request: Request) -> Reply:
        """Answer one request; a failure is in the reply's `error`."""
        started = time.perf_counter()
        vendor, action = self._endpoint.vendor, f"answer as {self._model}"
        try:
            body = self.body(request)
            while True:
                sent = self.session().post(
                    self._url, data=json.dumps(body), headers=self.headers(), allow_redirects=False
                )
                async with sent as response:
                    content = await _content(response)
                seconds = time.perf_counter() - started
                if response.status < NO_SUCCESS:
                    return self._read(body, content, seconds, response.headers)
                if not self.learn(body, request, _refusal(response.status, content)):
                    words = complaint(content) or response.reason or ""
                    error = ErrorResponse(response.status, response.headers, words)
                    return Reply.failed(vendor.refused(action, error), seconds)
        except SILENT as error:
            return Reply.failed(vendor.unreachable(action, error), time.perf_counter() - started)
        except JobError:
            raise
        except UnituneError as error:  # such as credentials that give no token any more
            return Reply.failed(error, time.perf_counter() - started)
        except (KeyError, ValueError) as error:
            words = f"{self._model} cannot take this request: {error}"
            return Reply(error=words, finish_reason="error")

    async def aclose(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def session(self) -> aiohttp.ClientSession:
        """Return the session of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._loop = loop
            self._session = aiohttp.ClientSession(
                # The engine limits what is in flight; a second limit here would only queue.
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS),
                headers={"Content-Type": "application/json", **GZIP_ONLY, **self._endpoint.headers},
                proxy=_proxy(self._url),
                auto_decompress=False,
            )
        return self._session

    def _read(
        self,
        body: dict[str, object],
        content: bytes,
        seconds: float,
        headers: Mapping[str, str],
    ) -> Reply:
        with suppress(Unreadable):
            reply = self.read(body, read_json(content), seconds)
            if reply is not None:
                return replace(reply, retry_after_seconds=rate_limit_delay(headers))
        shown = content[:TEXT_BYTES].decode(errors="replace")
        broken = Unreadable(f"it sent no answer of a chat model: {shown!r}")
        action = f"answer as {self._model}"
        return Reply.failed(self._endpoint.vendor.unreachable(action, broken), seconds)


class ChatCompletions(JsonChatModel):
    """A model on a server that speaks OpenAI's chat completions.

    Args:
        endpoint: The server.
        model: Its name there.
        fingerprint: As `ChatModel.fingerprint`; the address and the name by default.
        dialect: What is known of the model's wire; shared, it is learnt once.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        *,
        fingerprint: str | None = None,
        dialect: Dialect | None = None,
    ) -> None:
        named = fingerprint or f"{endpoint.url}:{model}"
        super().__init__(endpoint, "/chat/completions", model, named)
        self._dialect = dialect or Dialect()

    def body(self, request: Request) -> dict[str, object]:
        """As of `JsonChatModel`."""
        return self._dialect.body(self._model, request)

    def learn(self, body: dict[str, object], request: Request, refusal: Refusal) -> bool:
        """As of `JsonChatModel`."""
        return self._dialect.learn(body, request, refusal)

    def read(self, body: dict[str, object], answer: object, seconds: float) -> Reply | None:
        """As of `JsonChatModel`."""
        reply = self._dialect.read(body, answer, seconds)
        return reply if reply.error is None else None


def open_server(url: str, model: str, *, key: str | None = None) -> ChatCompletions:
    """Return a model on any server of this wire.

    Args:
        url: Base URL, with its version: ``http://127.0.0.1:8000/v1``.
        model: Its name there.
        key: Sent as bearer token; None: none is sent.

    Raises:
        JobError: The URL is none.
    """
    try:
        base = checked(url)
    except NotAnAddress as error:
        raise JobError(f"{error}.") from None
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return ChatCompletions(Endpoint(Vendor(base, secrets=(key,)), base, headers), model)


async def _content(response: aiohttp.ClientResponse) -> bytes:
    body = Body(response.headers.get("Content-Encoding"))
    content = bytearray()
    async for data in response.content.iter_any():
        for piece in body.decompressed(data):
            content += piece
    body.end()
    return bytes(content)


def _refusal(status: int, content: bytes) -> Refusal:
    try:
        return Refusal.read(status, read_json(content))
    except Unreadable:
        return Refusal(status, complaint(content))


def _proxy(url: str) -> str | None:
    """Return the proxy that the environment names; aiohttp would look it up for each request."""
    address = urlsplit(url)
    if proxy_bypass(address.hostname or ""):
        return None
    return getproxies().get(address.scheme)
