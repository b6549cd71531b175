"""Assertions of promptfoo as scorers of unitune, one by one.

    equals TEXT            exact         outer whitespace aside, which promptfoo counts
    equals OBJECT          json_equal
    contains, icontains    contains
    regex                  regex         from JavaScript's syntax
    is-json                json_valid, or json_schema where it has a schema

Every other type is refused with the reason in ``assertions.yaml``. What a whole suite
makes of them is the business of `unitune.importers.promptfoo.scorers`.

Source: promptfoo 0.121.20, src/assertions and src/csv.ts, as installed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TypeAlias

import yaml
from pydantic import JsonValue

from unitune.findings import clip
from unitune.importers.promptfoo.javascript_regex import NoTranslation, python_pattern
from unitune.importers.promptfoo.templates import NotPlain, render, text_of
from unitune.importers.promptfoo.yaml12 import yaml_value
from unitune.scorers.interface import Scorer
from unitune.scorers.json_text import JsonEqual, JsonSchema, JsonValid
from unitune.scorers.text import Contains, Exact, Regex

Assertion: TypeAlias = Mapping[str, JsonValue]
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
"""What promptfoo's validator (Ajv) goes by; unitune's by 2020-12 where a schema names none."""


class NoCounterpart(ValueError):
    """An assertion that unitune does not score in just the same way."""


@dataclass(frozen=True, slots=True)
class Check:
    """An assertion as a scorer with what it expects.

    Args:
        scorer: The specification.
        expected: The expected answer; None for scorers that look at none.
    """

    scorer: Scorer
    expected: str | None = None


def flat(assertions: list[JsonValue]) -> Iterator[Assertion]:
    """Yield assertions, those of sets among them, that all must hold.

    Raises:
        NoCounterpart: An entry is no assertion, or a set passes at a threshold.
    """
    for entry in assertions:
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            raise NoCounterpart(f"{clip(entry)} is no assertion with a type")
        if entry["type"] != "assert-set":
            yield entry
            continue
        if "threshold" in entry:
            raise NoCounterpart("a set of assertions passes at a threshold")
        inner = entry.get("assert")
        yield from flat(inner if isinstance(inner, list) else [])


def translate(assertion: Assertion, values: Mapping[str, JsonValue]) -> Check | None:
    """Return what an assertion checks; None for one that counts for nothing (weight 0).

    Args:
        assertion: As promptfoo has it.
        values: Variables of the test.

    Raises:
        NoCounterpart: unitune scores nothing in just the same way.
    """
    kind = str(assertion["type"])
    if assertion.get("weight") == 0:
        return None
    if assertion.get("transform"):
        raise NoCounterpart(f"{kind!r} transforms the answer by code before it looks")
    maker = MAKERS.get(kind)
    if maker is None:
        raise NoCounterpart(f"{kind!r}: {_reason(kind)}")
    try:
        return maker(_value(assertion.get("value"), values))
    except (NotPlain, NoTranslation) as failure:
        raise NoCounterpart(
            f"{kind!r} has the value {clip(assertion.get('value'))}: {failure}"
        ) from (failure)


def _value(value: JsonValue, values: Mapping[str, JsonValue]) -> JsonValue:
    if not isinstance(value, str):
        return value
    if value.startswith("file://"):
        raise NotPlain("it stands in a file")
    return render(value, values)


def _equals(value: JsonValue) -> Check:
    if value is None:
        raise NotPlain("there is nothing to equal")
    if isinstance(value, dict):
        return Check(JsonEqual(), json.dumps(value, ensure_ascii=False))
    if isinstance(value, list):
        # Templates inside a list are filled in, those inside an object are not.
        if any(isinstance(item, str) and "{{" in item for item in value):
            raise NotPlain("a list with templates in it")
        return Check(JsonEqual(), json.dumps(value, ensure_ascii=False))
    return Check(Exact(), text_of(value))


def _contains(value: JsonValue, *, ignore_case: bool = False) -> Check:
    if value is None or value == "":
        raise NotPlain("every answer contains nothing")
    return Check(Contains(ignore_case=ignore_case), text_of(value))


def _icontains(value: JsonValue) -> Check:
    return _contains(value, ignore_case=True)


def _regex(value: JsonValue) -> Check:
    if not isinstance(value, str):
        raise NotPlain("a pattern is a text")
    return Check(Regex(pattern=python_pattern(value)))


def _is_json(value: JsonValue) -> Check:
    if value is None or value == "":
        return Check(JsonValid())
    try:
        schema = yaml_value(value) if isinstance(value, str) else value
    except (yaml.YAMLError, ValueError) as failure:
        raise NotPlain(f"it is no YAML: {failure}") from failure
    if not isinstance(schema, dict):
        raise NotPlain("a JSON Schema is an object")
    if '"format"' in json.dumps(schema):
        raise NotPlain("promptfoo asserts `format`, which unitune leaves to the standard's default")
    return Check(JsonSchema(definition={"$schema": DRAFT_7, **schema}))


MAKERS: Mapping[str, Callable[[JsonValue], Check]] = {
    "equals": _equals,
    "contains": _contains,
    "icontains": _icontains,
    "regex": _regex,
    "is-json": _is_json,
}


@cache
def _reasons() -> Mapping[str, str]:
    place = files("unitune.importers.promptfoo").joinpath("assertions.yaml")
    groups = yaml.safe_load(place.read_text(encoding="utf-8"))
    return {kind: group["reason"] for group in groups for kind in group["types"]}


def _reason(kind: str) -> str:
    known = _reasons()
    if kind.startswith("not-") and kind.removeprefix("not-") in {*known, *MAKERS}:
        return "unitune's scorers have no opposites"
    return known.get(kind, "no such type of promptfoo is known")


def from_cell(text: str) -> Assertion:
    """Return the assertion that a cell ``__expected`` of a table stands for."""
    for prefix, kind in (
        ("javascript:", "javascript"),
        ("fn:", "javascript"),
        ("eval:", "javascript"),
        ("grade:", "llm-rubric"),
        ("python:", "python"),
    ):
        if text.startswith(prefix):
            return {"type": kind, "value": text.removeprefix(prefix).strip()}
    if text.startswith("file://"):
        return {"type": "python" if ".py" in text else "javascript", "value": text}
    names = "|".join({*_reasons(), *MAKERS})
    found = re.fullmatch(rf"(not-)?({names})(?:\(\d+(?:\.\d+)?\))?(?::([\s\S]*))?", text)
    if found is None:
        return {"type": "equals", "value": text}
    value = None if found[3] is None else found[3].strip()
    return {"type": f"{found[1] or ''}{found[2]}", "value": value}
