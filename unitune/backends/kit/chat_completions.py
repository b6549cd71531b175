"""Chat completions, the wire that most servers speak: what is sent, and what an answer says.

Servers differ in what they take. A model that thinks before it answers refuses a temperature, and
wants its limit under another name; some servers know no seed, or cap the limit. `Dialect` is what
one model has been found not to take. It learns from refusals that name a parameter, and from no
others, so a request that the model refuses for another reason stays refused. What a job itself has
set (`Request.fixed`) is never left out: that refusal is the user's to read.
Pure functions; who sends, and how often, is the business of those who import them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from pydantic import JsonValue

from unitune.backends.kit.errors import complaint
from unitune.errors import JobError
from unitune.models import Reply, Request, function_call
from unitune.security.json_fields import Fields

# What an answer can be had without, though it is then another kind of answer
SAMPLING = ("temperature", "seed")
# Where a streamed answer is to say its tokens, which some servers say without it
STREAM_USAGE = "stream_options"
LimitName = Literal["max_tokens", "max_completion_tokens"]
LIMITS: tuple[LimitName, LimitName] = ("max_tokens", "max_completion_tokens")
LEAST_TOKENS = 16  # a lower limit leaves no room for an answer
REFUSALS = (400, 422)
# Where servers put what a model thinks before it answers
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
# Lower-case reasons for which an answer ends, with OpenAI's word where it has one. Any other reason
# is a failure of the server, which says nothing about the model: ``error`` (OpenRouter, vLLM,
# Mistral), ``abort`` (vLLM, SGLang), ``insufficient_system_resource`` (DeepSeek), ``load``
# (Ollama), ``network_error`` (Zhipu), ``other`` (Gemini). Source: openai/openai-openapi 2.3.0;
# vllm/v1/engine FINISH_REASON_STRINGS; DeepSeek, Mistral, Together, Zhipu and OpenRouter API
# references; Gemini's enum, which its compatibility layer passes on in capitals; LiteLLM's
# map_finish_reason (all read 2026-11-30).
FINISHES = {word: ours for ours, words in _WORDS.items() for word in words.split()}
# Words that refuse a parameter as such: one that is out of bounds is another matter
REFUSING = re.compile(
    r"not support|n['o]t support|unsupported|not permitted|not allowed|deprecated|unrecognized|"
    r"unknown|unexpected|extra (inputs|fields)|only the default",
    re.IGNORECASE,
)
# Words of a refusal of a limit for its size, as vLLM, OpenAI, DeepSeek and Groq word it
TOO_LONG = re.compile(
    r"too (large|big|high)|maximum context|at most|less than or equal|exceed|valid range",
    re.IGNORECASE,
)
OF_ANSWER = re.compile(r"max_tokens|max_completion_tokens|completion|output tokens", re.IGNORECASE)
# Words that make it a matter of this prompt's length, too, and not of the model alone
IN_ALL = re.compile(r"context", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer with an error status.

    Args:
        status: HTTP status.
        words: The vendor's message.
        param: The parameter that it named in a field of its own.
        code: The error's name, such as ``content_filter``.
    """

    status: int
    words: str
    param: str | None = None
    code: str | None = None

    @classmethod
    def read(cls, status: int, body: object) -> Refusal:
        """Return a refusal from the body of an answer, in whatever form it says why."""
        whole = Fields(body)
        inner = whole.fields("error") if whole.fields("error").all else whole
        words = inner.text("message") or str(whole.all or body or "")
        return cls(status, words, inner.text("param"), inner.text("code"))

    @property
    def is_filtered(self) -> bool:
        """Whether a content filter refused the prompt, as Azure's does with status 400.

        It is an empty answer that ended by ``content_filter``, as it is where the filter stops the
        answer. The filter belongs to the deployment under test, decides the same at every attempt,
        and leaves a user without an answer. As errors, a few such prompts would keep a comparison
        from ever reaching a verdict.
        """
        return self.status in REFUSALS and FINISHES.get(self.code or "") == "content_filter"

    def names(self, parameter: str) -> bool:
        """Whether it is about a parameter: by its field, or by words that refuse just that."""
        if self.status not in REFUSALS or not REFUSING.search(self.words):
            return False
        if self.param:
            return self.param.rpartition(".")[2] == parameter
        # As a word that stands for itself: 'temperature', `temperature`, temperature=0, ...
        before, after = r"(\bparameters?:? |: )", r"\s*[=:]"
        named = rf"['\"`\[(]{parameter}['\"`\])]|\b{parameter}{after}|{before}{parameter}\b"
        return bool(re.search(named, self.words))


