"""Omit optional fields of a vendor's answers at random, by removing them or setting them to null.

The optional fields are read from the vendor's own description of its answers as JSON Schema, such
as the types of its SDK provide. A test vendor maps descriptions to requests (`Shape`);
`ServerBehavior.omits` enables it.

Servers that imitate a vendor also omit required fields, as does `Omissions(required=True)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple, cast

from pydantic import JsonValue

Schema = Mapping[str, Any]  # a JSON Schema; its ``$ref`` point to its own ``$defs``


EMPTY: Schema = {}


class Shape(NamedTuple):
    """Description of the answers to a kind of request."""

    method: str  # GET, POST, …
    path: str  # regular expression for the whole path
    schema: Schema  # schema of the answer


@dataclass(slots=True)
class Omissions:
    """Omits fields of answers."""

    seed: int = 0  # seed of the choice; the same requests in the same order lose the same fields
    share: float = 0.3  # share of the optional fields that are omitted
    required: bool = False  # whether required fields may be omitted too
    # Paths of optional fields seen so far, such as ``data[].message``
    met: set[str] = field(default_factory=set[str])
    omitted: int = 0  # number of omitted fields
    _random: Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)  # noqa: S311 - not a secret

    def thinned(self, content: JsonValue, schema: Schema) -> JsonValue:
        """Return an answer without some of its optional fields."""
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
        if self.required:
            return ("gone", "null")
        described = name in schema.get("properties", {})
        optional = name not in schema.get("required", ())
        if not described:
            # An entry of a map, which cannot be required.
            return ("gone",) if schema.get("additionalProperties") not in (None, True) else ()
        null = ("null",) if _takes_null(_part(name, schema), root) else ()
        return (*(("gone",) if optional else ()), *null)


def _part(name: str, schema: Schema) -> Schema:
    more: object = schema.get("additionalProperties")
    rest = cast("Schema", more) if isinstance(more, dict) else EMPTY
    return schema.get("properties", {}).get(name, rest)


def _fitting(value: JsonValue, schema: Schema, root: Schema) -> Schema:
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
