"""Build requests for chat completions, the API of most servers, and read their answers.

Servers differ: reasoning models refuse a temperature and name the output limit differently; some
servers have no seed or cap the limit. `Dialect` records what one model does not support. It learns
only from refusals that name a parameter. A setting of the job (`Request.fixed`) is never left out;
its refusal is raised to the user. This module sends nothing.

A streamed answer becomes the body that the request would have had without streaming, so one reader
per API reads both.

Source of streams: WHATWG HTML, 9.2.6 Interpreting an event stream; openai/openai-openapi 2.3.0,
CreateChatCompletionStreamResponse.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Literal, Protocol, cast

from pydantic import JsonValue

from unitune.backends.kit.errors import complaint
from unitune.errors import JobError
from unitune.models import Reply, Request, function_call
from unitune.security.json_fields import Fields, read_json

# Parameters that can be left out, although the answer is then of another kind
SAMPLING = ("temperature", "seed")
# Parameter that requests token counts of streamed answers; some servers report them without it
STREAM_USAGE = "stream_options"
LimitName = Literal["max_tokens", "max_completion_tokens"]
LIMITS: tuple[LimitName, LimitName] = ("max_tokens", "max_completion_tokens")
LEAST_TOKENS = 16  # a lower limit leaves no room for an answer
REFUSALS = (400, 422)
THOUGHTS = ("reasoning_content", "reasoning")
_WORDS = {
    "stop": "stop eos eos_token end_turn stop_sequence complete",
    "length": "length max_tokens model_length model_context_window_exceeded",
    "tool_calls": "tool_calls tool_call tool_use",
    "content_filter": "content_filter safety recitation blocklist prohibited_content spii "
    "sensitive guardrail_intervened",
    "function_call": "function_call",
    "refusal": "refusal",
    # Failures of the model: vLLM's end of endless repetition, Gemini's malformed calls.
    "repetition": "repetition",
    "malformed_function_call": "malformed_function_call unexpected_tool_call",
}
# Finish reasons in lower case, with OpenAI's word if it has one. Any other reason is a failure of
# the server, not of the model: ``error`` (OpenRouter, vLLM, Mistral), ``abort`` (vLLM, SGLang),
# ``insufficient_system_resource`` (DeepSeek), ``load`` (Ollama), ``network_error`` (Zhipu),
# ``other`` (Gemini). Source: openai/openai-openapi 2.3.0; vllm/v1/engine FINISH_REASON_STRINGS;
# DeepSeek, Mistral, Together, Zhipu and OpenRouter API references; Gemini's enum, which its
# compatibility layer returns in capitals; LiteLLM's map_finish_reason (all read 2026-11-30).
FINISHES = {word: ours for ours, words in _WORDS.items() for word in words.split()}
# Words that refuse a parameter as such, as opposed to its value
REFUSING = re.compile(
    r"not support|n['o]t support|unsupported|not permitted|not allowed|deprecated|unrecognized|"
    r"unknown|unexpected|extra (inputs|fields)|only the default",
    re.IGNORECASE,
)
# Words that refuse the size of a limit, from vLLM, OpenAI, DeepSeek and Groq
TOO_LONG = re.compile(
    r"too (large|big|high)|maximum context|at most|less than or equal|exceed|valid range",
    re.IGNORECASE,
)
OF_ANSWER = re.compile(r"max_tokens|max_completion_tokens|completion|output tokens", re.IGNORECASE)
# Words that also concern the length of this prompt, not only the model
IN_ALL = re.compile(r"context", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer with an error status."""

    status: int  # HTTP status
    words: str  # the vendor's message
    param: str | None = None  # the parameter that it named in a field of its own
    code: str | None = None  # the error's name, such as ``content_filter``

    @classmethod
    def read(cls, status: int, body: object) -> Refusal:
        """Parse a refusal in the body of an answer, in any known form."""
        whole = Fields(body)
        inner = whole.fields("error") if whole.fields("error").all else whole
        words = inner.text("message") or str(whole.all or body or "")
        return cls(status, words, inner.text("param"), inner.text("code"))

    @property
    def is_filtered(self) -> bool:
        """True if a content filter refused the prompt, as Azure's does with status 400.

        This counts as an empty answer that ended by ``content_filter``, not as an error. The filter
        belongs to the deployment, decides the same at every attempt, and leaves users without an
        answer. As errors, such prompts would keep a comparison from any verdict.
        """
        return self.status in REFUSALS and FINISHES.get(self.code or "") == "content_filter"

    def names(self, parameter: str) -> bool:
        """Return whether it refuses a parameter, named in its field or its words."""
        if self.status not in REFUSALS or not REFUSING.search(self.words):
            return False
        if self.param:
            return self.param.rpartition(".")[2] == parameter
        # The parameter as a name: 'temperature', `temperature`, temperature=0, ...
        before, after = r"(\bparameters?:? |: )", r"\s*[=:]"
        named = rf"['\"`\[(]{parameter}['\"`\])]|\b{parameter}{after}|{before}{parameter}\b"
        return bool(re.search(named, self.words))


def response_format(request: Request) -> dict[str, JsonValue]:
    """Return the field that enforces the request's JSON Schema; empty without one.

    Source: openai/openai-openapi 2.3.0, ResponseFormatJsonSchema.
    """
    if request.response_schema is None:
        return {}
    named: JsonValue = {"name": "answer", "schema": request.response_schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def refuses(refusal: Refusal, request: Request, parameter: str) -> bool:
    """Return whether a model refused a parameter; raise `JobError` if the job itself sets it."""
    if not refusal.names(parameter):
        return False
    if parameter in request.fixed:
        raise JobError(
            f"evaluate.{parameter} is {getattr(request, parameter):g}, but a model does not "
            f"support it: {refusal.words.rstrip('. ')}. Remove evaluate.{parameter}, so that this "
            "model gets requests without it and the report notes that, or remove the contender."
        )
    return True


@dataclass(slots=True)
class Dialect:
    """Known API differences of one model, learnt from its responses; shared by all requests."""

    limit: LimitName = "max_tokens"  # its name of the output limit
    # Parameters that it refused and that can be left out
    left_out: set[str] = field(default_factory=set[str])
    most_tokens: int | None = None  # its largest output limit, if it refused a larger one
    proven: bool = False  # whether it has answered a request of this form
    _limits_refused: set[LimitName] = field(default_factory=set[LimitName])

    def body(self, model: str, request: Request) -> dict[str, object]:
        """Return the body of a request."""
        sampling = {"temperature": request.temperature, "seed": request.seed}
        return {
            "model": model,
            "messages": [message.wire for message in request.messages],
            **({"tools": list(request.tools)} if request.tools else {}),
            **(
                {"chat_template_kwargs": request.chat_template_kwargs}
                if request.chat_template_kwargs
                else {}
            ),
            **{
                name: value
                for name, value in sampling.items()
                if name not in self.left_out or name in request.fixed
            },
            **({"stop": list(request.stop)} if request.stop else {}),
            **response_format(request),
            self.limit: min(request.max_tokens, self.most_tokens or request.max_tokens),
        }

    def streamed(self, body: dict[str, object]) -> dict[str, object]:
        """Return the body of a request for a streamed answer."""
        usage = {} if STREAM_USAGE in self.left_out else {STREAM_USAGE: {"include_usage": True}}
        return {**body, "stream": True, **usage}

    def read(self, body: dict[str, object], content: object, seconds: float | None = None) -> Reply:
        """Read an answer, and add the settings that were left out of its request."""
        self.proven = True
        missing = tuple(name for name in SAMPLING if name in self.left_out and name not in body)
        limit = cast("int", body["max_tokens" if "max_tokens" in body else "max_completion_tokens"])
        return replace(read_reply(content, seconds), max_tokens=limit, left_out=missing)

    def learn(self, body: dict[str, object], request: Request, refusal: Refusal) -> bool:
        """Change a refused body in place, if possible, and return whether to send it again.

        Raise `JobError` if the model refuses a setting of the job.
        """
        for name in (*SAMPLING, STREAM_USAGE):
            if name in body and refuses(refusal, request, name):
                self.left_out.add(name)
                del body[name]
                return True
        sent: LimitName = "max_tokens" if "max_tokens" in body else "max_completion_tokens"
        return self._shortened(body, sent, request, refusal) or self._renamed(body, sent, refusal)

    def _shortened(
        self, body: dict[str, object], sent: LimitName, request: Request, refusal: Refusal
    ) -> bool:
        tokens = cast("int", body[sent]) // 4
        if refusal.status not in REFUSALS or "max_tokens" in request.fixed or tokens < LEAST_TOKENS:
            return False
        if not (TOO_LONG.search(refusal.words) and OF_ANSWER.search(refusal.words)):
            return False
        body[sent] = tokens
        if not IN_ALL.search(refusal.words):
            self.most_tokens = min(tokens, self.most_tokens or tokens)
        return True

    def _renamed(self, body: dict[str, object], sent: LimitName, refusal: Refusal) -> bool:
        other: LimitName = LIMITS[1] if sent == LIMITS[0] else LIMITS[0]
        if not refusal.names(sent) or other in self._limits_refused:
            return False
        self._limits_refused.add(sent)
        self.limit = other
        body[other] = body.pop(sent)
        return True


def read_reply(content: object, seconds: float | None) -> Reply:
    """Read an answer, even if incomplete; `seconds` is None if it was not sent alone.

    The choice with the lowest index counts. A failure that the server reports inside the answer
    becomes the reply's `error` and is retryable. Its text is dropped, since a partial answer would
    be scored as a wrong one.
    """
    answer = Fields(content)
    choice = min(
        answer.items("choices"), key=lambda each: each.whole("index") or 0, default=Fields(None)
    )
    finish = choice.text("finish_reason") or "stop"
    error = choice.all.get("error") or answer.all.get("error")
    if error or finish.lower() not in FINISHES:
        words = complaint({"error": error}) if error else f"finish_reason {finish!r}, a failure"
        code = Fields(error).whole("code")
        return Reply(
            finish_reason="error", error=words, status=code, retryable=True, seconds=seconds
        )
    if not isinstance(choice.all.get("message"), dict):
        what = "message" if choice.all else "choices"
        return Reply(finish_reason="error", error=f"the answer has no {what}", seconds=seconds)
    message, usage = choice.fields("message"), answer.fields("usage")
    refused = message.text("refusal")
    hidden = _tokens(usage.fields("completion_tokens_details"), "reasoning_tokens")
    hidden = _tokens(usage, "reasoning_tokens") if hidden is None else hidden
    reasoning = next((text for name in THOUGHTS if (text := message.text(name))), None)
    return Reply(
        text=content_text(message) or refused or "",
        finish_reason="refusal" if refused else FINISHES[finish.lower()],
        prompt_tokens=_tokens(usage, "prompt_tokens"),
        completion_tokens=_tokens(usage, "completion_tokens"),
        reasoning_tokens=hidden,
        thought=bool(hidden or reasoning),
        reasoning=reasoning,
        seconds=seconds,
        tool_calls=tuple(_functions(message)) or None,
    )


def content_text(message: Fields) -> str | None:
    """Return the content of a message, which may be a text or parts."""
    parts = [part.text("text") or "" for part in message.items("content")]
    return "".join(parts) if parts else message.text("content")


def _tokens(usage: Fields, name: str) -> int | None:
    count = usage.whole(name)
    return None if count is None or count < 0 else count


def _functions(message: Fields) -> Iterator[dict[str, JsonValue]]:
    """Yield the called functions, without calls of custom tools."""
    for call in message.items("tool_calls"):
        function = call.fields("function")
        name = function.text("name")
        if name and call.text("type") in ("function", None):
            arguments = function.text("arguments")
            given = function.all.get("arguments") if arguments is None else arguments
            made = function_call(name, "" if given is None else given, call.text("id"))
            # Gemini's signature of its reasoning, which must be sent back with the call
            extra = call.all.get("extra_content")
            yield made if extra is None else {**made, "extra_content": extra}


EVENT_STREAM = "text/event-stream"
DONE = "[DONE]"  # last event of a stream in OpenAI's format; not JSON


class StreamedAnswer(Protocol):
    """A streamed answer."""

    ended: bool  # whether the last event was received

    def add(self, event: Fields) -> str:
        """Add the next event and return its text."""
        ...

    def whole(self) -> object:
        """Return the events in the form of an answer that was not streamed."""
        ...


async def json_events(pieces: AsyncIterable[bytes]) -> AsyncGenerator[Fields]:
    """Yield the JSON objects of an event stream; raise `Unreadable` if one is not JSON."""
    data: list[str] = []
    async for line in _lines(pieces):
        if line:
            name, _, value = line.partition(":")
            data += [value.removeprefix(" ")] if name == "data" else []
            continue
        text, data = "\n".join(data), []
        if text and text.strip() != DONE:
            yield Fields(read_json(text))


async def _lines(pieces: AsyncIterable[bytes]) -> AsyncGenerator[str]:
    """Yield lines without their ends (LF, or CR LF), and an empty one after the last."""
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode(errors="replace")
    yield rest.decode(errors="replace")
    yield ""


class StreamedCompletion:
    """A streamed chat completion."""

    def __init__(self) -> None:
        self.ended = False
        self._message: dict[str, JsonValue] = {"role": "assistant", "content": None}
        self._calls: list[tuple[int, dict[str, JsonValue]]] = []
        self._finish: str | None = None
        self._error: JsonValue = None
        self._usage: JsonValue = None

    def add(self, event: Fields) -> str:
        """Add the next event and return its text."""
        self._usage = event.all.get("usage") or self._usage
        choices = (each for each in event.items("choices") if not each.whole("index"))
        choice = next(choices, Fields(None))
        self._error = choice.all.get("error") or self._error
        delta = choice.fields("delta")
        self._finish = choice.text("finish_reason") or self._finish
        self.ended = self._finish is not None
        for name in ("refusal", *THOUGHTS):
            self._append(name, delta.text(name))
        for call in delta.items("tool_calls"):
            self._add_call(call)
        text = content_text(delta) or ""
        self._append("content", text)
        return text or ("" if self._message["content"] else delta.text("refusal") or "")

    def whole(self) -> object:
        """Return the answer as if it had not been streamed."""
        calls = [call for _, call in sorted(self._calls, key=itemgetter(0))]
        message = {**self._message, **({"tool_calls": calls} if calls else {})}
        choice = {
            "index": 0, "message": message, "finish_reason": self._finish, "error": self._error
        }  # fmt: skip
        return {"choices": [choice], "usage": self._usage}

    def _append(self, name: str, text: str | None) -> None:
        if text:
            self._message[name] = cast("str", self._message.get(name) or "") + text

    def _add_call(self, piece: Fields) -> None:
        """Add a piece of a call: its name comes first, its arguments bit by bit.

        A piece with a name and a new id begins another call, even if servers number every call 0,
        as older versions of Ollama do.
        """
        index, name, new = piece.whole("index") or 0, piece.text("id"), piece.fields("function")
        call = next((each for at, each in reversed(self._calls) if at == index), None)
        if call is None or (name and new.text("name") and call.get("id", name) != name):
            call: dict[str, JsonValue] | None = {"type": "function", "function": {}}
            self._calls.append((index, call))
        if name:
            call.setdefault("id", name)
        function = cast("dict[str, str]", call["function"])
        for part in ("name", "arguments"):
            function[part] = function.get(part, "") + (new.text(part) or "")
