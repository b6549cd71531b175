"""Each vendor is asked for an answer that follows a JSON Schema, as its own SDK's types have it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import JsonValue, TypeAdapter

pytest.importorskip("google.genai", reason="needs the vendors' extras")

from anthropic.types import OutputConfigParam
from botocore.session import Session
from botocore.validate import ParamValidator
from google.genai import types as gemini
from openai.types.shared_params import ResponseFormatJSONSchema

from unitune.backends.kit.chat_completions import Dialect
from unitune.data.example import Message
from unitune.models import Request
from unitune_providers.anthropic import message_body
from unitune_providers.bedrock.chat import converse_request
from unitune_providers.vertex.chat import request_body

SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def request(schema: dict[str, JsonValue] | None = SCHEMA) -> Request:
    return Request(messages=(Message(role="user", content="Where?"),), response_schema=schema)


def openai_body(asked: Request) -> Any:
    return Dialect().body("m", asked).get("response_format")


def anthropic_body(asked: Request) -> Any:
    return message_body("m", asked).get("output_config")


def bedrock_body(asked: Request) -> Any:
    return converse_request("m", asked).get("outputConfig")


def gemini_schema(asked: Request) -> Any:
    body: Any = request_body(asked, None)
    return body["generationConfig"].get("responseJsonSchema")


def test_openais_wire_has_the_schema_in_the_response_format() -> None:
    field = openai_body(request())
    TypeAdapter(ResponseFormatJSONSchema).validate_python(field)
    assert field["json_schema"]["schema"] == SCHEMA


def test_anthropics_wire_has_the_schema_in_the_output_configuration() -> None:
    field = anthropic_body(request())
    TypeAdapter(OutputConfigParam).validate_python(field)
    assert field["format"]["schema"] == SCHEMA


def test_geminis_wire_has_the_schema_in_the_generation_configuration() -> None:
    body: Any = request_body(request(), None)
    settings = gemini.GenerationConfig.model_validate(body["generationConfig"])
    assert settings.response_mime_type == "application/json"
    assert settings.response_json_schema == SCHEMA


def test_converse_has_the_schema_as_text_in_the_output_configuration() -> None:
    body = converse_request("m", request())
    operation: Any = Session().get_service_model("bedrock-runtime").operation_model("Converse")
    report = ParamValidator().validate(body, operation.input_shape)
    assert not report.has_errors(), report.generate_report()
    text = body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"]
    assert json.loads(text) == SCHEMA


@pytest.mark.parametrize("field", [openai_body, anthropic_body, bedrock_body, gemini_schema])
def test_without_a_schema_nothing_is_asked(field: Any) -> None:
    assert field(request(None)) is None
