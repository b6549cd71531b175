"""Read untrusted text and JSON files of other tools as plain JSON of bounded depth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from unitune.data.records import MAX_DEPTH
from unitune.errors import DataError
from unitune.files.filesystem import content_of
from unitune.security.json_fields import whole_text

LARGEST_SCORE = 1e300  # larger whole numbers do not fit a float


def text_file(path: Path, what: str) -> str:
    """Return the text of a UTF-8 file, described by `what`; raises `DataError`."""
    try:
        text = content_of(path).decode("utf-8-sig")
    except (OSError, ValueError) as failure:  # a NUL in a name is a ValueError
        why = getattr(failure, "strerror", None) or failure
        raise DataError(
            f"{path} cannot be read: {why}. It should be {what}. Check its path."
        ) from failure
    return text.replace("\r\n", "\n").replace("\r", "\n")


def json_lines(path: Path, what: str) -> Iterator[tuple[int, JsonValue]]:
    """Yield the values of a JSON Lines file with their line numbers; raises `DataError`."""
    # Not splitlines: JSON strings may hold U+2028 and similar characters.
    for number, line in enumerate(text_file(path, what).split("\n"), start=1):
        if line.strip():
            yield number, read_json(line, f"{path}:{number}", f"a line of {what}")


def json_file(path: Path, what: str) -> JsonValue:
    """Return the value of a JSON file; raises `DataError`."""
    return read_json(text_file(path, what), str(path), what)


def read_json(text: str | bytes, where: str, what: str) -> JsonValue:
    """Return the JSON value of a text; raises `DataError` with its place and expected content."""
    try:
        return plain_json(json.loads(text))
    except (ValueError, RecursionError) as failure:
        why = str(failure).rstrip(".")
        if isinstance(failure, json.JSONDecodeError):
            where += f":{failure.lineno}" if failure.lineno > 1 else ""
            why = failure.msg
        elif isinstance(failure, RecursionError):
            why = "it is nested too deeply"
        raise DataError(f"{where} is not JSON: {why}. It should be {what}.") from failure


def plain_json(value: object, depth: int = 0) -> JsonValue:
    """Return a value with whole characters; raises `ValueError` if it is too deep or not JSON."""
    match value:
        case str():
            return whole_text(value)
        case None | bool() | int() | float():
            return value
        case list() | dict() if depth >= MAX_DEPTH:
            raise ValueError(f"lists and objects are nested more than {MAX_DEPTH} levels deep")
        case list():
            return [plain_json(item, depth + 1) for item in cast("list[object]", value)]
        case dict():
            items = cast("dict[object, object]", value).items()
            return {whole_text(str(key)): plain_json(item, depth + 1) for key, item in items}
        case _:
            raise ValueError(f"a {type(value).__name__} is not a JSON value")


def as_score(value: JsonValue) -> float | None:
    """Return a score as a number; None if it is not a finite number."""
    if not isinstance(value, bool | int | float) or not abs(value) <= LARGEST_SCORE:
        return None
    return float(value)
