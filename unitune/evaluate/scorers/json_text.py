"""Scorers that read JSON: valid, equal, field by field, and against a JSON Schema.

All of them read strict JSON (RFC 8259) by `read_json`: no NaN, no key twice in one object, nothing
around the value. A code fence around it makes an answer wrong, as it would break the program that
reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Never, TypeAlias

from pydantic import JsonValue

from unitune.data.example import Example
from unitune.errors import DataError, JobError
from unitune.evaluate.scorers.bounded import CheckFailed, broken_by
from unitune.evaluate.scorers.extras import needs
from unitune.evaluate.scorers.interface import Attempt, Kind, Score, Scorer, Setting
from unitune.findings import clip
from unitune.job.scorers import JsonEqual, JsonFields, JsonSchema, JsonValid
from unitune.workspace.filesystem import content_of


@dataclass(frozen=True, slots=True)
class Number:
    """A JSON number by its value: 1, 1.0 and 10e-1 are equal, and none of them equals true."""

    value: Decimal


Json: TypeAlias = "bool | Number | str | list[Json] | dict[str, Json] | None"

_SPACE = " \t\n\r"
_BEGINNINGS = '{["-0123456789tfn'
"""RFC 8259: white space, and with what a value may begin."""

MOST_WRONG_NAMED = 5
"""Wrong fields that a score's reason names; more make no better reading."""


def json_valid(answer: str) -> bool:
    """Whether the whole answer is one JSON value.

    Why: what a program reads must parse before it can be right. Strict (RFC 8259): no NaN, no key
    twice in one object, no text or code fence around. It leaves out whether the content is right.
    """
    try:
        read_json(answer)
    except ValueError:
        return False
    return True


def json_equal(answer: str, expected: str) -> bool:
    """Whether the answer is JSON equal to the expected JSON.

    Why: spacing and the order of keys carry no meaning. Numbers are compared by value, texts
    exactly, lists in order. It leaves out partial credit: one wrong field makes a wrong answer.

    Raises:
        DataError: The expected answer is not JSON.
    """
    wanted = _expected(expected)
    try:
        return read_json(answer) == wanted
    except ValueError:
        return False


def json_fields(answer: str, expected: str) -> Score:
    """Return the share of fields on which the answer and the expected JSON agree.

    Why: a record with one wrong field of ten is nearly right, and `json_equal` cannot say so. A
    field is a value that is no object and no list, by its whole path; what either side has alone
    counts as wrong, so that inventing fields costs as much as leaving them out. The order of the
    two sides does not matter. It leaves out that some fields matter more than others, that a list
    with one item too many at its front is shifted and so wrong throughout, and nearness: a number
    or a text is right or wrong.

    Raises:
        DataError: The expected answer is not JSON.
    """
    wanted = dict(_fields(_expected(expected)))
    try:
        given = dict(_fields(read_json(answer)))
    except ValueError as error:
        return Score(0.0, f"not JSON: {error}")
    paths = wanted.keys() | given.keys()
    wrong = sorted(
        path
        for path in paths
        if path not in wanted or path not in given or wanted[path] != given[path]
    )
    more = ", …" if len(wrong) > MOST_WRONG_NAMED else ""
    reason = f"wrong: {', '.join(wrong[:MOST_WRONG_NAMED])}{more}" if wrong else ""
    return Score(1 - len(wrong) / len(paths), reason)


def read_json(text: str) -> Json:
    """Read one strict JSON value.

    Args:
        text: The whole of it; JSON's own whitespace may stand around.

    Returns:
        The value, with numbers as `Number`.

    Raises:
        ValueError: It is not JSON, or a key stands twice in one object.
    """
    try:
        return json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_number,
            parse_int=_number,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def make_json_valid(spec: JsonValid, _: Setting) -> Scorer:
    """Return the scorer of `json_valid`."""
    return Scorer(
        spec,
        Kind.BINARY,
        lambda attempt: json_valid(attempt.text),
        wrong_already=_no_json_already,
    )


def make_json_equal(spec: JsonEqual, _: Setting) -> Scorer:
    """Return the scorer of `json_equal`."""

    def judge(attempt: Attempt) -> bool:
        return json_equal(attempt.text, attempt.expected)

    return Scorer(spec, Kind.BINARY, judge, _refuse_other_than_json, wrong_already=_no_json_already)


