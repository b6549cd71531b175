"""A backend's own options as `unitune backends NAME` lists them, from their typed model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from pydantic import BaseModel, JsonValue

Schema = dict[str, JsonValue]
BOUNDS = {
    "exclusiveMinimum": "above",
    "minimum": "at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
    "pattern": "like",
}


class OptionView(BaseModel):
    """One option as `unitune backends --json` prints it."""

    name: str
    type: str
    """In words, with its bounds: ``number above 0, auto``."""
    default: JsonValue
    """None: the vendor's own."""
    meaning: str


def option_views(kind: type[BaseModel]) -> tuple[OptionView, ...]:
    """Return the options of a model, in its order; those of a part with its name and a dot.

    Args:
        kind: One that a job's options, or those of a deployment, are held against.
    """
    schema = cast("Schema", kind.model_json_schema())
    return tuple(_views(schema, cast("dict[str, Schema]", schema.get("$defs", {})), ""))


def _views(schema: Schema, parts: dict[str, Schema], before: str) -> Iterator[OptionView]:
    for name, told in cast("dict[str, Schema]", schema.get("properties", {})).items():
        yield OptionView(
            name=f"{before}{name}",
            type=", ".join(dict.fromkeys(_types(told))) or "any",
            default=told.get("default"),
            meaning=" ".join(str(told.get("description", "")).replace("`", "").split()),
        )
        for part in _parts(told):
            yield from _views(parts[part], parts, f"{before}{name}.")


def _choices(told: Schema) -> list[Schema]:
    return cast("list[Schema]", told.get("anyOf", [told]))


def _parts(told: Schema) -> list[str]:
    """Return the names of the models that an option is made of."""
    return [str(one["$ref"]).rpartition("/")[2] for one in _choices(told) if "$ref" in one]


def _types(told: Schema) -> Iterator[str]:
    for choice in _choices(told):
        if "const" in choice:
            yield str(choice["const"])
        elif "enum" in choice:
            yield from map(str, cast("list[JsonValue]", choice["enum"]))
        elif choice.get("type") == "array":
            yield f"list of {', '.join(_types(cast('Schema', choice.get('items', {}))))}"
        elif "$ref" in choice:
            yield "object"
        elif choice.get("type") not in (None, "null"):
            bounds = [f"{word} {choice[key]}" for key, word in BOUNDS.items() if key in choice]
            yield " ".join([str(choice["type"]), *bounds])
