"""Define the interface to models (`ChatModel`, `Request`, `Reply`) and the record of a tuned model.

A ChatModel sends a request once. It reports a failed request in the reply's `error` instead of
raising, so that an evaluation can record it. `unitune.evaluate.inference.engine` retries.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Literal, NamedTuple, Protocol, Self, TypeAlias, runtime_checkable

from pydantic import AfterValidator, JsonValue
from pydantic.dataclasses import dataclass

from unitune.data.example import Message
from unitune.documents import Frozen
from unitune.errors import BackendError, UnituneError
from unitune.security.json_fields import whole_text

# Tool calls in OpenAI's form; `function_call` makes one
ToolCalls: TypeAlias = tuple[dict[str, JsonValue], ...]


def _whole_calls(calls: ToolCalls | None) -> ToolCalls | None:
    text = json.dumps(calls, ensure_ascii=False)
    whole = whole_text(text)
    return calls if whole == text else tuple(json.loads(whole))


# A vendor's text without unpaired surrogates, which cannot be written to a file
Text: TypeAlias = Annotated[str, AfterValidator(whole_text)]


class Request(Frozen):
    """One request to a model."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, JsonValue], ...] | None = None
    max_tokens: int = 256
    """Maximum length of the answer in tokens."""
    temperature: float = 0.0
    """0 is greedy."""
    seed: int = 0
    """Seed of the sampling when the temperature is not 0."""
    stop: tuple[str, ...] = ()
    """Strings that end the answer; they are not part of it."""
    response_schema: dict[str, JsonValue] | None = None
    """JSON Schema for the vendor's structured output."""
    chat_template: str | None = None
    """Jinja chat template that replaces the model's own, for local models."""
    chat_template_kwargs: dict[str, JsonValue] = {}  # noqa: RUF012 - pydantic copies it
    """Variables of the chat template, for local models and servers that support them."""
    fixed: tuple[Literal["temperature", "max_tokens"], ...] = ()
    """Settings chosen by the user. A request fails if the model does not support one of them;
    other settings are left out of the request and listed in the reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer, or the reason why it is missing."""

    text: Text = ""
    finish_reason: Text = "stop"
    """stop, length, or the vendor's own value."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """Answer tokens as counted by the vendor, reasoning included."""
    reasoning_tokens: int | None = None
    """Share of `completion_tokens` spent on reasoning; None if unknown."""
    thought: bool = False
    """True if the model reasoned before the answer; the reasoning is not in `text`."""
    reasoning: Text | None = None
    """The reasoning, if the vendor shows it."""
    max_tokens: int | None = None
    """Token limit of the answer, if known."""
    left_out: tuple[str, ...] = ()
    """Settings that the model refused and that were not sent."""
    seconds: float | None = None
    """Wall time of the request; for batched local models, its share of the batch."""
    tool_calls: Annotated[ToolCalls | None, AfterValidator(_whole_calls)] = None
    """Tool calls of the answer; None without any."""
    given: dict[str, float] | None = None
    """Scores recorded with the answer by another tool, by name."""
    error: Text | None = None
    """Reason for a missing answer; None if there is an answer."""
    status: int | None = None
    """HTTP status of a refused request."""
    retryable: bool = False
    """True if the same request may succeed later."""
    retry_after_seconds: float | None = None
    """Wait before the next request, as requested by the vendor."""

    @classmethod
    def failed(cls, error: UnituneError, seconds: float | None = None) -> Self:
        """Return a reply that carries an error."""
        vendor = error if isinstance(error, BackendError) else None
        return cls(
            finish_reason="error",
            seconds=seconds,
            error=str(error),
            status=vendor and vendor.status,
            retryable=error.is_retryable,
            retry_after_seconds=vendor and vendor.retry_after,
        )


def function_call(
    name: str, arguments: JsonValue, call_id: str | None = None
) -> dict[str, JsonValue]:
    """Return a tool call in OpenAI's form.

    Args:
        name: Name of the function.
        arguments: Values, or the JSON text that the model wrote.
        call_id: Id that the tool's result refers to.
    """
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    named: dict[str, JsonValue] = {} if call_id is None else {"id": call_id}
    return {**named, "type": "function", "function": {"name": name, "arguments": text}}


def plain_calls(calls: ToolCalls | None) -> ToolCalls | None:
    """Return calls without what a vendor adds to them, such as signatures of its reasoning."""
    keys = ("id", "type", "function")
    return calls and tuple({key: call[key] for key in keys if key in call} for call in calls)


class TunedModel(Frozen):
    """A model trained by a successful run."""

    backend: str
    name: str
    """The vendor's model id; for a local model its folder."""
    base: str
    """Name of the base model."""
    base_fingerprint: str | None = None
    """Hash of the base model's weights, tokenizer and template, if known."""
    data_fingerprint: str | None = None
    """Hash of the training rows."""


