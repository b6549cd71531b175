"""Read OpenAI chat completion requests, and write the responses.

Fields that would change an answer and are not supported are refused; others are ignored. A request
without a temperature is answered greedily, as in an evaluation.

Source: openai/openai-openapi, openapi.json (API 2.3.0, 2026-08-21), chat completions and models.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from unitune.data.example import Message, explain
from unitune.files.validation import Part, by_location, dotted, sentence
from unitune_local.inference.answers import Sampling
from unitune_local.inference.structured import (
    SchemaError,
    ToolAnswer,
    call_begins,
    grammar_of,
    read_calls,
)
from unitune_local.serving.request import Piece, TokenChance

IGNORED = frozenset(  # fields that do not change an answer
    {
        "metadata",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
ONLY: Mapping[str, JsonValue] = {  # fields that are only accepted with their default
    "frequency_penalty": 0,
    "logit_bias": {},
    "modalities": ["text"],
    "n": 1,
    "presence_penalty": 0,
}
# Fields that clients send back with an assistant's message; no prompt contains them
OF_ANSWERS = ("annotations", "audio", "function_call", "refusal")
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
# Compared with the answer at every token. OpenAI states no limit; clients send words.
Stop = Annotated[str, Field(min_length=1, max_length=1_000)]


class ServerError(Exception):
    """A refusal or failure in OpenAI's format."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    @property
    def body(self) -> dict[str, JsonValue]:
        """Body of the response."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": cast("JsonValue", error)}


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False
    include_obfuscation: bool = False


class JsonSchemaFormat(BaseModel):
    """A JSON Schema that the answer must follow."""

    model_config = ConfigDict(extra="forbid")
    name: str
    schema_: Annotated[dict[str, JsonValue], Field(alias="schema")] = {}
    description: str | None = None
    strict: bool | None = None
    """Accepted for compatibility: the answer always follows the schema."""


class ResponseFormat(BaseModel):
    """Form of an answer: any text, any JSON object, or JSON that follows a schema."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _schema_where_one_is_due(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema is required for type json_schema, and only for it")
        return self

    @property
    def grammar(self) -> str | None:
        """Grammar that the answer must follow, if any; raises ServerError if it is unsupported."""
        if self.type == "text":
            return None
        schema = {"type": "object"} if self.json_schema is None else self.json_schema.schema_
        try:
            return grammar_of(schema)
        except SchemaError as error:
            raise ServerError(
                400, str(error), param="response_format", code="invalid_value"
            ) from None


class ChatRequest(BaseModel):
    """Body of a request, without ignored and empty fields."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    model: str
    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    tools: tuple[dict[str, JsonValue], ...] = ()
    tool_choice: Literal["auto", "none"] = "auto"
    chat_template_kwargs: dict[str, JsonValue] = {}
    """Variables of the chat template, as in vLLM."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1
    seed: Seed = Field(default_factory=lambda: secrets.randbelow(2**31))
    stop: Stop | Annotated[tuple[Stop, ...], Field(max_length=4)] = ()
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0
    response_format: ResponseFormat = ResponseFormat()

    @classmethod
    def read(cls, body: bytes) -> ChatRequest:
        """Return the request in a body; raises ServerError if it cannot be answered."""
        try:
            content = json.loads(body)
            json.dumps(content, ensure_ascii=False).encode()  # an unpaired surrogate is not text
        except (ValueError, RecursionError) as error:
            raise ServerError(400, f"The body is not JSON that can be read: {error}.") from None
        if not isinstance(content, dict):
            raise ServerError(400, "The body must be a JSON object.")
        given = {
            name: value
            for name, value in cast("dict[str, JsonValue]", content).items()
            if name not in IGNORED and value is not None
        }
        for name in given.keys() & ONLY.keys():
            if given.pop(name) != ONLY[name]:
                text = f"{name} must be {json.dumps(ONLY[name])}; leave it out."
                raise ServerError(400, text, param=name, code="unsupported_value")
        if isinstance(messages := given.get("messages"), list):
            given["messages"] = [_without_answers_fields(message) for message in messages]
        try:
            return cls.model_validate(given)
        except ValidationError as failure:
            raise _refusal(given, failure) from None

    @property
    def usable_tools(self) -> tuple[dict[str, JsonValue], ...]:
        """Tools that the answer may call."""
        return self.tools if self.tool_choice == "auto" else ()

    def sampling(self, room: int) -> Sampling:
        """Return the settings of the answer; the model's context leaves `room` tokens for it."""
        wanted = self.max_completion_tokens or self.max_tokens or room
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        grammar = self.response_format.grammar
        return Sampling(min(wanted, room), self.temperature, self.seed, stop, self.top_p, grammar)


