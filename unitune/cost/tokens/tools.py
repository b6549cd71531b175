"""Tokens of tools and of calls of them, in OpenAI's framing, which is not published.

Models are shown tools as TypeScript, as OpenAI's public Harmony format has it. Counted so, prompts
have what the API returned in 14 of 17 known cases, and at most two tokens more or less in the
others. Nothing public says how a call is framed. So both are ranges, and the high count has them as
JSON where that is more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

from pydantic import JsonValue

from unitune.cost.tokens.count import Count

Tokens = Callable[[str], int]
Tool = Mapping[str, JsonValue]

MARGIN = 20
"""The part by which the count may be wrong: the worst known case is 2 of 68 tokens off
(hmarr/openai-chat-tokens, src/token-counts.test.ts, 2024: prompts as the API counted them)."""
DESCRIBED_LEVELS = 1
"""Properties further down are shown without what they say of themselves; likewise. Harmony shows
it, which the high count allows for."""
CALL_ADDRESS = 4
"""Tokens of " to=functions.", by which a call names its tool in OpenAI's public Harmony format."""


def tools_count(tools: Sequence[Tool], tokens: Tokens, frame: int) -> Count:
    """Return the tokens of the tools that stand in a prompt, with the frame around them.

    What has another form than OpenAI's counts as JSON.
    """
    others = sum(tokens(_json(tool)) for tool in tools if not _is_function(tool))
    shown = frame + others + tokens(as_typescript(tools))
    as_json = sum(tokens(_json(tool)) for tool in tools)
    return Count(shown - shown // MARGIN, shown, max(shown + shown // MARGIN, as_json))


def _is_function(tool: Tool) -> bool:
    return isinstance(tool.get("function"), dict)


def as_typescript(tools: Sequence[Tool]) -> str:
    """Return tools as models of OpenAI are shown them; what has another form is left out.

    Source: openai/harmony, docs/format.md, "Function calling" (2025-08).
    """
    functions = [function for tool in tools if isinstance(function := tool.get("function"), dict)]
    lines = [line for function in functions for line in (*_function_lines(function), "")]
    return "\n".join(("namespace functions {", "", *lines, "} // namespace functions"))


def _function_lines(function: Tool) -> Iterator[str]:
    name, description = _text(function, "name"), _text(function, "description")
    if description:
        yield f"// {description}"
    properties = list(_property_lines(function.get("parameters"), 0))
    if properties:
        yield from (f"type {name} = (_: {{", *properties, "}) => any;")
    else:
        yield f"type {name} = () => any;"


def _property_lines(schema: JsonValue, level: int) -> Iterator[str]:
    known = schema if isinstance(schema, dict) else {}
    properties, required = known.get("properties"), known.get("required")
    indent = "  " * level
    for name, each in properties.items() if isinstance(properties, dict) else ():
        description = _text(each, "description") if isinstance(each, dict) else ""
        if description and level < DESCRIBED_LEVELS:
            yield f"{indent}// {description}"
        optional = "" if isinstance(required, list) and name in required else "?"
        yield f"{indent}{name}{optional}: {_type(each, level)},"


def _type(schema: JsonValue, level: int) -> str:
    known = schema if isinstance(schema, dict) else {}
    either = [known["const"]] if "const" in known else known.get("enum") or known.get("anyOf")
    if isinstance(either, list):
        types = (_type(each, level) if isinstance(each, dict) else _json(each) for each in either)
        return " | ".join(types)
    named = known.get("type", "any")
    if named == "object" and known.get("properties"):
        return "\n".join(("{", *_property_lines(known, level + 1), f"{'  ' * level}}}"))
    if named == "array":
        return f"{_type(known.get('items'), level)}[]"
    return "number" if named == "integer" else _text(known, "type") or "any"


def calls_count(calls: Sequence[Tool], tokens: Tokens) -> Count:
    """Return the tokens with which a model calls tools."""
    return sum((_call(call, tokens) for call in calls), Count())


def _call(call: Tool, tokens: Tokens) -> Count:
    function = call.get("function")
    as_json = tokens(_json(call))
    if not isinstance(function, dict):
        return Count.of(as_json)
    plain = tokens(_text(function, "name")) + tokens(_text(function, "arguments"))
    likely = plain + CALL_ADDRESS
    return Count(plain, likely, max(likely, as_json))


def _text(values: Mapping[str, JsonValue], key: str) -> str:
    value = values.get(key, "")
    return value if isinstance(value, str) else _json(value)


def _json(value: JsonValue | Tool) -> str:
    return json.dumps(cast("JsonValue", value), ensure_ascii=False)
