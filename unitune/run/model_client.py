"""Define `ModelClient`, which sends requests to the model of a run from any program.

The model is opened at the first request. It stays open until `close`, the end of a `with` block or
the end of the process. All requests are sent from one event loop in a background thread
(`unitune.backends.event_loop`).
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import aclosing, suppress
from functools import cached_property
from queue import SimpleQueue
from typing import Self, TypeAlias
from weakref import WeakSet, finalize

from unitune.backends import event_loop, registry
from unitune.backends.retry import retry_reply, retry_stream
from unitune.data.example import Message
from unitune.data.load import load
from unitune.errors import BackendError
from unitune.ledger import Ledger
from unitune.models import ChatModel, Reply, Request, TunedModel
from unitune.run.deployment import answering, needs_deployments
from unitune.workspace.user_settings import Bound

# Long enough for a conversation, short enough to end the rambling of an untuned model
MAX_TOKENS = 512

Prompt: TypeAlias = str | Sequence[Message] | Request


class ModelClient(Bound):
    """Sends requests to the tuned model of a run, or to its untuned base.

    `unitune.Run.model` is one. Requests that fail temporarily (rate limit, server error, no answer)
    are sent up to six more times.

    Examples:
        >>> print(run.model.ask("Where is my parcel?"))
        >>> reply = await run.model.reply("Where is my parcel?")
        >>> print(reply.text, reply.completion_tokens)
    """

    def __init__(
        self, ledger: Ledger, run_id: str, model: TunedModel, *, base: bool = False
    ) -> None:
        self._ledger = ledger
        self._run_id = run_id
        self._tuned = model
        self._is_base = base
        self._opening = threading.Lock()
        self._chat: ChatModel | None = None
        self._forgotten: finalize[[ChatModel], ModelClient] | None = None

    def __repr__(self) -> str:
        return f"<ModelClient {self.name!r} on {self.backend_name}>"

    @property
    def name(self) -> str:
        """Model id at a vendor, or folder on this machine."""
        return self._tuned.base if self._is_base else self._tuned.name

    @property
    def backend_name(self) -> str:
        """Name of the backend."""
        return self._tuned.backend

    @cached_property
    def system(self) -> str | None:
        """System message shared by all training rows; None if they differ or are not here."""
        rows = self._ledger.run_folder(self._run_id) / "train.jsonl"
        if not rows.exists():
            return None
        first = (example.messages[0] for example in load(rows, use="any"))
        prompts = {message.text if message.role == "system" else None for message in first}
        return prompts.pop() if len(prompts) == 1 else None

    def ask(
        self, prompt: Prompt, *, system: str | None = None, max_tokens: int | None = None
    ) -> str:
        """Return the model's answer.

        This also works inside a running event loop but blocks it; `reply` does not.

        Args:
            prompt: A user's message, a conversation, or a whole request.
            system: The system message; by default `system`, unless the prompt has its own or is a
                `Request`. An empty string sends none.
            max_tokens: Maximum length of the answer; by default the request's, or 512.

        Raises:
            BackendError: The model did not answer.
            UserError: The model needs a deployment and none is ready.
        """
        request = self._request(prompt, system, max_tokens)
        reply = event_loop.run(_send(self._opened(), request))
        self._forget_deployment(reply)
        _raise_failure(self.name, reply)
        return reply.text

    def stream(
        self, prompt: Prompt, *, system: str | None = None, max_tokens: int | None = None
    ) -> AnswerStream:
        """Stream the model's answer; arguments as in `ask`.

        Examples:
            >>> for text in run.model.stream("Where is my parcel?"):
            ...     print(text, end="", flush=True)

        Raises:
            UserError: The model needs a deployment and none is ready.
        """
        request = self._request(prompt, system, max_tokens)
        chat = self._opened()
        pieces = retry_stream(lambda: chat.stream_reply(request))
        return AnswerStream(self.name, pieces, self._forget_deployment)

    async def reply(
        self, prompt: Prompt, *, system: str | None = None, max_tokens: int | None = None
    ) -> Reply:
        """Return the model's reply: text, tool calls, token counts, or the reason of a failure.

        Can be awaited in any event loop, also concurrently; arguments as in `ask`.

        Raises:
            UserError: The model needs a deployment and none is ready.
        """
        request = await asyncio.to_thread(self._request, prompt, system, max_tokens)
        chat = await asyncio.to_thread(self._opened)
        reply = await event_loop.in_background(_send(chat, request))
        await asyncio.to_thread(self._forget_deployment, reply)
        return reply

    def close(self) -> None:
        """Close connections or free the weights; the next request opens the model again."""
        with self._opening:
            chat, self._chat = self._chat, None
        if chat is not None and self._forgotten is not None:
            self._forgotten.detach()
            event_loop.run(chat.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(self, prompt: Prompt, system: str | None, max_tokens: int | None) -> Request:
        if isinstance(prompt, Request):
            request = prompt
        else:
            turns = (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt
            request = Request(messages=tuple(turns), max_tokens=MAX_TOKENS)
            if system is None and request.messages[0].role not in ("system", "developer"):
                system = self.system
        if system:
            first = Message(role="system", content=system)
            request = request.model_copy(update={"messages": (first, *request.messages)})
        if max_tokens is not None:
            request = request.model_copy(update={"max_tokens": max_tokens})
        return request

    def _opened(self) -> ChatModel:
        with self._opening:
            if self._chat is None:
                tuned = self._tuned
                name = tuned.base if self._is_base else answering(self._run_id, tuned)
                self._chat = registry.backend(tuned.backend).chat(name)
                # This reference keeps the model until it is closed, even in a garbage cycle.
                self._forgotten = finalize(self, _close_forgotten, self._chat)
                self._forgotten.atexit = False
                _open_clients.add(self)
            return self._chat

    def _forget_deployment(self, reply: Reply) -> None:
        if reply.error is not None and needs_deployments(self.backend_name):
            self.close()


class AnswerStream(Iterator[str]):
    """Texts of an answer as they arrive; can be iterated once.

    Args:
        name: Name of the model, for messages.
        pieces: Texts, followed by the reply.
        ended: Called with the reply.
    """

    def __init__(
        self,
        name: str,
        pieces: AsyncGenerator[str | Reply],
        ended: Callable[[Reply], None] = lambda _: None,
    ) -> None:
        self.text = ""
        """Text received so far."""
        self.reply: Reply | None = None
        """The complete reply, once received."""
        self._name, self._ended = name, ended
        self._texts = SimpleQueue[str | None]()
        self._work = event_loop.submit(self._take(pieces))

    @property
    def done(self) -> bool:
        """True if no more text follows."""
        return self._work.done()

    def __next__(self) -> str:
        """Wait for the next text.

        Raises:
            BackendError: The model did not answer, or the answer broke off.
        """
        if (text := self._texts.get()) is not None:
            return text
        self._texts.put(None)  # every further call must end, too
        with suppress(CancelledError):
            self._work.result()
        if self.reply is not None:
            self._ended(self.reply)
            _raise_failure(self._name, self.reply)
        raise StopIteration

    def stop(self) -> None:
        """Stop the answer; `text` keeps what was received."""
        self._work.cancel()
        self._texts.put(None)

    async def _take(self, pieces: AsyncGenerator[str | Reply]) -> None:
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    if isinstance(piece, Reply):
                        self.reply = piece
                    else:
                        self.text += piece
                        self._texts.put(piece)
        finally:
            self._texts.put(None)


def _raise_failure(name: str, reply: Reply) -> None:
    if reply.error is not None:
        raise BackendError(f"{name} did not answer: {reply.error}", status=reply.status)


async def _send(chat: ChatModel, request: Request) -> Reply:
    return await retry_reply(lambda: chat.reply(request))


def _close_forgotten(chat: ChatModel) -> None:
    with suppress(Exception):
        event_loop.submit(chat.aclose())


_open_clients = WeakSet[ModelClient]()


@atexit.register
def _close_all() -> None:
    for client in list(_open_clients):
        with suppress(Exception):
            client.close()
