"""Asking a model: `Request` in, `Reply` out, through a `ChatModel`; and what tuning leaves behind.

A ChatModel belongs to the backend that made it. It sends a request once and never raises for a
single failed one: the reply then carries `error`, so that an evaluation records a row instead of
crashing, and says whether a retry is of use. Retries, and how many requests are sent at once, are
the business of `unitune.evaluate.inference.engine`.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Literal, NamedTuple, Protocol, Self, TypeAlias, runtime_checkable

from pydantic import AfterValidator, JsonValue
from pydantic.dataclasses import dataclass

from unitune.data.example import Message
from unitune.errors import BackendError, UnituneError
from unitune.security.json_fields import whole_text
from unitune.security.spec import Frozen

# Calls of tools in OpenAI's form; `function_call` makes one
ToolCalls: TypeAlias = tuple[dict[str, JsonValue], ...]


def _whole_calls(calls: ToolCalls | None) -> ToolCalls | None:
    """Return calls with unpaired surrogates replaced."""
    text = json.dumps(calls, ensure_ascii=False)
    whole = whole_text(text)
    return calls if whole == text else tuple(json.loads(whole))


# A vendor's text, such that it can be written down: no file holds an unpaired surrogate
Text: TypeAlias = Annotated[str, AfterValidator(whole_text)]


class Request(Frozen):
    """One question to a model."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, JsonValue], ...] | None = None
    max_tokens: int = 256
    """Longest answer in tokens."""
    temperature: float = 0.0
    """0 is greedy."""
    seed: int = 0
    """Seed of the sampling when the temperature is not 0."""
    stop: tuple[str, ...] = ()
    """Strings that end the answer; they are not part of it."""
    response_schema: dict[str, JsonValue] | None = None
    """JSON Schema that the answer must follow, by the vendor's structured output."""
    chat_template: str | None = None
    """Chat template in Jinja in place of the model's own, for models on this machine."""
    chat_template_kwargs: dict[str, JsonValue] = {}  # noqa: RUF012 - pydantic copies it
    """Variables of the chat template, for models on this machine and servers that take them."""
    fixed: tuple[Literal["temperature", "max_tokens"], ...] = ()
    """Settings that the user has named: where a model does not take one, the request has failed.
    Others are the best that a model takes, and what it did not take stands in the reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer, or why there is none."""

    text: Text = ""
    finish_reason: Text = "stop"
    """stop, length, or the vendor's own word."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """All that the vendor counts as answered, thoughts included."""
    reasoning_tokens: int | None = None
    """Those of them that were spent on thoughts; None where the vendor does not say."""
    thought: bool = False
    """Whether thoughts came before the answer, that are no part of it."""
    max_tokens: int | None = None
    """The longest answer that it was allowed, where that is known."""
    left_out: tuple[str, ...] = ()
    """Settings that the model refused, so that the request was sent without them."""
    seconds: float | None = None
    """Wall time of this request; for batched local models its share of the batch."""
    tool_calls: Annotated[ToolCalls | None, AfterValidator(_whole_calls)] = None
    """Which tools the answer calls; None when none."""
    given: dict[str, float] | None = None
    """Scores that stand beside a recorded answer, by the names that another tool gave them."""
    error: Text | None = None
    """Why there is no answer; None when there is one."""
    status: int | None = None
    """HTTP status of a refusal, where there was one."""
    retryable: bool = False
    """Whether the same request may be answered later."""
    retry_after_seconds: float | None = None
    """What the vendor asks to wait before its next request, after a refusal or beside an answer."""

    @classmethod
    def failed(cls, error: UnituneError, seconds: float | None = None) -> Self:
        """Return the reply that there is no answer."""
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
    """Return a call of a tool in OpenAI's form.

    Args:
        name: Of the function.
        arguments: As values, or as the JSON text that the model wrote.
        call_id: By which a result refers to it.
    """
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    named: dict[str, JsonValue] = {} if call_id is None else {"id": call_id}
    return {**named, "type": "function", "function": {"name": name, "arguments": text}}


class TunedModel(Frozen):
    """What a successful run leaves behind."""

    backend: str
    name: str
    """How the backend calls it: a vendor's model id, or a folder for local models."""
    base: str
    """Name of the base model."""
    base_fingerprint: str | None = None
    """Hash of the base's weights, tokenizer and template, where the backend can know it."""
    data_fingerprint: str | None = None
    """Hash of the training rows."""


_MODEL = r"(?P<model>[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?)"
_VERSION_NAME = re.compile(
    rf"{_MODEL}(?::(?P<number>[1-9]\d{{0,8}})|@(?P<alias>[A-Za-z][\w-]{{0,39}}))", re.ASCII
)


class VersionName(NamedTuple):
    """A version of a registered model by its name: ``NAME:3``, or ``NAME@ALIAS``."""

    model: str
    number: int | None  # none: the one that the alias points to
    alias: str | None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the version that a text names; None where it has not that form."""
        match = _VERSION_NAME.fullmatch(text)
        if match is None:
            return None
        number = match["number"] and int(match["number"])
        return cls(match["model"], number or None, match["alias"])

    def __str__(self) -> str:
        return f"{self.model}@{self.alias}" if self.alias else f"{self.model}:{self.number}"


# Code of the finding that a training is to go on from a model of another base
OTHER_BASE = "start-other-base"


class Start(Frozen):
    """The tuned model that a training goes on from, instead of beginning at its base."""

    run: str | None = None
    """Id of the run that left it behind; None where no run of the ledger has."""
    model: TunedModel
    content: str | None = None
    """Hash of a folder's files; None where that is not known."""

    @property
    def identity(self) -> str:
        """What tells this start from others."""
        return self.run or self.content or self.model.name

    def __str__(self) -> str:
        return f"run {self.run}" if self.run else self.model.name


class ChatModel(Protocol):
    """A model that answers one request at a time, used within one event loop.

        async with backend.chat(name) as model:
            reply = await model.reply(request)

    Who cannot use ``async with`` calls `aclose` in the loop of the requests.
    """

    fingerprint: str
    """Everything about the model that determines its answers, hashed or named."""

    async def reply(self, request: Request) -> Reply:
        """Answer one request; a failure is in the reply's `error`."""
        ...

    async def stream_reply(self, request: Request) -> AsyncGenerator[str | Reply]:
        """Yield the answer's text as it comes, and then the reply, whose text is all of it.

        A backend that does not stream yields the whole answer at once, which is the default.
        """
        reply = await self.reply(request)
        if reply.text:
            yield reply.text
        yield reply

    async def aclose(self) -> None:
        """Close connections, or free the weights; a second call does nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


Placed: TypeAlias = Sequence[tuple[int, Reply]]  # some replies, each with the place of its request


@runtime_checkable
class BatchedChatModel(ChatModel, Protocol):
    """A model that is faster when it answers many requests at once, as local ones are."""

    batch_size: int
    """How many requests it likes to have at once."""

    def stream(self, requests: Sequence[Request]) -> AsyncGenerator[Placed]:
        """Answer all requests, some at a time: whenever answers are there, with their places."""
        ...
