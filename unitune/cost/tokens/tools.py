"""Tokens of tools and of calls of them, in OpenAI's framing, which is not published.

A tool is counted by the constants of OpenAI's cookbook, which gave what the API counted for a flat
tool; nested parameters are counted as if each level were a tool's. Nothing public says how a call
is framed. So both are assumed, and the high count has them as JSON where that is more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

from pydantic import JsonValue

from unitune.cost.tokens.count import Count

Tokens = Callable[[str], int]
Tool = Mapping[str, JsonValue]

# Source: openai/openai-cookbook, examples/How_to_count_tokens_with_tiktoken.ipynb (2025), which
# found 105 tokens (gpt-4, gpt-3.5) and 101 (gpt-4o) as the API did.
TOOL_START = {"o200k_base": 7, "cl100k_base": 10}
TOOLS_END = 12
PROPERTIES_START = 3
PROPERTY = 3
ENUM_START = -3
ENUM_ITEM = 3
CALL_ADDRESS = 4
"""Tokens of " to=functions.", by which a call names its tool in OpenAI's public Harmony format."""


def tools_count(tools: Sequence[Tool], tokens: Tokens, encoding: str) -> Count:
    """Return the tokens of the tools that stand in a prompt.

    Args:
        tools: In OpenAI's form; what has another form counts as JSON.
        tokens: Counts a text.
        encoding: o200k_base or cl100k_base, whose constants differ.
    """
    likely = TOOLS_END + sum(_tool(tool, tokens, TOOL_START[encoding]) for tool in tools)
    as_json = sum(tokens(_json(tool)) for tool in tools)
    return Count(min(likely, as_json), likely, max(likely, as_json))


def calls_count(calls: Sequence[Tool], tokens: Tokens) -> Count:
    """Return the tokens with which a model calls tools.

    Args:
        calls: In OpenAI's form; what has another form counts as JSON.
        tokens: Counts a text.
    """
    return sum((_call(call, tokens) for call in calls), Count())


def _tool(tool: Tool, tokens: Tokens, start: int) -> int:
    function = tool.get("function", tool)
    if not isinstance(function, dict):
        return start + tokens(_json(tool))
    line = f"{_text(function, 'name')}:{_text(function, 'description').removesuffix('.')}"
    return start + tokens(line) + _properties(function.get("parameters"), tokens)


def _properties(schema: JsonValue, tokens: Tokens) -> int:
    """Count a JSON Schema's properties, however deep."""
    total, waiting = 0, [schema]
    while waiting:
        here = waiting.pop()
        if isinstance(here, list):
            waiting += here
            continue
        if not isinstance(here, dict):
            continue
        known = here.get("properties")
        if isinstance(known, dict) and known:
            total += PROPERTIES_START + sum(_property(*pair, tokens) for pair in known.items())
            waiting += known.values()
        waiting += [here[key] for key in ("items", "anyOf", "oneOf", "allOf") if key in here]
    return total


def _property(name: str, schema: JsonValue, tokens: Tokens) -> int:
    known = schema if isinstance(schema, dict) else {}
    line = f"{name}:{_text(known, 'type')}:{_text(known, 'description').removesuffix('.')}"
    items = known.get("enum")
    if not isinstance(items, list):
        return PROPERTY + tokens(line)
    return PROPERTY + tokens(line) + ENUM_START + sum(_items(items, tokens))


def _items(items: list[JsonValue], tokens: Tokens) -> Iterator[int]:
    return (ENUM_ITEM + tokens(item if isinstance(item, str) else _json(item)) for item in items)


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
