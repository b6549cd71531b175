"""Assertions of promptfoo as scorers of unitune.

    equals TEXT            exact         outer whitespace aside, which promptfoo counts
    equals OBJECT          json_equal
    contains, icontains    contains
    regex                  regex         from JavaScript's syntax
    is-json                json_valid, or json_schema where it has a schema

Every other type is refused with the reason in ``assertions.yaml``.

Source: promptfoo 0.121.20, src/assertions, as installed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TypeAlias

import yaml
from pydantic import JsonValue

from unitune.findings import clip
from unitune.importers.promptfoo.javascript_regex import NoTranslation, python_pattern
from unitune.scorers.interface import Scorer
from unitune.scorers.json_text import JsonEqual, JsonSchema, JsonValid
from unitune.scorers.text import Contains, Exact, Regex

Assertion: TypeAlias = Mapping[str, JsonValue]
SCORED = ("equals", "contains", "icontains", "regex", "is-json")
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
"""What promptfoo's validator (Ajv) goes by; unitune's by 2020-12 where a schema names none."""


class NoCounterpart(ValueError):
    """An assertion that unitune does not score in just the same way."""


@dataclass(frozen=True, slots=True)
class Check:
    """An assertion as a scorer, with the expected answer where the scorer compares with one."""

    scorer: Scorer
    expected: str | None = None


def flat(assertions: list[JsonValue]) -> Iterator[Assertion]:
    """Yield assertions, those of sets among them, all of which must hold.

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


def translate(assertion: Assertion, rendered: Mapping[str, str]) -> Check | None:
    """Return what an assertion checks; None where it counts for nothing (weight 0).

    Args:
        assertion: As promptfoo has it.
        rendered: Values of assertions as promptfoo filled them in, by their templates.

    Raises:
        NoCounterpart: unitune scores nothing in just the same way.
    """
    kind = str(assertion["type"])
    if assertion.get("weight") == 0:
        return None
    if assertion.get("transform"):
        raise NoCounterpart(f"{kind!r} transforms the answer by code first")
    if kind not in SCORED:
        raise NoCounterpart(f"{kind!r}: {_reason(kind)}")
    try:
        return _check(kind, _filled_in(assertion.get("value"), rendered))
    except (ValueError, RecursionError) as failure:
        value = clip(assertion.get("value"))
        raise NoCounterpart(f"{kind!r} has the value {value}: {failure}") from failure


def _filled_in(value: JsonValue, rendered: Mapping[str, str]) -> JsonValue:
    if isinstance(value, str) and value in rendered:
        return rendered[value]
    if isinstance(value, str) and value.startswith("file://"):
        raise ValueError("it stands in a file")
    if any(mark in json.dumps(value) for mark in ("{{", "{%", "{#")):
        raise ValueError("it is a template, and the results do not show it filled in")
    return value


def _check(kind: str, value: JsonValue) -> Check:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    match kind:
        case "is-json" if value is None or value == "":
            return Check(JsonValid())
        case "is-json":
            return Check(_json_schema(json.loads(text)))
        case "regex" if isinstance(value, str):
            return Check(Regex(pattern=python_pattern(value)))
        case "equals" if isinstance(value, dict | list):
            return Check(JsonEqual(), text)
        case "equals" if value is not None:
            return Check(Exact(), text)
        case "contains" | "icontains" if value is not None and value != "":
            return Check(Contains(ignore_case=kind == "icontains"), text)
        case _:
            raise ValueError("there is nothing to compare with")


def _json_schema(schema: JsonValue) -> JsonSchema:
    if not isinstance(schema, dict):
        raise NoTranslation("a JSON Schema is an object")
    if '"format"' in json.dumps(schema):
        raise NoTranslation(
            "promptfoo asserts `format`, and unitune follows the standard's default"
        )
    return JsonSchema(definition={"$schema": DRAFT_7, **schema})


@cache
def _reasons() -> Mapping[str, str]:
    table = files("unitune.importers.promptfoo").joinpath("assertions.yaml")
    groups = yaml.safe_load(table.read_text(encoding="utf-8"))
    return {kind: group["reason"] for group in groups for kind in group["types"]}


def _reason(kind: str) -> str:
    known = _reasons()
    if kind.startswith("not-") and kind.removeprefix("not-") in {*known, *SCORED}:
        return "unitune's scorers have no opposites"
    return known.get(kind, "no such type of promptfoo is known")
