"""Score JSON answers and tool calls, with JSON read strictly (RFC 8259)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Literal, NamedTuple, Never, TypeAlias, cast

from pydantic import JsonValue, PrivateAttr

from unitune.errors import DataError, JobError
from unitune.scorers.bounded import CheckFailed, broken_by
from unitune.scorers.interface import Attempt, Case, Kind, Score, Scorer, Setting
from unitune.scorers.interface import ToolCalls as Calls
from unitune.text import clip


class Number(NamedTuple):
    """A JSON number by value: 1, 1.0 and 10e-1 are equal, and none equals true."""

    value: Decimal


Json: TypeAlias = "bool | Number | str | list[Json] | dict[str, Json] | None"

_SPACE = " \t\n\r"
_BEGINNINGS = '{["-0123456789tfn'  # RFC 8259: white space, and first characters of a value

MOST_WRONG_NAMED = 5  # wrong fields listed in a score's reason


def read_json(text: str) -> Json:
    """Read one strict JSON value, with numbers as `Number`; raises `ValueError`."""
    try:
        return json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_number,
            parse_int=_number,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise ValueError("the value is nested too deeply") from None


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
        raise ValueError(f"a key appears twice: {next(key for key in keys if keys.count(key) > 1)}")
    return value


def expected_json(text: str) -> Json:
    """Read the expected answer of a case as JSON; raises `DataError`."""
    try:
        return read_json(text)
    except ValueError as error:
        raise DataError(f"the expected answer {clip(text)} is not JSON: {error}") from error


class JsonText(Scorer):
    """Base of scorers of JSON answers."""

    def refusal(self, case: Case) -> str | None:
        try:
            if self.needs_expected:
                expected_json(case.answer or "")
        except DataError as error:
            return str(error)
        return None

    def wrong_already(self, attempt: Attempt) -> bool:
        """Return whether no text with this beginning is JSON."""
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


class JsonValid(JsonText):
    """The answer is one JSON value.

    Why: what a program reads must parse before it can be right. Strict (RFC 8259): no NaN, no
    repeated keys, no text or code fence around it. It leaves out whether the content is right.
    """

    needs_expected = False
    type: Literal["json_valid"] = "json_valid"
    name: str = "json_valid"

    def judge(self, attempt: Attempt) -> bool:
        try:
            read_json(attempt.text)
        except ValueError:
            return False
        return True


class JsonEqual(JsonText):
    """The answer is JSON equal to the expected JSON, whatever its spacing and key order.

    Why: spacing and key order carry no meaning. Numbers are compared by value, strings exactly,
    lists in order. It leaves out partial credit: one wrong field makes a wrong answer.
    """

    type: Literal["json_equal"] = "json_equal"
    name: str = "json_equal"

    def judge(self, attempt: Attempt) -> bool:
        wanted = expected_json(attempt.expected)
        try:
            return read_json(attempt.text) == wanted
        except ValueError:
            return False


class JsonFields(JsonText):
    """Share of the fields of the expected JSON that are right.

    Why: `json_equal` cannot show that nine of ten fields are right. A field is a value other than
    an object or list, by its path. Fields on one side only count as wrong, so inventing fields
    costs as much as omitting them. It leaves out that some fields matter more, nearly right values,
    and shifted lists, which are wrong throughout.
    """

    kind = Kind.GRADED
    type: Literal["json_fields"] = "json_fields"
    name: str = "json_fields"

    def judge(self, attempt: Attempt) -> Score:
        wanted = dict(_fields(expected_json(attempt.expected)))
        try:
            given = dict(_fields(read_json(attempt.text)))
        except ValueError as error:
            return Score(0.0, f"not JSON: {error}")
        paths = wanted.keys() | given.keys()
        right = {path for path in wanted.keys() & given.keys() if wanted[path] == given[path]}
        wrong = sorted(paths - right)
        more = ", …" if len(wrong) > MOST_WRONG_NAMED else ""
        reason = f"wrong: {', '.join(wrong[:MOST_WRONG_NAMED])}{more}" if wrong else ""
        return Score(1 - len(wrong) / len(paths), reason)


def _fields(value: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Yield every innermost value by its path; an empty object or list counts as one."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            name = key if key.isidentifier() else json.dumps(key)
            yield from _fields(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _fields(inner, f"{path}[{index}]")
    else:
        yield path or "the whole", value


class JsonSchema(JsonText):
    """The answer is JSON that a JSON Schema allows.

    Why: a program relies on keys and types. It leaves out the expected answer: well-formed but
    wrong content is right. `format` is not asserted, which is the standard's default. A `$ref` to
    another document is refused.

    Source:
        JSON Schema 2020-12, or the draft in the schema's `$schema`; computed by jsonschema.
    """

    needs_expected = False
    packages = ("jsonschema",)
    type: Literal["json_schema"] = "json_schema"
    name: str = "json_schema"
    definition: dict[str, JsonValue] | str
    """JSON Schema, or path of a JSON file with one."""
    _schema: JsonValue = PrivateAttr(None)

    def prepare(self, setting: Setting) -> None:
        self._schema = self.json_of(self.definition, setting)
        try:
            broken_by({"schema": self._schema}, "{}")
        except CheckFailed as error:
            if error.kind == "Unresolvable":
                raise JobError(
                    f"the scorer json_schema would have to fetch {error.message}. Put it into the "
                    "schema's $defs."
                ) from error
            what = error.message if error.kind == "SchemaError" else str(error)
            raise JobError(
                f"the definition of the scorer json_schema is not a JSON Schema: {what}"
            ) from error
        except RecursionError as error:
            raise JobError("the schema of the scorer json_schema is nested too deeply") from error

    def material(self, setting: Setting) -> JsonValue:
        by_path = isinstance(self.definition, str)
        return [self.json_of(self.definition, setting)] if by_path else None

    def judge(self, attempt: Attempt) -> Score:
        try:
            read_json(attempt.text)
        except ValueError as error:
            return Score(0.0, f"not JSON: {error}")
        # A bad $ref or pattern may only fail on an answer that reaches it.
        why = broken_by({"schema": self._schema}, attempt.text)
        return Score(1.0) if why is None else Score(0.0, clip(why, 200))


class JsonContained(Scorer):
    """The answer contains a JSON object.

    Why: for models that wrap JSON in text or a code fence, if your program extracts it. Strict JSON
    from a ``{`` to its ``}``; with a `definition`, any object that the schema allows. It leaves out
    the surrounding text and other JSON values.
    """

    needs_expected = False
    type: Literal["json_contained"] = "json_contained"
    name: str = "json_contained"
    definition: dict[str, JsonValue] | None = None
    """JSON Schema, as for `json_schema`."""
    _schema: JsonSchema | None = PrivateAttr(None)

    def prepare(self, setting: Setting) -> None:
        if self.definition is not None:
            self._schema = JsonSchema(definition=self.definition).ready(setting, "")

    def judge(self, attempt: Attempt) -> bool:
        decoder, at = json.JSONDecoder(), attempt.text.find("{")
        while at >= 0:
            try:
                _, end = decoder.raw_decode(attempt.text, at)
            except (ValueError, RecursionError):
                end = at + 1
            else:
                object_text = replace(attempt, text=attempt.text[at:end])
                if self._schema is None or self._schema.score(object_text).value:
                    return True
            at = attempt.text.find("{", end)
        return False


class Call(NamedTuple):
    """A call: the function's name and its parsed arguments."""

    name: str
    arguments: Json


