"""Answers of a vendor without what it may leave out: optional fields, gone or null, at random.

Which fields are optional is not listed here: it is read from the vendor's own description of its
answers, as JSON Schema, such as the types of its SDK give one. A loopback vendor says
which description belongs to which request (`Shape`), and `ServerBehavior.omits` switches it on:

    behavior.omits = Omissions(seed=1)

Servers that only imitate a vendor leave out required fields as well; `Omissions(required=True)`
plays those. What is not here: fields of another type than described.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple, cast

from pydantic import JsonValue

Schema = Mapping[str, Any]  # A JSON Schema; its ``$ref`` lead into its own ``$defs``


EMPTY: Schema = {}


class Shape(NamedTuple):
    """What answers to a kind of request look like.

    Args:
        method: GET, POST, …
        path: Regular expression of the whole path.
        schema: Of the answer.
    """

    method: str
    path: str
    schema: Schema


@dataclass(slots=True)
class Omissions:
    """Leaves fields out of answers.

    Args:
        seed: Of the choice; the same requests in the same order lose the same fields.
        share: How many of the fields that may go do so.
        required: Whether fields that the description requires may go too.
        met: Paths of the fields that could have been left out so far, such as ``data[].message``.
        omitted: How many were.
    """

    seed: int = 0
    share: float = 0.3
    required: bool = False
    met: set[str] = field(default_factory=set[str])
    omitted: int = 0
    _random: Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)  # noqa: S311 - no secret

    def thinned(self, content: JsonValue, schema: Schema) -> JsonValue:
        """Return an answer, of this shape, without some of what may be left out."""
        return self._value(content, schema, schema, "")

    def _value(self, value: JsonValue, schema: Schema, root: Schema, path: str) -> JsonValue:
        schema = _fitting(value, schema, root)
        if isinstance(value, list):
            items = schema.get("items", {})
            return [self._value(item, items, root, f"{path}[]") for item in value]
        if not isinstance(value, dict):
            return value
        kept: dict[str, JsonValue] = {}
        for name, held in value.items():
            part = _part(name, schema)
            here = f"{path}.{name}" if path else name
            ways = self._ways(name, schema, root)
            if ways:
                self.met.add(here)
            if ways and self._random.random() < self.share:
                self.omitted += 1
                if self._random.choice(ways) == "null":
                    kept[name] = None
                continue
            kept[name] = self._value(held, part, root, here)
        return kept

    def _ways(self, name: str, schema: Schema, root: Schema) -> Sequence[str]:
        """Return how a field can be left out: not at all, gone, null."""
        if self.required:
            return ("gone", "null")
        described = name in schema.get("properties", {})
        optional = name not in schema.get("required", ())
        if not described:
            # An entry of a map, which no description can require.
            return ("gone",) if schema.get("additionalProperties") not in (None, True) else ()
        null = ("null",) if _takes_null(_part(name, schema), root) else ()
        return (*(("gone",) if optional else ()), *null)


def _part(name: str, schema: Schema) -> Schema:
    more: object = schema.get("additionalProperties")
    rest = cast("Schema", more) if isinstance(more, dict) else EMPTY
    return schema.get("properties", {}).get(name, rest)


def _fitting(value: JsonValue, schema: Schema, root: Schema) -> Schema:
    """Return the variant of a schema that knows most of a value's fields."""
    schema = _resolved(schema, root)
    variants = [
        _resolved(variant, root) for variant in schema.get("anyOf") or schema.get("oneOf") or ()
    ]
    if not variants:
        return schema
    if isinstance(value, list):
        return next((variant for variant in variants if "items" in variant), EMPTY)
    names = value.keys() if isinstance(value, dict) else set[str]()
    known = [_fitting(value, variant, root) for variant in variants]
    return max(known, key=lambda variant: len(names & variant.get("properties", {}).keys()))


def _takes_null(schema: Schema, root: Schema) -> bool:
    schema = _resolved(schema, root)
    variants = schema.get("anyOf") or schema.get("oneOf") or ()
    return schema.get("type") == "null" or any(_takes_null(variant, root) for variant in variants)


def _resolved(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema
