"""Turn pydantic's errors into sentences for the people who write files.

tuning.epochs is 'many'; it must be a whole number or auto.
evaluate.scorers.0 is 'exakt', which is not known. Did you mean 'exact'? Known: bleu, …
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from unitune.documents import field_docs
from unitune.errors import nearest
from unitune.security.addresses import UNREPEATED

Location: TypeAlias = tuple[str | int, ...]
_MAPPINGS = ("dataclass", "dict", "mapping", "model", "model_attributes")
# Required value by type of error, without ``_type`` or ``_parsing``
WANTED: Mapping[str, str] = {
    **dict.fromkeys(_MAPPINGS, "a mapping of keys to values"),
    **dict.fromkeys(("frozen_set", "iterable", "list", "set", "tuple"), "a list"),
    **dict.fromkeys(("bytes", "string"), "a text"),
    **dict.fromkeys(("date", "date_from_datetime"), "a date such as 2026-11-25"),
    **dict.fromkeys(("decimal", "float"), "a number"),
    **dict.fromkeys(("int", "int_from_float"), "a whole number"),
    "bool": "true or false",
    "date_from_datetime_inexact": "a date without a time",
    "datetime": "a date with its time, such as 2026-11-25T08:30:00Z",
    "enum": "one of {expected}",
    "finite_number": "a finite number",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "invalid-json-value": "a text, a number, true, false, a list or a mapping",
    "invalid_key": "under keys that are texts",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "none_required": "empty",
    "string_not_ascii": "a text in ASCII",
    "string_pattern_mismatch": "written in another way",
    "string_too_long": "a text of at most {max_length} characters",
    "string_too_short": "a text of at least {min_length} characters",
    "string_unicode": "a text in Unicode",
    "time": "a time of day",
    "time_delta": "a span of time",
    "too_long": "a list of {max_length} entries at most",
    "too_short": "a list of {min_length} or more entries",
    "url": "an address such as https://example.com/v1",
    "uuid": "a UUID",
}
_SAME = re.compile(r"_(type|parsing(_size)?)$")
_QUOTED = re.compile(r"'([^']*)'")
_TEXTS = ("value_error", "assertion_error", UNREPEATED)  # errors with messages of our own
QUOTES = "'\""
MOST_SHOWN = 80


class Part(NamedTuple):
    """Part of a model at a location."""

    model: type[BaseModel] | None  # mapping with the last key; None if unknown
    inner: tuple[type[BaseModel], ...]  # mappings that are allowed at the location
    described: str = ""  # documentation of the value


def keys_of(model: type[BaseModel]) -> list[str]:
    """Return the keys that a file may have for a model."""
    return [key for key, field in _fields(model).items() if not field.exclude]


def by_location(value: Any, failure: ValidationError) -> dict[Location, list[ErrorDetails]]:
    """Return pydantic's errors about a value by their locations in it."""
    errors: dict[Location, list[ErrorDetails]] = {}
    for detail in failure.errors():
        if detail["type"] == "default_factory_not_called":
            continue  # caused by another error in the list
        errors.setdefault(_location_in(value, detail), []).append(detail)
    return errors


def _location_in(value: Any, detail: ErrorDetails) -> Location:
    """Return pydantic's location without the names of union branches."""
    at: list[str | int] = []
    tagged = None
    for part in detail["loc"]:
        if value is not tagged and part == _item(value, "type"):
            tagged = value  # a branch, even if a key has the same name
            continue
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            continue
        at.append(part)
    return (*at, detail["loc"][-1]) if detail["type"] == "missing" else tuple(at)


def dotted(at: Location) -> str:
    """Return a location as Python writes it: ``messages[1].role``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at)
    return text.removeprefix(".")


def part_at(model: type[BaseModel], value: Any, at: Location) -> Part:
    """Return the part of a model at a location in a value."""
    holder, inner, described = None, (model,), ""
    for part in at:
        holder, described = _chosen(inner, value), ""
        if holder and (field := _fields(holder).get(str(part))):
            inner = tuple(_models_in(field.annotation))
            described = field.description or field_docs(holder).get(str(part), "")
        value = _item(value, part)
    return Part(holder, inner, described)


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _item(value: Any, part: str | int) -> Any:
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return None


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _chosen(models: Sequence[type[BaseModel]], value: Any) -> type[BaseModel] | None:
    """Return the model of a value; of several models, the one with its `type`."""
    if len(models) == 1:
        return models[0]
    kind = _item(value, "type") if isinstance(value, Mapping) else value
    fields = ((each, each.model_fields.get("type")) for each in models)
    return next((each for each, field in fields if kind and field and field.default == kind), None)


def dotted_keys(model: type[BaseModel]) -> dict[str, str]:
    """Return dotted keys by their last part; of several, the first of the shallowest."""
    below: dict[str, str] = {}
    for key, field in _fields(model).items():
        inner = [each for each in _models_in(field.annotation) if each is not model]
        if len(inner) == 1 and not field.exclude:
            for leaf, dotted in dotted_keys(inner[0]).items():
                path = f"{key}.{dotted}"
                below[leaf] = min(below.get(leaf, path), path, key=lambda place: place.count("."))
    return below | {key: key for key in keys_of(model)}


def first_problem(failure: ValidationError) -> str:
    """Return the first of pydantic's errors with its location: ``rows.0.id is missing``."""
    first = failure.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "it"
    return f"{where} {sentence([first])}".removesuffix(".")


