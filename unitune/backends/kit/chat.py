"""Send requests to models over HTTP: `JsonChatModel` for any API, `ChatCompletions` for OpenAI's.

`StreamingChatModel` is for any API that can stream answers. aiohttp is used because its calls cost
a tenth of an SDK's processor time. A request is sent once, and again only if the model refused a
setting that can be left out (`unitune.backends.kit.chat_completions`). Callers retry failures.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    suppress,
)
from dataclasses import replace
from functools import partial
from urllib.request import getproxies

import aiohttp

from unitune.backends.credentials import gateway_for
from unitune.backends.kit.chat_completions import (
    EVENT_STREAM,
    Dialect,
    Refusal,
    StreamedAnswer,
    StreamedCompletion,
    json_events,
)
from unitune.backends.kit.connection import GZIP_ONLY, Body, BodyError
from unitune.backends.kit.errors import (
    TEXT_BYTES,
    UNAUTHORIZED,
    Endpoint,
    ErrorResponse,
    Vendor,
    complaint,
)
from unitune.backends.kit.requests import chat_span
from unitune.backends.retry import rate_limit_delay
from unitune.errors import BackendError, JobError, UnituneError
from unitune.models import ChatModel, Reply, Request
from unitune.security.addresses import NotAnAddress, checked
from unitune.security.json_fields import Unreadable, read_json

ANSWER_SECONDS = 600.0  # longest wait for one answer: a model may reason for minutes
CONNECT_SECONDS = 10.0
NO_SUCCESS = 300
SERVER_ERROR = 500
# Statuses with which servers refuse unknown features, such as a stream
CANNOT_STREAM = (400, 404, 405, 415, 422, 501)
SILENT = (aiohttp.ClientError, TimeoutError, ConnectionError, BodyError, Unreadable)
# Failures that become a reply; a `JobError` is raised to the user
FAILURES = (*SILENT, UnituneError, KeyError, ValueError)


class JsonChatModel(ChatModel):
    """A model that answers a POST of JSON; a subclass implements the API.

    Its methods may raise a `JobError` for a setting of the job, and a KeyError or ValueError for a
    request that cannot be sent. The constructor raises a `UserError` for an unusable proxy or
    certificate file in the environment and for a gateway parameter that is not set.
    """

    def __init__(self, endpoint: Endpoint, path: str, model: str, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._endpoint = endpoint
        self._url = f"{endpoint.url}{path}"
        self._gateway = gateway_for(endpoint.url)
        self._proxy: str | None = None
        self._tls: ssl.SSLContext | bool = True
        if getproxies() or not self._url.lower().startswith("http:"):
            # httpx and certificates are slow to load
            from unitune.backends.kit.connection import proxy_for, tls_context  # noqa: PLC0415

            self._proxy, self._tls = proxy_for(self._url), tls_context()
        self._model = model
        self._action = f"answer as {model}"

    def body(self, request: Request) -> dict[str, object]:
        """Return the body of a request; raise ValueError if it cannot be sent."""
        raise NotImplementedError

    def learn(self, body: dict[str, object], request: Request, refusal: Refusal) -> bool:
        """Change a refused body and return whether it can be sent again; by default False."""
        del body, request, refusal
        return False

    def read(self, body: dict[str, object], answer: object, seconds: float) -> Reply | None:
        """Return the reply; None if the answer does not come from a model."""
        raise NotImplementedError

    async def reply(self, request: Request) -> Reply:
        with self.reported(request) as answered:
            return answered(await self.answer(request))

    def reported(self, request: Request) -> AbstractContextManager[Callable[[Reply], Reply]]:
        """Report the request of the body; pass the reply through the function."""
        return chat_span(self._endpoint.vendor.name, self._url, self._model, request)

    async def answer(self, request: Request) -> Reply:
        """Send a request and return the reply."""
        started = time.perf_counter()
        try:
            body = self.body(request)
            while True:
                async with self._post(self._url, body) as response:
                    content = await _content(response)
                if response.status < NO_SUCCESS or not self.learn(
                    body, request, _refusal(response.status, content)
                ):
                    return self._reply(body, response, content, started)
        except JobError:
            raise
        except FAILURES as error:
            return self._failed(error, started)

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def session(self) -> aiohttp.ClientSession:
        """Return the session of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._loop = loop
            self._session = aiohttp.ClientSession(
                # The engine limits concurrent requests; a second limit here would only queue.
                connector=aiohttp.TCPConnector(limit=0, ssl=self._tls),
                timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS),
                headers={"Content-Type": "application/json", **GZIP_ONLY},
                proxy=self._proxy,
                auto_decompress=False,
            )
        return self._session

    @asynccontextmanager
    async def _post(
        self, url: str, body: Mapping[str, object]
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Send a request, and again if its key was refused and there is a newer one."""
        query, headers = self._gateway.query, self._endpoint.request_headers(self._gateway)
        send = partial(
            self.session().post, url, data=json.dumps(body), params=query, allow_redirects=False
        )
        async with AsyncExitStack() as sending:
            response = await sending.enter_async_context(send(headers=headers))
            is_refused = response.status == UNAUTHORIZED
            if is_refused and (newer := self._endpoint.renewed_headers(headers, self._gateway)):
                response = await sending.enter_async_context(send(headers=newer))
            yield response

    def _reply(
        self,
        body: dict[str, object],
        response: aiohttp.ClientResponse,
        content: bytes,
        started: float,
    ) -> Reply:
        if response.status >= NO_SUCCESS:
            if _refusal(response.status, content).is_filtered:
                return Reply(finish_reason="content_filter", seconds=time.perf_counter() - started)
            words = complaint(content) or response.reason or ""
            return self._failed(self._refused(response.status, response, words), started)
        with suppress(Unreadable):
            reply = self.read(body, read_json(content), time.perf_counter() - started)
            if reply is not None and reply.error and reply.retryable:
                return self._failed(self._inside(reply.status, response, reply.error), started)
            if reply is not None:
                return replace(reply, retry_after_seconds=rate_limit_delay(response.headers))
        shown = content[:TEXT_BYTES].decode(errors="replace")
        return self._failed(
            Unreadable(f"the response is not a chat completion: {shown!r}"), started
        )

    def _refused(self, status: int, response: aiohttp.ClientResponse, words: str) -> BackendError:
        error = ErrorResponse(status, response.headers, words)
        return self._endpoint.vendor.refused(self._action, error)

    def _inside(
        self, code: int | None, response: aiohttp.ClientResponse, words: str
    ) -> BackendError:
        vendor, status = self._endpoint.vendor, code if code and code >= NO_SUCCESS else None
        return BackendError(
            f"{vendor.name} could not {self._action}: {vendor.safe(words) or 'no reason given'} "
            f"(error {status or 'without a code'} in a response with HTTP {response.status}).",
            status=status or SERVER_ERROR,
        )

    def _failed(self, error: Exception, started: float) -> Reply:
        seconds = time.perf_counter() - started
        if isinstance(error, UnituneError):  # such as expired credentials
            return Reply.failed(error, seconds)
        if isinstance(error, SILENT):
            return Reply.failed(self._endpoint.vendor.unreachable(self._action, error), seconds)
        words = f"{self._model} cannot take this request: {error}"
        return Reply(error=words, finish_reason="error")


class StreamingChatModel(JsonChatModel):
    """A `JsonChatModel` whose server can stream answers as server-sent events."""

    def streamed(self) -> StreamedAnswer:
        """Return an object that assembles the events of one answer."""
        raise NotImplementedError

    def streamed_body(self, body: dict[str, object]) -> dict[str, object]:
        """Return a body that requests a stream."""
        return {**body, "stream": True}

    def streamed_url(self) -> str:
        """Return the address for streamed requests."""
        return self._url

    async def stream_reply(self, request: Request) -> AsyncGenerator[str | Reply]:
        """Yield the answer's text as it arrives, and then the reply.

        If a server refuses to stream, the plain request is sent. A server that answers at once is
        read as is.
        """
        with self.reported(request) as answered:
            async with aclosing(self._stream(request)) as pieces:
                async for piece in pieces:
                    yield answered(piece) if isinstance(piece, Reply) else piece

    async def _stream(self, request: Request) -> AsyncGenerator[str | Reply]:
        answer, started, has_text = self.streamed(), time.perf_counter(), False
        try:
            body = self.streamed_body(self.body(request))
            while True:
                async with self._post(self.streamed_url(), body) as response:
                    if response.status < NO_SUCCESS and response.content_type == EVENT_STREAM:
                        async for text in self._texts(answer, response):
                            has_text = True
                            yield text
                        content = json.dumps(answer.whole()).encode()
                    else:
                        content = await _content(response)
                if response.status not in CANNOT_STREAM:
                    reply = self._reply(body, response, content, started)
                    break
                if not self.learn(body, request, _refusal(response.status, content)):
                    reply = await self.answer(request)
                    break
        except JobError:
            raise
        except FAILURES as error:
            reply = self._failed(error, started)
        if reply.text and not has_text:
            yield reply.text
        yield reply

    async def _texts(
        self, answer: StreamedAnswer, response: aiohttp.ClientResponse
    ) -> AsyncGenerator[str]:
        async with aclosing(json_events(_pieces(response))) as events:
            async for event in events:
                if event.all.get("error"):  # in the middle of an answer with status 200
                    code = event.fields("error").whole("code")
                    raise self._inside(code, response, complaint(event.all))
                if text := answer.add(event):
                    yield text
        if not answer.ended:
            raise BodyError("its stream ended before the answer did")


class ChatCompletions(StreamingChatModel):
    """A model on a server with OpenAI's chat completions API.

    Its fingerprint is by default the address and the name. Models can share a `dialect`, so that
    differences are learnt once.
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
        return self._dialect.body(self._model, request)

    def learn(self, body: dict[str, object], request: Request, refusal: Refusal) -> bool:
        return self._dialect.learn(body, request, refusal)

    def streamed_body(self, body: dict[str, object]) -> dict[str, object]:
        return self._dialect.streamed(body)

    def streamed(self) -> StreamedAnswer:
        return StreamedCompletion()

    def read(self, body: dict[str, object], answer: object, seconds: float) -> Reply | None:
        reply = self._dialect.read(body, answer, seconds)
        return reply if reply.error is None or reply.retryable else None


def open_server(url: str, model: str, *, key: Callable[[], str] | None = None) -> ChatCompletions:
    """Return a model on any server with this API; raise `JobError` for an invalid URL.

    The URL includes the version (``http://127.0.0.1:8000/v1``). `key` returns the bearer token for
    each request; without it, no token is sent.
    """
    try:
        base = checked(url)
    except NotAnAddress as error:
        raise JobError(f"{error}.") from None
    vendor = Vendor(base, secrets=(key(),) if key else ())
    return ChatCompletions(Endpoint(vendor, base, token=key), model)


async def _pieces(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    body = Body(response.headers.get("Content-Encoding"))
    async for data in response.content.iter_any():
        for piece in body.decompressed(data):
            yield piece
    body.end()


async def _content(response: aiohttp.ClientResponse) -> bytes:
    return b"".join([piece async for piece in _pieces(response)])


def _refusal(status: int, content: bytes) -> Refusal:
    try:
        return Refusal.read(status, read_json(content))
    except Unreadable:
        return Refusal(status, complaint(content))
