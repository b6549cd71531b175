"""Rows of a batch for Gemini, and rows of its answers; nothing here is sent.

A row is a request as `chat` asks it, written by the same functions, with a label: Vertex AI knows
no id of a row, gives answers in any order, and gives each request back beside its answer.

Source: docs.cloud.google.com/gemini-enterprise-agent-platform, models/capabilities/batch-inference
(limits) and batch-prediction-from-cloud-storage (rows, status); that labels come back, and what a
row of an answer looks like: the batches of BerriAI/litellm and maximhq/bifrost; read 2026-11-25.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from google.genai import types
from pydantic import BaseModel, JsonValue, ValidationError

from unitune.backends.formats import UnrepresentableRow
from unitune.errors import BackendError, Unsupported
from unitune.models import Reply, Request
from unitune_providers.vertex.chat import generation, least_thinking, question, read_answer
from unitune_providers.vertex.errors import ours, safe
from unitune_providers.vertex.options import LABEL

REQUESTS_MOST = 200_000
BYTES_MOST = 1_000_000_000
LABEL_VALUE = re.compile(r"[a-z0-9_-]{1,63}")

Row = dict[str, Any]


class Answered(NamedTuple):
    """A request's id with its reply."""

    name: str
    reply: Reply


def write_rows(requests: Mapping[str, Request], base: str) -> bytes:
    """Return a file of requests, by their ids.

    Args:
        requests: What is asked.
        base: Name of the base, which decides how little it can think.

    Raises:
        Unsupported: A request cannot be asked, or there are too many.
    """
    thinking = least_thinking(base)
    content = b"".join(_line(name, request, thinking) for name, request in requests.items())
    if len(requests) > REQUESTS_MOST or len(content) > BYTES_MOST:
        raise Unsupported(
            f"A batch of Vertex AI's holds at most {REQUESTS_MOST:,} requests and "
            f"{BYTES_MOST / 1e6:,.0f} MB, and these are {len(requests):,} with "
            f"{len(content) / 1e6:,.1f} MB. Take fewer or shorter cases, or run without --batch."
        )
    return content


def _line(name: str, request: Request, thinking: types.ThinkingConfig | None) -> bytes:
    if not LABEL_VALUE.fullmatch(name):
        raise Unsupported(
            f"A request's id is {name!r}; Vertex AI takes 1 to 63 lower-case letters, digits, _ "
            "and - for a label."
        )
    try:
        row = question(request)
    except UnrepresentableRow as problem:
        raise Unsupported(
            f"Gemini cannot be asked request {name}: {problem} Leave that case out, or run "
            "without --batch, where it alone fails."
        ) from problem
    asked: dict[str, JsonValue] = {
        "contents": _wire(types.Content, row["contents"]),
        "generationConfig": _dumped(generation(request, thinking)),
        "labels": {LABEL: name},
    }
    if "systemInstruction" in row:
        (asked["systemInstruction"],) = _wire(types.Content, [row["systemInstruction"]])
    if "tools" in row:
        asked["tools"] = _wire(types.Tool, row["tools"])
    return json.dumps({"request": asked}, ensure_ascii=False).encode() + b"\n"


def _wire(kind: type[BaseModel], values: JsonValue) -> list[JsonValue]:
    """Return parts of a row as the SDK writes them when `chat` asks."""
    return [_dumped(kind.model_validate(value)) for value in cast("list[JsonValue]", values)]


def _dumped(value: BaseModel) -> JsonValue:
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


def read_row(line: bytes, folder: str) -> Answered:
    """Return what a line of the answers says.

    Args:
        line: As Vertex AI wrote it.
        folder: Where, for people.

    Raises:
        BackendError: It does not say which request it answers.
    """
    try:
        row = cast("Row", json.loads(line))
        name = str(row["request"]["labels"][LABEL])
    except (ValueError, KeyError, TypeError) as problem:
        raise BackendError(
            f"A row in {folder} does not say which request it answers: Vertex AI should have given "
            f"back the label {LABEL!r}. The answers stay there; run without --batch."
        ) from problem
    if status := row.get("status"):
        said = f"Gemini could not answer: {_reason(str(status))}."
        return Answered(name, Reply(error=said, finish_reason="error"))
    # As the SDK reads an answer to `chat`: what it does not know yet is left out.
    kind = cast("Any", types.GenerateContentResponse)
    try:
        answer = kind._from_response(response=row.get("response") or {}, kwargs={})  # noqa: SLF001
    except ValidationError as error:
        return Answered(name, Reply(error=str(ours(error, "answer")), finish_reason="error"))
    return Answered(name, read_answer(answer, None))


def _reason(status: str) -> str:
    """Return the message of a row's status, such as ``Bad Request: {"error": {…}}``."""
    head, brace, tail = status.partition("{")
    try:
        said = f"{head}{json.loads(brace + tail)['error']['message']}"
    except (ValueError, KeyError, TypeError):
        said = status
    return safe(said).strip().rstrip(".")
