"""Reading what another tool, or somebody with a grudge, has written: texts, JSON and YAML.

Whatever stands in such a file, what comes out is plain JSON of a bounded depth and size with whole
characters, so that nothing behind has to expect anything else; or a `DataError` that says where and
what is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from unitune.data.records import MAX_DEPTH
from unitune.errors import DataError
from unitune.security.json_fields import whole_text
from unitune.workspace.filesystem import content_of

MOST_VALUES = 5_000_000
"""Of one YAML file: aliases make many of few. A suite of 100,000 tests has some 2 million."""


class NotPlainData(ValueError):
    """A value that JSON has no place for, or too much of it."""


def text_file(path: Path, what: str) -> str:
    """Return a file's text.

    Args:
        path: The file; UTF-8.
        what: What it should hold, for the message.

    Raises:
        DataError: It cannot be read.
    """
    try:
        text = content_of(path).decode("utf-8-sig")
    except (OSError, ValueError) as failure:  # a name with a NUL in it is a ValueError
        raise DataError(
            f"{path} cannot be read: {failure}. It should be {what}; check its place."
        ) from failure
    return text.replace("\r\n", "\n").replace("\r", "\n")


def json_lines(path: Path, what: str) -> Iterator[tuple[int, JsonValue]]:
    """Yield the values of a file of JSON Lines with the numbers of their lines.

    Raises:
        DataError: It cannot be read, or a line is not JSON.
    """
    # Not splitlines: JSON texts may hold U+2028 and the like as they are.
    for number, line in enumerate(text_file(path, what).split("\n"), start=1):
        if line.strip():
            yield number, read_json(line, f"{path}:{number}", f"a line of {what}")


def json_file(path: Path, what: str) -> JsonValue:
    """Return a JSON file's value.

    Raises:
        DataError: It cannot be read, or is not JSON.
    """
    return read_json(text_file(path, what), str(path), what)


def read_json(text: str | bytes, where: str, what: str) -> JsonValue:
    """Return the JSON value of a text.

    Args:
        text: All of it.
        where: File, and what more is known, for the message.
        what: What it should be, likewise.

    Raises:
        DataError: It is not JSON, or is nested too deeply.
    """
    try:
        return plain_data(json.loads(text))
    except json.JSONDecodeError as failure:
        line = f":{failure.lineno}" if failure.lineno > 1 else ""
        raise DataError(
            f"{where}{line} is not JSON: {failure.msg}. It should be {what}."
        ) from failure
    except (ValueError, RecursionError) as failure:
        raise DataError(
            f"{where} is not JSON: {_words(failure)}. It should be {what}."
        ) from failure


def plain_data(value: object) -> JsonValue:
    """Return a value as JSON has it: keys are texts, and unpaired surrogates are replaced.

    Raises:
        NotPlainData: It is nested deeper than `MAX_DEPTH`, holds what JSON does not know, or more
            than `MOST_VALUES` values once aliases are written out.
    """
    left = [MOST_VALUES]
    return _plain(value, 0, left)


def _plain(value: object, depth: int, left: list[int]) -> JsonValue:
    left[0] -= 1
    if left[0] < 0:
        raise NotPlainData(f"its aliases stand for more than {MOST_VALUES:,} values")
    match value:
        case str():
            return whole_text(value)
        case None | bool() | int() | float():
            return value
        case list() | dict() if depth >= MAX_DEPTH:
            raise NotPlainData(
                f"lists and objects stand more than {MAX_DEPTH} deep inside one another"
            )
        case list():
            return [_plain(one, depth + 1, left) for one in cast("list[object]", value)]
        case dict():
            items = cast("dict[object, object]", value).items()
            return {_key(key): _plain(one, depth + 1, left) for key, one in items}
        case _:
            raise NotPlainData(f"a {type(value).__name__} is no value of JSON")


def _key(key: object) -> str:
    """Return a key as JavaScript has it: always a text."""
    match key:
        case str():
            return whole_text(key)
        case None | bool() | int() | float():
            return json.dumps(key)
        case _:
            raise NotPlainData(f"a {type(key).__name__} is no key of JSON")


def _words(failure: Exception) -> str:
    deep = isinstance(failure, RecursionError)
    return "it is nested too deeply" if deep else str(failure).rstrip(".")