def _without_answers_fields(message: JsonValue) -> JsonValue:
    if not isinstance(message, dict):
        return message
    empty = {name for name in OF_ANSWERS if message.get(name) in (None, [])}
    return {name: value for name, value in message.items() if name not in empty}


def _refusal(given: Mapping[str, JsonValue], failure: ValidationError) -> ServerError:
    at, details = next(iter(by_location(given, failure).items()))
    unknown = details[0]["type"] == "extra_forbidden"
    name = str(details[0]["loc"][-1]) if unknown and not at else dotted(at)
    part = Part(ChatRequest if len(at) <= 1 else None, ())
    code = "unknown_parameter" if unknown else "invalid_value"
    if details[0]["type"] == "missing":
        code = "missing_required_parameter"
    text = f"{name} {sentence(details, part)}"
    if at[:1] == ("messages",) and len(at) > 1:
        finding = explain(failure, cast("JsonValue", given))[0]
        text = f"{finding.message} {finding.fix if finding.code == 'wrong-value' else ''}".strip()
    return ServerError(400, text, param=name, code=code)


class Completion:
    """Response to one request, whole or in chunks."""

    def __init__(
        self, model: str, fingerprint: str, request: ChatRequest, prompt_tokens: int
    ) -> None:
        self._request = request
        self._prompt_tokens = prompt_tokens
        self._tools = request.usable_tools
        self._text, self._sent = "", 0  # text of a stream whose answer may call tools
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def whole(self, piece: Piece) -> dict[str, Any]:
        """Return the response of an answer in one piece."""
        parsed = read_calls(piece.text, self._tools)
        message = {"role": "assistant", "content": parsed.text, "refusal": None}
        if piece.reasoning:
            message["reasoning_content"] = piece.reasoning
        if parsed.calls:
            message |= {"content": parsed.text or None, "tool_calls": list(parsed.calls)}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": self._logprobs(piece),
            "finish_reason": "tool_calls" if parsed.calls else piece.finish_reason,
        }
        usage = self._usage(piece)
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": usage}

    def first(self) -> dict[str, Any]:
        """Return the chunk before any text."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None}, None, None)

    def chunks(self, piece: Piece) -> list[dict[str, Any]]:
        """Return the chunks of a piece; after the last piece, also its end and usage."""
        made: list[dict[str, Any]] = []
        parsed = self._tool_answer(piece)
        if parsed.text or piece.tokens:
            made.append(self._chunk({"content": parsed.text}, self._logprobs(piece), None))
        if parsed.calls:
            calls = [{"index": at, **call} for at, call in enumerate(parsed.calls)]
            made.append(self._chunk({"tool_calls": calls}, None, None))
        if piece.reasoning:
            made.insert(0, self._chunk({"reasoning_content": piece.reasoning}, None, None))
        if piece.finish_reason is not None:
            reason = "tool_calls" if parsed.calls else piece.finish_reason
            made.append(self._chunk({}, None, reason))
            if self._request.stream_options.include_usage:
                made.append({**made[-1], "choices": [], "usage": self._usage(piece)})
        return made

    def _tool_answer(self, piece: Piece) -> ToolAnswer:
        """Return the part of a growing answer to send; a possible call waits for its end."""
        if not self._tools:
            return ToolAnswer(piece.text)
        self._text += piece.text
        ended = piece.finish_reason is not None
        whole = read_calls(self._text, self._tools) if ended else ToolAnswer(self._text)
        end = len(whole.text) if ended else call_begins(self._text)
        text, self._sent = whole.text[self._sent : end], max(self._sent, end)
        return ToolAnswer(text, whole.calls)

    def _chunk(
        self, delta: dict[str, Any], logprobs: object, finish_reason: str | None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        usage = {"usage": None} if self._request.stream_options.include_usage else {}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice], **usage}

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        if not self._request.logprobs:
            return None
        content = [
            {**_token(token), "top_logprobs": [*map(_token, token.top)]} for token in piece.tokens
        ]
        return {"content": content, "refusal": None}

    def _usage(self, piece: Piece) -> dict[str, Any]:
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": piece.completion_tokens,
            "total_tokens": self._prompt_tokens + piece.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": piece.cached_tokens, "audio_tokens": 0},
        }


def _token(chance: TokenChance) -> dict[str, Any]:
    known = None if chance.bytes is None else list(chance.bytes)
    return {"token": chance.text, "logprob": chance.logprob, "bytes": known}
