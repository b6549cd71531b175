"""Convert function declarations between OpenAI's tools and Gemini's.

OpenAI's `parameters` are JSON Schema; Gemini's are the subset of OpenAPI 3.0, with types in
capitals. Schemas beyond that (`$ref`, `oneOf`, `const`, several types …) are refused. `strict` is
dropped, as Gemini has no such setting.

Source: google-genai 3.6, types.FunctionDeclaration, types.Schema and types.Type; discovery document
of aiplatform v1, GoogleCloudAiplatformV1Schema (`additionalProperties`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from unitune.backends.formats import UnrepresentableRow
from unitune_providers.formats.checks import known_keys, object_of, objects, text_of
from unitune_providers.formats.openai import check_tools

FUNCTION_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
TO_GEMINI = {name: name.upper() for name in TYPES}
TO_JSON_SCHEMA = {spelling: name for name in TYPES for spelling in (name, name.upper())}
PLAIN = (  # keys of a schema whose values are the same on both sides
    *("title", "description", "format", "pattern", "nullable", "default", "example"),
    *("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"),
    *("minimum", "maximum", "required", "propertyOrdering"),
)
NESTED = ("type", "enum", "properties", "items", "anyOf", "additionalProperties")

Types = Mapping[str, str]  # type names of one side by those of the other


def declarations(tools: Sequence[dict[str, JsonValue]]) -> JsonValue:
    """Convert OpenAI's tools to Gemini's, or raise `UnrepresentableRow`."""
    check_tools(tools, named=FUNCTION_NAME)
    made: list[JsonValue] = []
    for index, tool in enumerate(tools):
        where = f"tools[{index}].function"
        function = {**object_of(where, tool["function"])}
        function.pop("strict", None)
        made.append(_function(where, function, TO_GEMINI))
    return [{"functionDeclarations": made}]


def tools_of(value: JsonValue) -> JsonValue:
    """Convert Gemini's tools to OpenAI's, or raise `UnrepresentableRow`."""
    made: list[JsonValue] = []
    for index, tool in enumerate(objects("tools", value)):
        where = f"tools[{index}]"
        key = "function_declarations" if "function_declarations" in tool else "functionDeclarations"
        known_keys(where, tool, (key,))
        for number, declared in enumerate(objects(f"{where}.{key}", tool.get(key))):
            place = f"{where}.{key}[{number}]"
            known_keys(place, declared, ("name", "description", "parameters"))
            made.append(
                {"type": "function", "function": _function(place, declared, TO_JSON_SCHEMA)}
            )
    return made


def _function(where: str, function: Mapping[str, JsonValue], types: Types) -> dict[str, JsonValue]:
    made = dict(function)
    for key in ("name", "description"):
        if key in made:
            text_of(f"{where}.{key}", made[key])
    if "parameters" in made:
        made["parameters"] = _schema(f"{where}.parameters", made["parameters"], types)
    return made


def _schema(where: str, value: JsonValue, types: Types) -> JsonValue:
    schema = object_of(where, value)
    known_keys(where, schema, (*PLAIN, *NESTED))
    made = dict(schema)
    if "type" in made:
        made["type"] = _type(where, made["type"], types)
    if "enum" in made and not _all_texts(made["enum"]):
        raise UnrepresentableRow(f"{where}.enum is not a list of texts")
    if "properties" in made:
        properties = object_of(f"{where}.properties", made["properties"])
        made["properties"] = {
            name: _schema(f"{where}.properties.{name}", inner, types)
            for name, inner in properties.items()
        }
    if "items" in made:
        made["items"] = _schema(f"{where}.items", made["items"], types)
    if isinstance(extra := made.get("additionalProperties", False), dict):
        made["additionalProperties"] = _schema(f"{where}.additionalProperties", extra, types)
    elif not isinstance(extra, bool):
        raise UnrepresentableRow(f"{where}.additionalProperties is neither a schema nor a boolean")
    if "anyOf" in made:
        made["anyOf"] = [
            _schema(f"{where}.anyOf[{index}]", inner, types)
            for index, inner in enumerate(objects(f"{where}.anyOf", made["anyOf"]))
        ]
    return made


def _type(where: str, value: JsonValue, types: Types) -> str:
    if not isinstance(value, str) or value not in types:
        raise UnrepresentableRow(f"{where}.type is {value!r}; allowed: {', '.join(TYPES)}")
    return types[value]


def _all_texts(value: JsonValue) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