class ToolCalls(Scorer):
    """The answer calls the expected tools with the expected arguments.

    Why: a program acts on the calls, so text does not matter and an extra call does. Arguments are
    compared as JSON, numbers by value. If no call is expected, any call is wrong. It leaves out
    equivalent arguments (``Paris`` and ``Paris, France``; written-out defaults) and calls written
    as text.
    """

    type: Literal["tool_calls"] = "tool_calls"
    name: str = "tool_calls"
    ordered: bool = False
    """Compare the order of several calls."""
    arguments: bool = True
    """Compare arguments; otherwise only names."""

    def judge(self, attempt: Attempt) -> Score:
        right = self._same(attempt.tool_calls, expected_calls(attempt.case))
        return Score(float(right), "" if right else f"called {shown_calls(attempt.tool_calls)}")

    def refusal(self, case: Case) -> str | None:
        return unreadable_call(expected_calls(case)) if self.arguments else None

    def indulgence(self, case: Case) -> str | None:
        if case.tools or expected_calls(case):
            return None
        return "no case offers a tool or expects a call, so every answer without a call is right"

    def _same(self, given: Calls, expected: Calls) -> bool:
        wanted = [read_call(call, arguments=self.arguments) for call in expected]
        try:
            made = [read_call(call, arguments=self.arguments) for call in given]
        except ValueError:
            return False
        if self.ordered:
            return made == wanted
        return len(made) == len(wanted) and all(made.count(c) == wanted.count(c) for c in wanted)


def read_call(call: Mapping[str, JsonValue], *, arguments: bool = True) -> Call:
    """Return a call's name and arguments; raises `ValueError` if the arguments are not JSON."""
    function = _function(call)
    values = read_json(function.get("arguments") or "{}") if arguments else None
    return Call(function.get("name", ""), values)


def unreadable_call(calls: Calls) -> str | None:
    """Return why the arguments of an expected call cannot be read, or None."""
    for call in calls:
        try:
            read_call(call)
        except ValueError as error:
            return f"the arguments of the expected call {clip(call)} are not JSON: {error}"
    return None


def expected_calls(case: Case) -> Calls:
    """Return the tool calls of a case's last turn, if it is an assistant's."""
    last = case.messages[-1]
    return (last.tool_calls or ()) if last.role == "assistant" else ()


def _function(call: Mapping[str, JsonValue]) -> dict[str, str]:
    """Return a call's name and arguments as JSON text, which rows may also have as an object."""
    function = cast("dict[str, JsonValue]", call.get("function") or {})
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in function.items()
        if value is not None
    }


def shown_calls(calls: Calls) -> str:
    """Return calls in short, for a score's reason."""
    functions = map(_function, calls)
    shown = (f"{call.get('name', '?')}({call.get('arguments', '')})" for call in functions)
    return clip(", ".join(shown), 200) if calls else "nothing"
