"""Serve OpenAI's chat completions with a local model, over HTTP with server-sent events.

Without a key, only programs on this machine are answered: a browser would first need permission to
send JSON, and other host names (DNS rebinding) are refused. After SIGINT or SIGTERM, running
answers get `GRACE_SECONDS`; a second signal ends them, and soon the process.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from unitune.backends.capabilities import ServerSettings
from unitune.errors import UserError
from unitune_local import machine
from unitune_local.data.chat_text import TemplateError, with_request
from unitune_local.data.rendering import render_prompt
from unitune_local.inference.chat import LocalChatModel
from unitune_local.inference.generate import batch_bytes
from unitune_local.serving.request import Closed, ModelFailed, Piece
from unitune_local.serving.scheduler import Scheduler
from unitune_local.serving.wire import ChatRequest, Completion, ServerError

# With any port, as ssh may forward another one
LOCAL_HOST = re.compile(r"(127(\.\d{1,3}){3}|localhost|\[::1\])(:\d{1,5})?")
LARGEST_BODY = 16 << 20  # bytes; a context of a million tokens takes a quarter of it
# Bytes of bodies being received; requests beyond that are refused with 503
MOST_READING = 8 * LARGEST_BODY
BODY_SECONDS = 60.0  # for a client to send its whole body
MOST_WAITING = 1024  # requests; others are refused with 503
GRACE_SECONDS = 30.0
CLOSING_SECONDS = 5.0  # for the last events of streams that are ended
INTERRUPTED = 130  # exit code of a process that did not end by itself
PREFIX_BYTES = 2 << 30
# Maximum tokens of an answer, if neither the request nor the model's context has a limit
NO_LIMIT = 4096
END = b"data: [DONE]\n\n"


def serve(chat: LocalChatModel, settings: ServerSettings, announce: Callable[[str], None]) -> None:
    """Serve a model until SIGINT or SIGTERM; raises UserError if the address cannot be used."""
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a host name"
        raise UserError(
            f"port {port} of {host} cannot be used: {why}. Choose another with --port or --host; "
            "--port 0 takes any free port."
        ) from error
    with listening:
        _ = chat.model  # takes up to a minute, during which Ctrl-C still ends the command
        asyncio.run(_serve(chat, settings, listening, announce))


async def _serve(
    chat: LocalChatModel,
    settings: ServerSettings,
    listening: socket.socket,
    announce: Callable[[str], None],
) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()

    def end() -> None:
        if stop.is_set():
            hurry.set()
            # A thread that computes cannot be stopped, and Python would wait for it.
            last = threading.Timer(2 * CLOSING_SECONDS, os._exit, (INTERRUPTED,))
            last.daemon = True
            last.start()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end)
    server = ModelServer(chat, settings, hurry)
    runner = web.AppRunner(
        server.application(),
        handler_cancellation=True,  # of requests whose client has disconnected
        access_log=None,
        shutdown_timeout=CLOSING_SECONDS,
    )
    await runner.setup()
    await web.SockSite(runner, listening).start()
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:  # all addresses of this machine
        host = socket.gethostname()
    announce(f"http://{f'[{host}]' if ':' in host else host}:{port}/v1")
    await stop.wait()
    await runner.cleanup()


class ModelServer:
    """One model and its routes; created within an event loop."""

    def __init__(
        self, chat: LocalChatModel, settings: ServerSettings, hurry: asyncio.Event | None = None
    ) -> None:
        self._chat = chat
        self._settings = settings
        self._hurry = hurry or asyncio.Event()
        self._fingerprint = f"fp_{chat.fingerprint[:12]}"
        self._created = int(time.time())
        self._open = self._reading = 0
        self._closing = False
        model = chat.model
        free = machine.available_bytes(model.device.type)
        self._scheduler = Scheduler(
            model,
            chat.tokenizer,
            answer_bytes=max(batch_bytes(model.device), free // 2),
            prefix_bytes=min(PREFIX_BYTES, free // 8),
        )

    def application(self) -> web.Application:
        """Return the web application."""
        app = web.Application(middlewares=[_explain, self._guard], client_max_size=LARGEST_BODY)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/v1/models", self._models),
                web.get("/v1/models/{model:.+}", self._model),
                web.post("/v1/chat/completions", self._complete),
            ]
        )
        app.on_shutdown.append(self._end)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        key = self._settings.key
        if key is None and not LOCAL_HOST.fullmatch(request.host):
            text = "Without a key, this server only answers requests to 127.0.0.1 and localhost."
            raise ServerError(403, text, code="forbidden_host")
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        sent = given.encode(errors="surrogateescape")  # its exact bytes, if they are not text
        known = key is None or hmac.compare_digest(sent, key.encode(errors="surrogateescape"))
        if not known and request.path != "/health":
            text = "The API key is missing or wrong; send it as `Authorization: Bearer KEY`."
            raise ServerError(401, text, code="invalid_api_key")
        return await handler(request)

    async def _health(self, _request: web.Request) -> web.Response:
        status = "closing" if self._closing else "ok"
        content = {"status": status, "model": self._settings.name, "requests": self._open}
        return web.json_response(content, status=503 if self._closing else 200)

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._description]})

    async def _model(self, request: web.Request) -> web.Response:
        self._check_model(request.match_info["model"])
        return web.json_response(self._description)

    @property
    def _description(self) -> dict[str, Any]:
        name, created = self._settings.name, self._created
        return {"id": name, "object": "model", "created": created, "owned_by": "unitune"}

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if request.content_type != "application/json":
            text = f"The body is {request.content_type}; send application/json."
            raise ServerError(415, text)
        wanted = ChatRequest.read(await self._body(request))
        self._check_model(wanted.model)
        if self._closing or self._scheduler.load >= MOST_WAITING:
            why = "is shutting down" if self._closing else "has too many requests"
            raise ServerError(503, f"The server {why}; try again later.", code="overloaded")
        ids = await asyncio.to_thread(self._prompt, wanted)
        completion = Completion(self._settings.name, self._fingerprint, wanted, len(ids))
        answer = self._scheduler.answer(
            ids,
            wanted.sampling(self._room(ids)),
            streamed=wanted.stream,
            top_logprobs=wanted.top_logprobs if wanted.logprobs else None,
        )
        self._open += 1
        try:
            async with aclosing(answer):
                if wanted.stream:
                    return await _stream(request, completion, answer)
                return web.json_response(completion.whole(await anext(answer)))
        finally:
            self._open -= 1
            if self._closing and not self._open:
                self._hurry.set()

    async def _body(self, request: web.Request) -> bytes:
        """Receive a body within the limits of time and of memory for all requests."""
        size = min(request.content_length or LARGEST_BODY, LARGEST_BODY)
        if self._reading + size > MOST_READING:
            text = "The server receives too many large requests; try again later."
            raise ServerError(503, text, code="overloaded")
        self._reading += size
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await request.read()
        except TimeoutError:
            text = f"The body did not arrive within {BODY_SECONDS:g} s."
            raise ServerError(408, text, code="timeout") from None
        finally:
            self._reading -= size

    def _check_model(self, name: str) -> None:
        if name != self._settings.name:
            text = f"The model {name!r} does not exist; this server serves {self._settings.name!r}."
            raise ServerError(404, text, param="model", code="model_not_found")

    def _prompt(self, wanted: ChatRequest) -> list[int]:
        if self._chat.context and len(wanted.messages) > self._chat.context:
            raise _too_long(f"The request has {len(wanted.messages)} messages", self._chat.context)
        try:
            kwargs = {**self._settings.chat_template_kwargs, **wanted.chat_template_kwargs}
            tokenizer = with_request(self._chat.tokenizer, None, kwargs)
            return render_prompt(tokenizer, wanted.messages, wanted.usable_tools or None)
        except TemplateError as error:
            raise ServerError(400, str(error), param="messages", code="invalid_value") from None

    def _room(self, ids: list[int]) -> int:
        context = self._chat.context
        if context is None:
            return NO_LIMIT
        if len(ids) >= context:
            raise _too_long(f"The messages have {len(ids)} tokens", context)
        return context - len(ids)

    async def _end(self, _app: web.Application) -> None:
        self._closing = True
        if self._open:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), GRACE_SECONDS)
        await self._scheduler.close()


async def _stream(
    request: web.Request, completion: Completion, answer: AsyncGenerator[Piece]
) -> web.StreamResponse:
    """Send an answer as it grows; a failure is its last event."""
    headers = {
        "Content-Type": "text/event-stream",
        "Cache-Control": "no-cache",
        "X-Accel-Buffering": "no",  # nginx would hold it back
    }
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    await response.write(_event(completion.first()))
    try:
        async for piece in answer:
            await response.write(b"".join(map(_event, completion.chunks(piece))))
    except (Closed, ModelFailed) as error:
        await response.write(_event(_failure(error).body))
    await response.write(END)
    await response.write_eof()
    return response


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"


def _too_long(size: str, context: int) -> ServerError:
    text = f"{size}, but the model's context is {context} tokens, with its answer. Shorten them."
    return ServerError(400, text, param="messages", code="context_length_exceeded")


def _failure(error: Exception) -> ServerError:
    if isinstance(error, Closed):
        return ServerError(503, "The server is shutting down.", code="shutting_down")
    return ServerError(500, f"The model failed on this request: {error}", code="model_failed")


@web.middleware
async def _explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ServerError as error:
        refused = error
    except (Closed, ModelFailed) as error:
        refused = _failure(error)
    except web.HTTPRequestEntityTooLarge:
        refused = ServerError(413, f"The body is larger than {LARGEST_BODY} bytes.")
    except web.HTTPException as error:
        text = f"{request.method} {request.path} does not exist; try POST /v1/chat/completions."
        refused = ServerError(error.status, text)
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}
    status = refused.status
    return web.json_response(refused.body, status=status, headers=headers.get(status))
