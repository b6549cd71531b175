"""Define the parts of a promptfoo result that are read: one answer to one test."""

from __future__ import annotations

import json
from typing import Annotated, cast

import yaml
from pydantic import BaseModel, Field, JsonValue, TypeAdapter, ValidationError

from unitune.data.example import MESSAGES, Message
from unitune.files.validation import first_problem
from unitune.files.yaml_file import parse_foreign
from unitune.importers.foreign import plain_json

PROVIDER_FAILED = 2  # `failureReason` of a row without an answer


class _Prompt(BaseModel):
    raw: str
    label: str = ""


class _Provider(BaseModel):
    id: str = ""
    label: str | None = None


class _Response(BaseModel):
    output: JsonValue = None


class _TestCase(BaseModel):
    description: str | None = None
    assertions: Annotated[list[JsonValue], Field(alias="assert")] = []
    options: dict[str, JsonValue] | None = None
    threshold: JsonValue = None
    scored_by: Annotated[JsonValue, Field(alias="assertScoringFunction")] = None
    variables: Annotated[dict[str, JsonValue], Field(alias="vars")] = {}


class Row(BaseModel):
    """One answer to one test."""

    test: Annotated[int, Field(alias="testIdx", ge=0)]
    column: Annotated[int, Field(alias="promptIdx", ge=0)]
    prompt: _Prompt
    provider: _Provider
    response: _Response | None = None
    success: bool
    milliseconds: Annotated[float | None, Field(alias="latencyMs")] = None
    cost: float | None = None
    failure: Annotated[int, Field(alias="failureReason")] = 0
    test_case: Annotated[_TestCase, Field(alias="testCase")]
    grading: Annotated[JsonValue, Field(alias="gradingResult")] = None

    @property
    def case(self) -> str:
        """The id of the case."""
        return f"test-{self.test + 1}"

    @property
    def answered(self) -> bool:
        """True if there is an answer to score."""
        return self.failure != PROVIDER_FAILED and self.response is not None

    @property
    def text(self) -> str:
        """The answer, or an empty string."""
        output = self.response.output if self.response else ""
        return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)


ROWS = TypeAdapter(list[Row])


def messages_of(prompt: str) -> tuple[Message, ...]:
    """Return a prompt as messages: a JSON or YAML list of them, or one user message.

    Parts may have Adaline's form, ``{"modality": "text", "value": …}``. Raises `ValueError`.
    """
    try:
        as_yaml = prompt.strip().startswith("- role:")
        value = plain_json(parse_foreign(prompt) if as_yaml else json.loads(prompt))
    except (ValueError, RecursionError, yaml.YAMLError):
        value = None
    turns = value if isinstance(value, list) else []
    if not turns or not all(isinstance(turn, dict) and "role" in turn for turn in turns):
        if not prompt.strip():
            raise ValueError("the prompt is empty")
        return (Message(role="user", content=prompt),)
    try:
        return MESSAGES.validate_python(list(map(_with_text_parts, turns)))
    except ValidationError as failure:
        raise ValueError(
            f"the prompt is not a list of texts: {first_problem(failure)}"
        ) from failure


def _with_text_parts(turn: JsonValue) -> JsonValue:
    if not isinstance(turn, dict) or not isinstance(turn.get("content"), list):
        return turn
    parts: list[JsonValue] = []
    for part in cast("list[JsonValue]", turn["content"]):
        match part:
            case {"modality": "text", "value": str() as text}:
                parts.append({"type": "text", "text": text})
            case _:
                parts.append(part)
    return {**turn, "content": parts}
