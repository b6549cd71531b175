r"""Translate assertions of promptfoo to entries of a row's `scorers`.

    equals TEXT, OBJECT                       exact; json_equal
    contains, starts-with and variants        contains, with any_of, all_of, position
    regex                                     regex, from JavaScript's syntax
    is-json, contains-json                    json_valid, json_schema, json_contained
    levenshtein                               edit_distance with max_edits
    latency, cost, word-count                 the measures of that name, within bounds
    finish-reason                             finish_reason
    assert-set                                a list

``not-`` becomes `negate`. Every other type is refused with the reason in ``assertions.yaml``. JSON
is read strictly: repeated keys, or YAML instead of JSON, are refused.

JavaScript and Python differ in what ``$``, ``.``, ``\d``, ``\w``, ``\b`` and ``\s`` match. These
are translated (`python_pattern`); a pattern with anything else that may differ is refused. One
difference remains: JavaScript counts a character beyond U+FFFF as two.

Source: promptfoo 0.121.20, src/assertions, as installed; ECMAScript 2025, sections 22.2.1 and
22.2.2 (patterns without flags).
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TypeAlias

import yaml
from pydantic import JsonValue

from unitune.errors import DataError
from unitune.files.yaml_file import parse, parse_foreign
from unitune.importers.suite import plain_json, text_file
from unitune.text import clip

# Characters that ``\s`` matches in JavaScript; Python's sets differ slightly
SPACES = r"\t\n\v\f\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
TOKEN = re.compile(
    r"""\[\\s\\S\]                                                        # anything
      | \[\^?(?:\\[dDwWsnrtfv]|\\[!-/:-@[-`{-~]|[^]\\[&~|^-]|-(?!-))+\]   # a class
      | \\[dDwWsSbBnrtfv] | \\x[\da-fA-F]{2} | \\u[\da-fA-F]{4}           # an escape
      | \\[!-/:-@[-`{-~]                                                  # punctuation
      | (?:[*+?]|\{\d+(?:,\d*)?\})\??(?![*+?{])                           # a quantifier
      | \((?:\?(?:[:=!]|<[=!]))?(?!\?) | \)                               # a group
      | [^\\[\](){}*+?]""",
    re.VERBOSE,
)
MEANINGS = {
    "$": r"\Z",
    ".": r"[^\n\r\u2028\u2029]",
    r"\s": f"[{SPACES}]",
    r"\S": f"[^{SPACES}]",
    r"[\s\S]": r"[\s\S]",
}


class NoTranslation(ValueError):
    """A pattern that Python cannot be sure to match in the same way."""


def python_pattern(pattern: str) -> str:
    """Return an equivalent of a JavaScript pattern without flags; raises `NoTranslation`."""
    pieces: list[str] = []
    at = 0
    while at < len(pattern):
        token = TOKEN.match(pattern, at)
        if token is None:
            raise NoTranslation(f"{pattern[at : at + 10]!r} has no counterpart")
        pieces.append(MEANINGS.get(token[0], token[0].replace(r"\s", SPACES)))
        at = token.end()
    translated = f"(?a:{''.join(pieces)})"  # ASCII rules for \d, \w and \b, as in JavaScript
    try:
        re.compile(translated)
    except (re.error, OverflowError, RecursionError) as failure:
        raise NoTranslation(f"Python cannot read it ({failure})") from failure
    return translated


Assertion: TypeAlias = Mapping[str, JsonValue]
Entry: TypeAlias = dict[str, JsonValue]
# Draft that promptfoo's validator (Ajv) assumes; unitune assumes 2020-12
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
MOST_EDITS = 5  # levenshtein's default threshold
# Templates filled in here; for others, the results may show the rendered value
PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][\w.-]*)\s*\}\}")
TEXT: Entry = {"strip": False}


class Unreadable(ValueError):
    """A file of the suite cannot be read as a value."""


@dataclass(frozen=True, slots=True)
class SuiteFiles:
    """Files of a suite in its folder."""

    folder: Path

    def content(self, reference: str) -> JsonValue:
        """Return the JSON, YAML or text of a ``file://`` path; raises `Unreadable`."""
        path = reference.removeprefix("file://")
        text = self._text(path)
        try:
            if path.endswith((".json", ".yaml", ".yml")):
                return plain_json(parse_foreign(text))
        except (yaml.YAMLError, ValueError, RecursionError) as failure:
            raise Unreadable(f"{path} cannot be read: {failure}") from failure
        if not path.endswith(".txt"):
            raise Unreadable(f"{path} is not text, JSON or YAML")
        return text.strip()

    def _text(self, path: str) -> str:
        place, folder = (self.folder / path).resolve(), self.folder.resolve()
        within = place.relative_to(folder).parts if place.is_relative_to(folder) else (".",)
        if any(part.startswith(".") for part in within):
            raise Unreadable(f"{path} is outside the suite's folder or hidden")
        try:
            return text_file(place, "a file of the suite")
        except DataError as failure:
            raise Unreadable(
                f"its file {path} is not next to the results; export them there"
            ) from failure


class NoCounterpart(ValueError):
    """An assertion that unitune does not score identically."""


@dataclass(frozen=True, slots=True)
class Translator:
    """Translator for the assertions of one test, with its rendered templates and variables."""

    rendered: Mapping[str, str]
    variables: Mapping[str, JsonValue]
    files: SuiteFiles

    def entry(self, assertion: JsonValue) -> Entry:
        """Return an assertion as an entry of a row's `scorers`; raises `NoCounterpart`."""
        if not isinstance(assertion, dict) or not isinstance(assertion.get("type"), str):
            raise NoCounterpart(f"{clip(assertion)} is not an assertion with a type")
        weight = _number(assertion, "weight")
        if assertion["type"] == "assert-set":
            return {**self._set(assertion), **weight}
        written = str(assertion["type"])
        kind, negate = written.removeprefix("not-"), written.startswith("not-")
        try:
            entry = {**self._scored(kind, assertion), **({"negate": True} if negate else {})}
        except (NoTranslation, Unreadable) as refusal:
            raise NoCounterpart(f"{written!r}: {refusal}") from refusal
        except (ValueError, RecursionError, yaml.YAMLError) as failure:
            value = clip(assertion.get("value"))
            raise NoCounterpart(f"{written!r} has the value {value}: {failure}") from failure
        return {**entry, **weight}

    def _scored(self, kind: str, assertion: Assertion) -> Entry:
        if kind not in _KINDS:
            raise NoTranslation(_reason(kind))
        if assertion.get("transform"):
            raise NoTranslation("its `transform` changes the answer with code")
        return _KINDS[kind](self._filled_in(assertion.get("value")), assertion)

    def _set(self, assertion: Assertion) -> Entry:
        inner, threshold = assertion.get("assert"), _number(assertion, "threshold")
        if not isinstance(inner, list) or not inner:
            raise NoCounterpart("'assert-set' has no assertions")
        if any(isinstance(each, dict) and each.get("type") == "assert-set" for each in inner):
            raise NoCounterpart("'assert-set' contains a set, which promptfoo does not support")
        passes = {"at_least": threshold["threshold"]} if any(threshold.values()) else {}
        entries: list[JsonValue] = [self.entry(each) for each in inner]
        return {"scorers": entries, **passes}

    def _filled_in(self, value: JsonValue) -> JsonValue:
        if isinstance(value, list):
            return [self._filled_in(each) for each in value]
        if not isinstance(value, str):
            return value
        if value.startswith("file://"):
            return self.files.content(value)
        text = PLACEHOLDER.sub(self._variable, self.rendered.get(value, value))
        if any(mark in text for mark in ("{{", "{%", "{#")):
            raise NoTranslation("it is a template, and the results do not show its rendered value")
        return text

    def _variable(self, match: re.Match[str]) -> str:
        value: JsonValue = {**self.variables}
        for key in match[1].split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return _text(value)
        return match[0]


def _number(assertion: Assertion, key: str) -> Entry:
    value = assertion.get(key)
    if value is None:
        return {}
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise NoCounterpart(
            f"{assertion['type']!r} has the {key} {clip(value)}, which is not a number"
        )
    return {key: value}


def _text(value: JsonValue) -> str:
    """Return a value as JavaScript's String does."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise NoTranslation("the text to compare with is missing")
    return str(value)


def _equals(value: JsonValue, _: Assertion) -> Entry:
    if isinstance(value, dict | list):
        return {"type": "json_equal", "expected": json.dumps(value, ensure_ascii=False)}
    if isinstance(value, bool) or value == "":
        return {"type": "exact", "expected": value and json.dumps(value), **TEXT}
    return {"type": "exact", "expected": _text(value), **TEXT}


def _contains(
    *, ignore_case: bool = False, several: str = "", start: bool = False
) -> Callable[[JsonValue, Assertion], Entry]:
    def entry(value: JsonValue, _: Assertion) -> Entry:
        options: Entry = {**TEXT, **({"ignore_case": True} if ignore_case else {})}
        if start:
            options["position"] = "start"
        if not several:
            return {"type": "contains", "expected": _text(value), **options}
        if isinstance(value, str):
            (fields,) = csv.reader([value], skipinitialspace=True)
            value = [field.strip() for field in fields if field.strip()]
        if not isinstance(value, list) or not value:
            raise NoTranslation("the list of texts to search for is missing")
        return {"type": "contains", several: [_text(each) for each in value], **options}

    return entry


def _regex(value: JsonValue, _: Assertion) -> Entry:
    if not isinstance(value, str):
        raise NoTranslation("the pattern is missing")
    return {"type": "regex", "pattern": python_pattern(value)}


def _is_json(value: JsonValue, _: Assertion) -> Entry:
    schema = _schema(value)
    return {"type": "json_schema" if schema else "json_valid", **schema}


def _contains_json(value: JsonValue, _: Assertion) -> Entry:
    return {"type": "json_contained", **_schema(value)}


def _schema(value: JsonValue) -> Entry:
    if not value:
        return {}
    schema = plain_json(parse_foreign(value)) if isinstance(value, str) else value
    if not isinstance(schema, dict):
        raise NoTranslation("a JSON Schema is an object")
    if '"format"' in json.dumps(schema):
        raise NoTranslation(
            "promptfoo asserts `format`, but unitune follows the standard's default"
        )
    return {"definition": {"$schema": DRAFT_7, **schema}}


def _levenshtein(value: JsonValue, assertion: Assertion) -> Entry:
    most = assertion.get("threshold", MOST_EDITS)
    if not isinstance(most, int | float) or most < 0:
        raise NoTranslation(f"its threshold is {clip(most)}")
    return {"type": "edit_distance", "expected": _text(value), "max_edits": int(most), **TEXT}


def _measure(kind: str, unit: float) -> Callable[[JsonValue, Assertion], Entry]:
    def entry(_: JsonValue, assertion: Assertion) -> Entry:
        most = assertion.get("threshold")
        if not isinstance(most, int | float):
            raise NoTranslation("it has no threshold")
        return {"type": kind, "at_most": most / unit}

    return entry


def _finish_reason(value: JsonValue, _: Assertion) -> Entry:
    reason = _text(value).lower()
    if reason not in ("length", "tool_calls"):
        raise NoTranslation("only length and tool_calls mean the same for every vendor")
    return {"type": "finish_reason", "reason": reason}


def _word_count(value: JsonValue, _: Assertion) -> Entry:
    bounds: JsonValue = value
    if isinstance(value, int | str):
        bounds = {"min": int(value), "max": int(value)}
    if not isinstance(bounds, dict) or not bounds.keys() & {"min", "max"}:
        raise NoTranslation("it has no bounds")
    named = {"min": "at_least", "max": "at_most"}
    return {"type": "length", **{named[key]: bounds[key] for key in named if key in bounds}}


_KINDS: Mapping[str, Callable[[JsonValue, Assertion], Entry]] = {
    "equals": _equals,
    "contains": _contains(),
    "icontains": _contains(ignore_case=True),
    "contains-any": _contains(several="any_of"),
    "contains-all": _contains(several="all_of"),
    "icontains-any": _contains(several="any_of", ignore_case=True),
    "icontains-all": _contains(several="all_of", ignore_case=True),
    "starts-with": _contains(start=True),
    "regex": _regex,
    "is-json": _is_json,
    "contains-json": _contains_json,
    "levenshtein": _levenshtein,
    "latency": _measure("latency", 1000),
    "cost": _measure("cost", 1),
    "finish-reason": _finish_reason,
    "word-count": _word_count,
}


@cache
def _reasons() -> Mapping[str, str]:
    table = files("unitune.importers.promptfoo").joinpath("assertions.yaml")
    groups = parse(table.read_text(encoding="utf-8"))
    return {kind: group["reason"] for group in groups for kind in group["types"]}


def _reason(kind: str) -> str:
    if kind.startswith("promptfoo:redteam:"):
        return _reasons()["llm-rubric"]
    return _reasons().get(kind, "promptfoo has no such type and reports an error")