def response_format(request: Request) -> dict[str, JsonValue]:
    """Return the field that holds an answer to the request's JSON Schema; empty without one.

    Source: openai/openai-openapi 2.3.0, ResponseFormatJsonSchema.
    """
    if request.response_schema is None:
        return {}
    named: JsonValue = {"name": "answer", "schema": request.response_schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def refuses(refusal: Refusal, request: Request, parameter: str) -> bool:
    """Whether a model refused a request for a sampling parameter that was sent.

    Raises:
        JobError: It did, and the job itself has set the parameter.
    """
    if not refusal.names(parameter):
        return False
    if parameter in request.fixed:
        raise JobError(
            f"evaluate.{parameter} is {getattr(request, parameter):g}, and a model takes none: "
            f"{refusal.words.rstrip('. ')}. Leave evaluate.{parameter} out, so that such a model "
            "gets requests without it and the report says so, or leave the contender out."
        )
    return True


@dataclass(slots=True)
class Dialect:
    """What one model takes, as far as its responses show; shared by all requests to it.

    Args:
        limit: The name under which it takes the longest answer.
        left_out: Parameters that it has refused, and can do without.
        most_tokens: The longest answer that it allows, where it has refused a longer one.
        proven: Whether it has answered a request of this form.
    """

    limit: LimitName = "max_tokens"
    left_out: set[str] = field(default_factory=set[str])
    most_tokens: int | None = None
    proven: bool = False
    _limits_refused: set[LimitName] = field(default_factory=set[LimitName])

    def body(self, model: str, request: Request) -> dict[str, object]:
        """Return what is sent for a request."""
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
        """Return what is sent for a streamed answer."""
        usage = {} if STREAM_USAGE in self.left_out else {STREAM_USAGE: {"include_usage": True}}
        return {**body, "stream": True, **usage}

    def read(self, body: dict[str, object], content: object, seconds: float | None = None) -> Reply:
        """Return an answer as `read_reply` does, with what was left out of its request."""
        self.proven = True
        missing = tuple(name for name in SAMPLING if name in self.left_out and name not in body)
        limit = cast("int", body["max_tokens" if "max_tokens" in body else "max_completion_tokens"])
        return replace(read_reply(content, seconds), max_tokens=limit, left_out=missing)

    def learn(self, body: dict[str, object], request: Request, refusal: Refusal) -> bool:
        """Change a refused body, in place, into one that the model may take, if its words say how.

        Returns:
            Whether it is worth sending again.

        Raises:
            JobError: The model refuses what the job itself has set.
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
        """Ask for less where an automatic limit is more than the model allows."""
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
        """Send the limit under its other name, each name once."""
        other: LimitName = LIMITS[1] if sent == LIMITS[0] else LIMITS[0]
        if not refusal.names(sent) or other in self._limits_refused:
            return False
        self._limits_refused.add(sent)
        self.limit = other
        body[other] = body.pop(sent)
        return True


def read_reply(content: object, seconds: float | None) -> Reply:
    """Return an answer in our words, as much of it as is there; no seconds if not sent alone.

    Of several choices the one with the lowest index counts. A failure that the server reports
    inside the answer is the reply's `error`, to be retried: nothing of the text is kept, since
    part of an answer would be scored as a wrong one.
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
    return Reply(
        text=content_text(message) or refused or "",
        finish_reason="refusal" if refused else FINISHES[finish.lower()],
        prompt_tokens=_tokens(usage, "prompt_tokens"),
        completion_tokens=_tokens(usage, "completion_tokens"),
        reasoning_tokens=hidden,
        thought=bool(hidden) or any(message.text(name) for name in THOUGHTS),
        seconds=seconds,
        tool_calls=tuple(_functions(message)) or None,
    )


def content_text(message: Fields) -> str | None:
    """Return the content of a message, be it a text or parts."""
    parts = [part.text("text") or "" for part in message.items("content")]
    return "".join(parts) if parts else message.text("content")


def _tokens(usage: Fields, name: str) -> int | None:
    count = usage.whole(name)
    return None if count is None or count < 0 else count


def _functions(message: Fields) -> Iterator[dict[str, JsonValue]]:
    """Yield the functions that are called; a custom tool's call is no function's."""
    for call in message.items("tool_calls"):
        function = call.fields("function")
        name = function.text("name")
        if name and call.text("type") in ("function", None):
            arguments = function.text("arguments")
            given = function.all.get("arguments") if arguments is None else arguments
            yield function_call(name, "" if given is None else given, call.text("id"))
