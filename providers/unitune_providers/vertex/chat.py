"""Build requests to Gemini and read its answers, alone or in a batch.

Requests have the format of training rows (`formats.vertex`). Gemini reasons before it answers, and
reasoning counts as answer tokens. Both sides of a comparison get the minimum reasoning of their
base, as Google advises for tuned models, whose training has none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

from pydantic import JsonValue

from unitune.backends.kit.chat import StreamingChatModel
from unitune.backends.kit.hosted import without_none
from unitune.data.example import Example, Message
from unitune.models import Reply, Request, function_call, plain_calls
from unitune.security.json_fields import Fields
from unitune_providers.formats.vertex import SFT
from unitune_providers.vertex.cloud import Cloud

FINISHES = {"STOP": "stop", "MAX_TOKENS": "length"}
# Placeholder for the answer of a training row; removed after encoding
ANSWER = Message(role="assistant", content="answer")
Thinking = Mapping[str, JsonValue]


class VertexChatModel(StreamingChatModel):
    """A Gemini model that answers one request at a time."""

    def __init__(self, cloud: Cloud, name: str, resource: str, base: str) -> None:
        self._thinking = least_thinking(base)
        shown = json.dumps(self._thinking) if self._thinking else "own"
        endpoint, path = cloud.endpoint(resource), f"/{resource}:generateContent"
        super().__init__(endpoint, path, name, f"vertex:{name}:thinking={shown}")

    def body(self, request: Request) -> dict[str, object]:
        return {**request_body(request, self._thinking)}

    def streamed(self) -> StreamedContent:
        return StreamedContent()

    def streamed_body(self, body: dict[str, object]) -> dict[str, object]:
        return body

    def streamed_url(self) -> str:
        return f"{self._url.removesuffix(':generateContent')}:streamGenerateContent?alt=sse"

    def read(self, body: dict[str, object], answer: object, seconds: float) -> Reply | None:
        del body
        return read_answer(Fields(answer), seconds)


class StreamedContent:
    """A streamed answer, whose events have its next parts (`StreamedAnswer` of the kit)."""

    def __init__(self) -> None:
        self.ended = False
        self._answer: dict[str, JsonValue] = {}
        self._candidate: dict[str, JsonValue] = {}
        self._parts: list[JsonValue] = []

    def add(self, event: Fields) -> str:
        candidate = next(iter(event.items("candidates")), Fields(None))
        parts = candidate.fields("content").items("parts")
        self._answer.update(event.all)
        self._candidate.update(candidate.all)
        self._parts += [dict(part.all) for part in parts]
        blocked = bool(event.fields("promptFeedback").text("blockReason"))
        self.ended = self.ended or blocked or bool(candidate.text("finishReason"))
        return answer_text(parts)

    def whole(self) -> object:
        if not self._candidate:
            return self._answer
        candidate: JsonValue = {**self._candidate, "content": {"parts": self._parts}}
        return {**self._answer, "candidates": [candidate]}


def answer_text(parts: Iterable[Fields], *, thoughts: bool = False) -> str:
    """Return the text of an answer's parts without reasoning, or only the reasoning."""
    return "".join(
        part.text("text") or "" for part in parts if bool(part.all.get("thought")) == thoughts
    )


def question(request: Request) -> dict[str, JsonValue]:
    """Return a request in the format of a training row, or raise `UnrepresentableRow`."""
    # Gemini 3 refuses earlier calls without their signature: ai.google.dev, Thought signatures, as
    # quoted in QwenLM/qwen-code#1202, read 2026-12-01
    calls = [call for turn in request.messages for call in turn.tool_calls or ()]
    turns = [
        replace(turn, weight=None, reasoning_content=None, tool_calls=plain_calls(turn.tool_calls))
        for turn in request.messages
    ]
    row = SFT.encode(Example(messages=(*turns, ANSWER), tools=request.tools))
    contents = cast("list[dict[str, Any]]", row["contents"])[:-1]
    parts = (part for content in contents for part in content["parts"] if "functionCall" in part)
    for part, call in zip(parts, calls, strict=True):
        extra = Fields(call).fields("extra_content").fields("google")
        if signature := extra.text("thought_signature"):
            part["thoughtSignature"] = signature
    return {**row, "contents": cast("JsonValue", contents)}


def _signed_call(part: Fields) -> dict[str, JsonValue]:
    """Return a part's call, with its signature as in Google's OpenAI-compatible API."""
    call, signature = part.fields("functionCall"), part.text("thoughtSignature")
    made = function_call(call.text("name") or "", call.all.get("args") or {}, call.text("id"))
    if not signature:
        return made
    return {**made, "extra_content": {"google": {"thought_signature": signature}}}


def request_body(request: Request, thinking: Thinking | None) -> dict[str, JsonValue]:
    """Return the body of a request; without `thinking`, the model decides about reasoning."""
    settings: dict[str, JsonValue] = {
        "maxOutputTokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed if request.temperature else None,
        "stopSequences": list(request.stop) or None,
        "responseMimeType": None if request.response_schema is None else "application/json",
        "responseJsonSchema": request.response_schema,
        "thinkingConfig": dict(thinking) if thinking else None,
    }
    return {**question(request), "generationConfig": without_none(settings)}


def least_thinking(base: str) -> Thinking | None:
    """Return the setting for a base's minimum reasoning; None if unknown.

    Source: docs.cloud.google.com, Developer's guide to Gemini 3.5 Flash (levels of 3.5 Flash, 3.1
    Pro and 3.1 Flash-Lite), and About supervised fine-tuning (advice for tuned models), read
    2026-11-25. Gemini 2.5 has a budget instead of a level; only its Flash models accept 0.
    """
    name = base.rpartition("/")[2]
    if re.match(r"gemini-3(\.\d+)?-pro", name):
        return {"thinkingLevel": "LOW"}
    if re.match(r"gemini-3(\.\d+)?-flash", name):
        return {"thinkingLevel": "MINIMAL"}
    if name.startswith("gemini-2.5-flash"):
        return {"thinkingBudget": 0}
    return None


def read_answer(answer: Fields, seconds: float | None = None) -> Reply | None:
    """Read Gemini's answer, without reasoning; return None if it is not a model's."""
    candidates, usage = answer.items("candidates"), answer.fields("usageMetadata")
    if not candidates:
        blocked = answer.fields("promptFeedback").text("blockReason")
        if not blocked and not usage.all and not answer.all.get("modelVersion"):
            return None
        if blocked:  # see `Refusal.is_filtered`
            return Reply(finish_reason="content_filter", seconds=seconds)
        words = "Gemini did not answer and gave no reason."
        return Reply(error=words, finish_reason="error", seconds=seconds)
    first = candidates[0]
    parts, finish = first.fields("content").items("parts"), first.text("finishReason") or "STOP"
    thoughts, written = usage.whole("thoughtsTokenCount"), usage.whole("candidatesTokenCount")
    calls = [_signed_call(part) for part in parts if part.fields("functionCall").all]
    return Reply(
        text=answer_text(parts),
        finish_reason=FINISHES.get(finish, finish),
        prompt_tokens=usage.whole("promptTokenCount"),
        # Reasoning is charged like the answer.
        completion_tokens=(written or 0) + (thoughts or 0) if usage.all else None,
        reasoning_tokens=thoughts,
        thought=bool(thoughts),
        reasoning=answer_text(parts, thoughts=True) or None,
        seconds=seconds,
        tool_calls=tuple(calls) or None,
    )
