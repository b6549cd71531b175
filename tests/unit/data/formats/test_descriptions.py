"""Rows held against what vendors publish: the SDKs' own types and the API descriptions."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from unitune.backends.formats import wire_format
from unitune.data.example import Example

SPEC = Path(__file__).parents[5] / "shared" / "specs" / "openai-openapi.json"
SAID = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": [{"type": "text", "text": "Where"}, {"type": "text", "text": "?"}]},
]
CALL = {"id": "c1", "type": "function", "function": {"name": "track", "arguments": '{"order": 7}'}}
SCHEMA = {
    "type": "object",
    "properties": {
        "order": {"type": "integer", "minimum": 1, "description": "its number"},
        "way": {"anyOf": [{"type": "string", "enum": ["air", "sea"]}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
    },
    "required": ["order"],
}
ROW = Example.model_validate(
    {
        "messages": [
            *SAID,
            {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL], "weight": 1},
            {"role": "tool", "tool_call_id": "c1", "content": "in Bonn"},
            {"role": "assistant", "content": "In Bonn."},
        ],
        "tools": [{"type": "function", "function": {"name": "track", "parameters": SCHEMA}}],
    }
)
PAIR = Example.model_validate(
    {
        "input": {"messages": SAID},
        "preferred_output": [{"role": "assistant", "content": "In Bonn."}],
        "non_preferred_output": [{"role": "assistant", "content": "Who knows."}],
    }
)
PLAIN = Example(messages=(*ROW.messages[:2], ROW.messages[-1]))


def test_vertex_rows_are_what_googles_types_describe() -> None:
    types = pytest.importorskip("google.genai.types", reason="needs the extra `vertex`")
    row = wire_format("vertex-sft").encode(ROW)
    # There is no type of the supervised row, whose keys that of reinforcement has, too.
    assert types.ReinforcementTuningExample.model_validate(row).tools
    question = Example(messages=ROW.messages[:2], expected="In Bonn.")
    graded = types.ReinforcementTuningExample.model_validate(
        wire_format("vertex-rft").encode(question)
    )
    assert graded.references == {"expected": "In Bonn."}
    pair = wire_format("vertex-preference").encode(PAIR)
    instruction = pair.pop("system_instruction")
    assert types.Content.model_validate(instruction).parts
    assert types.GeminiPreferenceExample.model_validate(pair).completions


def test_nova_rows_are_what_converse_takes() -> None:
    loaders = pytest.importorskip("botocore.loaders", reason="needs the extra `bedrock`")
    from botocore.model import ServiceModel  # noqa: PLC0415 - an extra
    from botocore.validate import ParamValidator  # noqa: PLC0415 - an extra

    model = ServiceModel(loaders.Loader().load_service_model("bedrock-runtime", "service-2"))
    shape = model.operation_model("Converse").input_shape
    row = wire_format("bedrock-nova").encode(PLAIN)
    asked = {"modelId": "nova", "system": row["system"], "messages": row["messages"]}
    assert not ParamValidator().validate(asked, shape).has_errors()


@cache
def openai_schema() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(SPEC.read_text(encoding="utf-8"))
    return document


def fits(value: Any, name: str) -> bool:
    jsonschema = pytest.importorskip("jsonschema")
    schema = {"$ref": f"#/components/schemas/{name}", "components": openai_schema()["components"]}
    return jsonschema.Draft202012Validator(schema).is_valid(value)


@pytest.mark.skipif(not SPEC.exists(), reason="needs ../shared/specs/openai-openapi.json")
def test_openai_turns_and_tools_are_what_the_api_describes() -> None:
    row = wire_format("openai-chat").encode(ROW)
    assert all(fits(turn, _schema_of(turn)) for turn in row["messages"])  # type: ignore[union-attr]
    assert all(fits(tool, "ChatCompletionTool") for tool in row["tools"])  # type: ignore[union-attr]
    assert not fits({"role": "user"}, "ChatCompletionRequestMessage")


def _schema_of(turn: Any) -> str:
    assistant = turn["role"] == "assistant"
    return (
        "FineTuneChatCompletionRequestAssistantMessage"
        if assistant
        else "ChatCompletionRequestMessage"
    )