def sentence(
    details: Sequence[ErrorDetails], part: Part | None = None, elsewhere: Mapping[str, str] = {}
) -> str:
    """Return a sentence, to follow the name of a location, about what is wrong there.

    Args:
        details: All of pydantic's errors there; several are branches of a union.
        part: Part of the model.
        elsewhere: Key to use, or a sentence, by unknown key.
    """
    detail, part = details[0], part or Part(None, ())
    if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        keys = keys_of(part.model) if part.model else []
        return unknown_key(str(detail["loc"][-1]), keys, elsewhere)
    if detail["type"].startswith("missing"):
        return "is missing; it must be given."
    if texts := [own_text(each) for each in details if each["type"] in _TEXTS]:
        shown = "" if detail["type"] == UNREPEATED else _shown(detail["input"])
        return f"is {shown or 'not valid'}: {'; or '.join(dict.fromkeys(texts))}."
    if detail["type"].startswith("union_tag"):
        return _unknown_type(detail)
    given, choices = detail["input"], _choices(details)
    guess = did_you_mean(given, choices) if isinstance(given, str) else ""
    return f"is {_shown(given) or 'not valid'}; it must be {wanted(details, part)}.{guess}"


def unknown_key(key: str, known: Sequence[str], elsewhere: Mapping[str, str] = {}) -> str:
    """Return a sentence about an unknown key with the nearest and all known keys."""
    meant = elsewhere.get(key.strip().lower().replace("-", "_"), "")
    if " " in meant:
        return f"is not a known key. {meant}"
    near = meant.rpartition(".")[2]
    if near not in known:
        near = meant or nearest(key, known)
    guess = f" Did you mean {near!r}?" if near else ""
    listed = f" Known: {', '.join(known)}." if known else ""
    return f"is not a known key.{guess}{listed}"


def _unknown_type(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    known = sorted(_QUOTED.findall(str(context.get("expected_tags", ""))))
    if "tag" not in context:
        return "has no `type`, which is required."
    tag = str(context["tag"])
    guess = did_you_mean(tag, known)
    return f"is {_shown(tag)}, which is not known.{guess} Known: {', '.join(known)}."


def did_you_mean(given: str, known: Collection[str]) -> str:
    """Return a question with the nearest known name; empty without a near one."""
    name, advice = _other_words().get(given.lower(), ("", ""))
    if name in known:
        return f" {advice}"
    near = nearest(given, known)
    return f" Did you mean {near!r}?" if near else ""


@cache
def _other_words() -> dict[str, tuple[str, str]]:
    """Return name and advice by word of another tool."""
    return json.loads(Path(__file__).with_name("other_words.json").read_text(encoding="utf-8"))


def own_text(detail: ErrorDetails) -> str:
    """Return the message of one of our own checks."""
    cause = detail.get("ctx", {}).get("error")
    return str(cause or detail["msg"]).removesuffix(".")


def _shown(value: object) -> str:
    if value is None:
        return "empty"
    text = repr(value) if isinstance(value, str | int | float) else ""
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def wanted(details: Sequence[ErrorDetails], part: Part | None = None) -> str:
    """Return a description of allowed values: ``a whole number or auto``."""
    words = dict.fromkeys(_wanted(each, part or Part(None, ())) for each in details)
    if "a number" in words:
        words.pop("a whole number", None)
    return " or ".join(words)


def _wanted(detail: ErrorDetails, part: Part) -> str:
    kind, context = _SAME.sub("", detail["type"]), detail.get("ctx", {})
    if kind == "literal_error":
        choices = _choices([detail])
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if kind == "string_pattern_mismatch" and part.described:
        return part.described[0].lower() + part.described[1:].replace("`", "").removesuffix(".")
    bounds = {
        key: f"{value:g}" if isinstance(value, float) else value for key, value in context.items()
    }
    words = WANTED.get(kind, "another value").format_map(bounds)
    if kind == "model" and len(part.inner) == 1:
        return f"{words}: {', '.join(keys_of(part.inner[0]))}"
    if words == "a list" and isinstance(detail["input"], str):
        return f"a list: [{_shown(detail['input']).strip(QUOTES)}]"
    return words


def _choices(details: Sequence[ErrorDetails]) -> list[str]:
    expected = [
        str(each.get("ctx", {}).get("expected", ""))
        for each in details
        if each["type"] in ("literal_error", "enum")
    ]
    return [choice for text in expected for choice in _QUOTED.findall(text) or [text]]
