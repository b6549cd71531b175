"""A server of the tiny model on loopback, and the real `openai` client for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import torch
from aiohttp import web

from unitune.backends.capabilities import ServerSettings
from unitune.data.example import Message
from unitune_local.data.rendering import render_prompt
from unitune_local.inference.answers import Generated, Sampling
from unitune_local.inference.chat import LocalChatModel
from unitune_local.inference.generate import generate
from unitune_local.serving.scheduler import Scheduler
from unitune_local.serving.server import ModelServer

NAME = "tiny"


@dataclass
class Served:
    """A server, and a client of it."""

    url: str
    client: openai.AsyncOpenAI
    server: ModelServer
    engine: LocalChatModel
    """The same model, not served."""

    @property
    def scheduler(self) -> Scheduler:
        return self.server._scheduler

    def create(self, text: str, **options: Any) -> Any:
        """Send a request, which is awaited."""
        return self.client.chat.completions.create(
            model=NAME, messages=[{"role": "user", "content": text}], **{"max_tokens": 6, **options}
        )

    def alone(self, text: str, sampling: Sampling) -> Generated:
        """What the engine of evaluations answers to a text alone."""
        ids = render_prompt(self.engine.tokenizer, [Message(role="user", content=text)])
        (answer,) = generate(self.engine.model, self.engine.tokenizer, [ids], [sampling])
        return answer


@asynccontextmanager
async def served(
    model: Path, key: str | None = None, adapter: Path | None = None
) -> AsyncIterator[Served]:
    """Serve a model in float32 within the test's own loop."""
    chat = LocalChatModel(str(model), adapter, dtype=torch.float32)
    server = ModelServer(chat, ServerSettings(NAME, "127.0.0.1", 0, key))
    runner = web.AppRunner(server.application(), handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key or "none", max_retries=0)
    try:
        async with client:
            alone = LocalChatModel(str(model), adapter, dtype=torch.float32)
            yield Served(url, client, server, alone)
    finally:
        server._hurry.set()
        await runner.cleanup()


@contextmanager
def served_apart(model: Path) -> Iterator[str]:
    """Serve a model from a thread of its own; gives the base URL."""
    url = Future[str]()

    async def serve() -> None:
        async with served(model) as place:
            url.set_result(f"{place.url}/v1")
            await over.wait()

    loop, over = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        yield url.result(timeout=60)
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


async def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something holds, and fail where it does not in time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
