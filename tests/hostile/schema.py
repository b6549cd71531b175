"""Values that a published JSON Schema describes: `described`.

As far as such a schema goes: types, choices, bounds. What a model checks besides is not in it, so a
value may be refused all the same. No schema of ours says more than what is read here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hostile.values import json_values, texts
from hypothesis import strategies as st

Schema = Mapping[str, Any]
DEEPEST = 6
"""Grader objects hold others without end."""


def described(schema: Schema) -> st.SearchStrategy[Any]:
    """Return values that a schema describes; its ``$ref`` lead into its own ``$defs``."""
    return _value(schema, schema.get("$defs", {}), 0)


def part(schema: Schema, name: str) -> st.SearchStrategy[Any]:
    """Return values of one property of the object that a schema describes."""
    return _value(schema["properties"][name], schema.get("$defs", {}), 0)


def _value(schema: Schema, named: Schema, depth: int) -> st.SearchStrategy[Any]:
    if depth > DEEPEST:
        return st.none()
    if "$ref" in schema:
        return _deferred(named[schema["$ref"].rpartition("/")[2]], named, depth + 1)
    if choices := schema.get("enum", [schema["const"]] if "const" in schema else None):
        return st.sampled_from(choices)
    if variants := schema.get("anyOf") or schema.get("oneOf"):
        return st.one_of([_deferred(one, named, depth) for one in variants])
    kind = schema.get("type")
    if kind in ("object", "array"):
        return (_object if kind == "object" else _array)(schema, named, depth)
    return SIMPLE.get(kind, lambda _: json_values())(schema)


def _deferred(schema: Schema, named: Schema, depth: int) -> st.SearchStrategy[Any]:
    return st.deferred(lambda: _value(schema, named, depth))


@st.composite
def _object(draw: st.DrawFn, schema: Schema, named: Schema, depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    needed = set(schema.get("required", ()))
    chosen = [name for name in properties if name in needed or draw(st.integers(0, 3)) == 0]
    found = {name: draw(_value(properties[name], named, depth + 1)) for name in chosen}
    more = schema.get("additionalProperties")
    if isinstance(more, dict) or (more is True and not properties):
        inner = _value(more if isinstance(more, dict) else {}, named, depth + 1)
        found |= draw(st.dictionaries(texts(), inner, max_size=2))
    return found


def _array(schema: Schema, named: Schema, depth: int) -> st.SearchStrategy[list[Any]]:
    if "prefixItems" in schema:
        return st.tuples(*(_value(one, named, depth + 1) for one in schema["prefixItems"])).map(
            list
        )
    inner = _value(schema.get("items", {}), named, depth + 1)
    return st.lists(inner, min_size=schema.get("minItems", 0), max_size=3)


def _string(schema: Schema) -> st.SearchStrategy[str]:
    if "pattern" in schema:
        return st.from_regex(schema["pattern"]).filter(lambda text: len(text) < 200) | texts()
    return st.sampled_from(("x", "train.jsonl", "test.jsonl", "2026-01-01", "0.5")) | texts()


def _integer(schema: Schema) -> st.SearchStrategy[int]:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
    return st.integers(low, schema.get("maximum", low + 300))


def _number(schema: Schema) -> st.SearchStrategy[float]:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1e9))
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 1e9))
    return st.floats(low, high, allow_nan=False) | st.sampled_from((low, high))


SIMPLE: Mapping[Any, Callable[[Schema], st.SearchStrategy[Any]]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": lambda _: st.booleans(),
    "null": lambda _: st.none(),
}