def make_json_fields(spec: JsonFields, _: Setting) -> Scorer:
    """Return the scorer of `json_fields`."""

    def judge(attempt: Attempt) -> Score:
        return json_fields(attempt.text, attempt.expected)

    return Scorer(spec, Kind.GRADED, judge, _refuse_other_than_json, wrong_already=_no_json_already)


def make_json_schema(spec: JsonSchema, setting: Setting) -> Scorer:
    """Return a scorer that says whether an answer is JSON that a JSON Schema allows.

    Why: a program that reads the answer relies on its keys and types. It leaves out the expected
    answer: content that is wrong and well formed is right. `format` is not asserted, as the
    standard has it by default, and a `$ref` to another document is refused, never fetched.

    Source:
        JSON Schema 2020-12, or the draft that the schema's `$schema` names; by jsonschema.

    Raises:
        JobError: The schema cannot be read, or is none.
    """
    needs("jsonschema", spec)
    schema = load_definition(spec, setting.folder)
    _check_schema(schema)

    def judge(attempt: Attempt) -> Score:
        try:
            read_json(attempt.text)
        except ValueError as error:
            return Score(0.0, f"not JSON: {error}")
        # A $ref or a pattern may turn out to be of no use only where an answer reaches it.
        why = broken_by({"schema": schema}, attempt.text)
        return Score(1.0) if why is None else Score(0.0, clip(why, 200))

    return Scorer(spec, Kind.BINARY, judge, wrong_already=_no_json_already)


def _no_json_already(attempt: Attempt) -> bool:
    """Whether no text that begins so is JSON: another beginning, or more behind a whole value."""
    begun = attempt.text.lstrip(_SPACE)
    if begun and begun[0] not in _BEGINNINGS:
        return True
    if not begun or begun[0] not in '{["':
        return False
    try:
        _, end = json.JSONDecoder().raw_decode(begun)
    except (ValueError, RecursionError):
        return False
    return begun[end:].strip(_SPACE) != ""


def load_definition(spec: JsonSchema, folder: Path) -> JsonValue:
    """Return a scorer's schema, read from its file where it names one.

    Raises:
        JobError: The file cannot be read, or is not JSON.
    """
    if not isinstance(spec.definition, str):
        return spec.definition
    path = folder / spec.definition
    try:
        return json.loads(content_of(path))
    except (OSError, ValueError, RecursionError) as error:
        raise JobError(
            f"{path}: the scorer {spec.name!r} finds no JSON Schema there: {error}"
        ) from error


def _check_schema(schema: JsonValue) -> None:
    """Refuse what is no JSON Schema, or refers to another document.

    Raises:
        JobError: It is not, or does.
    """
    try:
        broken_by({"schema": schema}, "{}")
    except CheckFailed as error:
        if error.kind == "Unresolvable":
            raise JobError(
                f"the scorer json_schema would have to fetch {error.message}; put it into the "
                "schema's $defs"
            ) from error
        what = error.message if error.kind == "SchemaError" else str(error)
        raise JobError(f"the scorer json_schema is given no JSON Schema: {what}") from error
    except RecursionError as error:
        raise JobError("the schema of the scorer json_schema is nested too deeply") from error


def _fields(value: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Yield every value that holds no other, by its path; an empty object or list is one."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            name = key if key.isidentifier() else json.dumps(key)
            yield from _fields(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _fields(inner, f"{path}[{index}]")
    else:
        yield path or "the whole", value


def _expected(text: str) -> Json:
    try:
        return read_json(text)
    except ValueError as error:
        raise DataError(_not_json(text, error)) from error


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


def _number(text: str) -> Number:
    try:
        return Number(Decimal(text))
    except InvalidOperation:
        raise ValueError(f"the number {text[:40]} is out of range") from None


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"a key stands twice: {next(key for key in keys if keys.count(key) > 1)}")
    return value


def _refuse_other_than_json(case: Example) -> str | None:
    try:
        read_json(case.answer or "")
    except ValueError as error:
        return _not_json(case.answer or "", error)
    return None


def _not_json(expected: str, error: ValueError) -> str:
    return f"the expected answer {clip(expected)} is not JSON: {error}"