_MODEL = r"(?P<model>[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?)"
_VERSION_NAME = re.compile(
    rf"{_MODEL}(?::(?P<number>[1-9]\d{{0,8}})|@(?P<alias>[A-Za-z][\w-]{{0,39}}))", re.ASCII
)


class VersionName(NamedTuple):
    """Name of a registered model's version: ``NAME:3`` or ``NAME@ALIAS``."""

    model: str
    number: int | None  # None: the version that the alias points to
    alias: str | None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse a version name; return None if the text has another form."""
        match = _VERSION_NAME.fullmatch(text)
        if match is None:
            return None
        number = match["number"] and int(match["number"])
        return cls(match["model"], number or None, match["alias"])

    def __str__(self) -> str:
        return f"{self.model}@{self.alias}" if self.alias else f"{self.model}:{self.number}"


# Code of the finding about continuing from a model with another base
OTHER_BASE = "start-other-base"


class Start(Frozen):
    """The tuned model that a training starts from instead of its base model."""

    run: str | None = None
    """Id of the run that trained it; None if the ledger has no such run."""
    model: TunedModel
    content: str | None = None
    """Hash of the files of a model folder; None if unknown."""

    @property
    def identity(self) -> str:
        """Value that identifies this start."""
        return self.run or self.content or self.model.name

    def __str__(self) -> str:
        return f"run {self.run}" if self.run else self.model.name


class ChatModel(Protocol):
    """A model that answers one request at a time, in one event loop.

        async with backend.chat(name) as model:
            reply = await model.reply(request)

    Without ``async with``, call `aclose` in the event loop of the requests.
    """

    fingerprint: str  # name or hash of everything that determines the model's answers

    async def reply(self, request: Request) -> Reply:
        """Answer one request; report a failure in the reply's `error`."""
        ...

    async def stream_reply(self, request: Request) -> AsyncGenerator[str | Reply]:
        """Yield the answer's text as it arrives, and at the end the complete reply.

        By default, the whole text is yielded at once.
        """
        reply = await self.reply(request)
        if reply.text:
            yield reply.text
        yield reply

    async def aclose(self) -> None:
        """Close connections or free the weights; a second call does nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


Placed: TypeAlias = Sequence[tuple[int, Reply]]  # replies, each with the index of its request


@runtime_checkable
class BatchedChatModel(ChatModel, Protocol):
    """A model that answers many requests at once faster, such as a local one."""

    batch_size: int  # preferred number of requests at once

    def stream(self, requests: Sequence[Request]) -> AsyncGenerator[Placed]:
        """Answer all requests; yield replies with the index of their request as they finish."""
        ...


class TextLoss(NamedTuple):
    """Loss of a model on a text."""

    nats: float  # negative log-likelihood of all tokens but the first
    tokens: int  # number of these tokens


@runtime_checkable
class ScoresText(Protocol):
    """A model that can compute its loss on a text, such as a local one."""

    def text_losses(self, texts: Sequence[str]) -> list[TextLoss]:
        """Return the loss on each text without a chat template, cut at the model's context."""
        ...
