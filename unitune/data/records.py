"""JSON Lines to records: one JSON object a line.

`json_records` yields a `Record` for each good line and a `Finding` for each bad one, and goes on
after it. JSON is read strictly: no NaN, no numbers beyond a float's range, no unpaired surrogates,
and a repeated key is a warning. `unitune.data.rows` gives the keys their meaning.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn, cast

from pydantic import JsonValue

from unitune.data.lines import Blanks, Line
from unitune.findings import Finding, clip, error, warning

MAX_DEPTH = 100
"""Lists and objects inside one another: no row needs it, and pydantic ends at about 250."""

MAX_DIGITS = 1000
"""Digits of a whole number; Python's own limit of 4,300 would raise later, when it is written."""

_TOO_DEEP = error(
    "too-deep",
    f"lists and objects stand more than {MAX_DEPTH} deep inside one another.",
    "Flatten the row, or write the deep part as a text.",
)
_ONE_OBJECT = "Write one JSON object on each line, with names and texts in double quotes."


@dataclass(frozen=True, slots=True)
class Record:
    """What one row of a file holds, by name.

    Args:
        line: Where it begins.
        value: JSON values; texts when it comes from a table.
        from_table: Whether it is a row of a CSV or TSV file.
    """

    line: int
    value: dict[str, JsonValue]
    from_table: bool = False


class _StrictJson:
    """A JSON reader that remembers the repeated keys of the last text."""

    def __init__(self) -> None:
        self.repeated: list[str] = []
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_float=_finite,
            parse_int=_short,
            parse_constant=_refuse,
        )

    def read(self, text: str) -> JsonValue:
        """Parse one value; ValueError or RecursionError when it is not JSON."""
        self.repeated.clear()
        return cast("JsonValue", self._decoder.decode(text))

    def _object(self, pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
        made = dict(pairs)
        if len(made) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            self.repeated.extend(key for key, count in counts.items() if count > 1)
        return made


def json_records(lines: Iterable[Line]) -> Iterator[Record | Finding]:
    """Read JSON Lines.

    Args:
        lines: Lines of the file.

    Yields:
        Records and findings in the file's order; findings carry their line.
    """
    reader, blanks, first = _StrictJson(), Blanks(), True
    for line in lines:
        if line.problem:
            yield line.problem
        elif not line.text.strip():
            blanks.add(line.number)
            continue
        elif first and (whole := _whole_file(line.text.strip(), reader)):
            yield whole.at(line=line.number)
            return
        else:
            value = _parsed(line.text.rstrip(), reader)
            for key in reader.repeated:
                what = f"the key {clip(key)} stands more than once in one object; the last counts."
                yield warning("repeated-key", what, "Keep one.").at(line=line.number)
            is_finding = isinstance(value, Finding)
            yield value.at(line=line.number) if is_finding else Record(line.number, value)
        first = False
    yield from blanks.note()


def _parsed(text: str, reader: _StrictJson) -> dict[str, JsonValue] | Finding:
    try:
        value = reader.read(text)
    except RecursionError:
        return _TOO_DEEP
    except ValueError as failure:
        why = str(failure)
        if isinstance(failure, json.JSONDecodeError):
            near = clip(text[max(0, failure.pos - 15) : failure.pos + 15])
            why = f"at column {failure.pos + 1}, near {near}: {failure.msg}"
        return error("broken-json", f"not valid JSON: {why}.", _ONE_OBJECT)
    if not isinstance(value, dict):
        given = text if len(text) <= 40 else f"{text[:40]}…"
        return error("not-an-object", f"the line is no object but {given}.", _ONE_OBJECT)
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        return _TOO_DEEP
    half = "\\ud" in text or "\\uD" in text  # how every escaped surrogate begins
    if half and (broken := _unpaired_surrogate(value)):
        return error(
            "unpaired-surrogate",
            f"the escape \\u{ord(broken):04x} is half of a character.",
            "Write the whole character, or both halves of the pair; the text was probably cut.",
        )
    return value


def _depth(value: JsonValue) -> int:
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        here, depth = waiting.pop()
        deepest = max(deepest, depth)
        inner = here.values() if isinstance(here, dict) else here
        if isinstance(inner, str | int | float | None):
            continue
        waiting.extend((item, depth + 1) for item in inner)
    return deepest


def _unpaired_surrogate(value: JsonValue) -> str | None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as failure:
        return failure.object[failure.start]
    return None


def _short(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"the number {digits[:20]}… has {len(digits):,} digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _whole_file(text: str, reader: _StrictJson) -> Finding | None:
    """Recognise, by its first line, a file that is JSON but not JSON Lines."""
    if text == "{":
        return error(
            "not-json-lines",
            "an object is spread over several lines; nothing after this line was read.",
            "Write each object on one line, e.g. `jq -c . FILE > NEW.jsonl`.",
        )
    if not text.startswith("["):
        return None
    with suppress(ValueError, RecursionError):
        value = reader.read(text)
        if not (isinstance(value, list) and any(isinstance(item, dict) for item in value)):
            return None  # a list of its own, which is no object
    return error(
        "not-json-lines",
        "the file is one JSON list; nothing after this line was read.",
        "Write its items one a line, e.g. `jq -c '.[]' FILE > NEW.jsonl`, or "
        '`python -c "import json; [print(json.dumps(row)) for row in json.load('
        "open('FILE', encoding='utf-8'))]\" > NEW.jsonl`.",
    )
