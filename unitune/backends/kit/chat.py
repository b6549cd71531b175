"""`ChatCompletions`: a model on any server that speaks OpenAI's wire.

It goes over aiohttp, whose call costs a tenth of the processor time
of an SDK's. A request is sent once, and again where the model has refused a setting that it can do
without (`unitune.backends.kit.chat_completions`); whether again after a failure, the evaluation
engine decides.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from unitune.backends.kit.bodies import GZIP_ONLY, Body, BodyError
from unitune.backends.kit.chat_completions import Dialect, Refusal
from unitune.backends.kit.chat_model import Endpoint, RemoteChatModel
from unitune.backends.kit.errors import TEXT_BYTES, ErrorResponse, Vendor, complaint
from unitune.backends.rate_limits import rate_limit_delay
from unitune.errors import JobError
from unitune.models import Reply, Request
from unitune.security.addresses import NotAnAddress, checked
from unitune.security.json_fields import Unreadable, read_json

ANSWER_SECONDS = 600.0
"""Longest wait for one answer: a model may think for minutes."""
CONNECT_SECONDS = 10.0
NO_SUCCESS = 300
SILENT = (aiohttp.ClientError, TimeoutError, ConnectionError, BodyError)


class ChatCompletions(RemoteChatModel[aiohttp.ClientSession]):
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
        super().__init__(fingerprint or f"{endpoint.url}:{model}")
        self._endpoint = endpoint
        self._url = f"{endpoint.url}/chat/completions"
        self._model = model
        self._dialect = dialect or Dialect()

    async def reply(self, request: Request) -> Reply:
        """Answer one request; a failure is in the reply's `error`."""
        started = time.perf_counter()
        body = self._dialect.body(self._model, request)
        vendor, doing = self._endpoint.vendor, f"answer as {self._model}"
        try:
            while True:
                sent = self.client().post(self._url, data=json.dumps(body), allow_redirects=False)
                async with sent as response:
                    content = await _content(response)
                seconds = time.perf_counter() - started
                if response.status < NO_SUCCESS:
                    return self._read(body, content, seconds, response.headers)
                refusal = _refusal(response.status, content)
                if not self._dialect.learn(body, request, refusal):
                    words = complaint(content) or response.reason or ""
                    error = ErrorResponse(response.status, response.headers, words)
                    return Reply.failed(vendor.refused(doing, error), seconds)
        except SILENT as error:
            return Reply.failed(vendor.unreachable(doing, error), time.perf_counter() - started)

    def new_client(self) -> aiohttp.ClientSession:
        """Return a session for the running event loop."""
        return aiohttp.ClientSession(
            # The engine limits what is in flight; a second limit here would only queue.
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS),
            headers={"Content-Type": "application/json", **GZIP_ONLY, **self._endpoint.headers},
            proxy=_proxy(self._url),
            auto_decompress=False,
        )

    def _read(
        self, body: dict[str, object], content: bytes, seconds: float, headers: Mapping[str, str]
    ) -> Reply:
        with suppress(Unreadable):
            reply = self._dialect.read(body, read_json(content), seconds, rate_limit_delay(headers))
            if reply.error is None:
                return reply
        shown = content[:TEXT_BYTES].decode(errors="replace")
        broken = Unreadable(f"it sent no answer of a chat model: {shown!r}")
        error = self._endpoint.vendor.unreachable(f"answer as {self._model}", broken)
        return Reply.failed(error, seconds)


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
