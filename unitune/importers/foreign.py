"""Reading what another tool has written: texts and JSON from untrusted files.

What comes out is plain JSON of a bounded depth with whole characters, so that importers need not
expect anything else; what cannot be read is a `DataError` that names the place and what is allowed.
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

LARGEST_SCORE = 1e300  # A whole number of more digits is no float


def text_file(path: Path, what: str) -> str:
    """Return a UTF-8 file's text; `what` it should hold is for the message.

    Raises:
        DataError: It cannot be read.
    """
    try:
        text = content_of(path).decode("utf-8-sig")
    except (OSError, ValueError) as failure:  # a name with a NUL in it is a ValueError
        why = getattr(failure, "strerror", None) or failure
        raise DataError(
            f"{path} cannot be read: {why}. It should be {what}; check its path."
        ) from failure
    return text.replace("\r\n", "\n").replace("\r", "\n")


def json_lines(path: Path, what: str) -> Iterator[tuple[int, JsonValue]]:
    """Yield the values of a JSON Lines file with the numbers of their lines.

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
        where: The file, and the place in it where that is known, for the message.
        what: What it should be, likewise.

    Raises:
        DataError: It is not JSON, or is nested too deeply.
    """
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
    """Return a parsed value with its unpaired surrogates replaced.

    Raises:
        ValueError: It is nested deeper than `MAX_DEPTH`, or holds what JSON does not know.
    """
    match value:
        case str():
            return whole_text(value)
        case None | bool() | int() | float():
            return value
        case list() | dict() if depth >= MAX_DEPTH:
            raise ValueError(f"lists and objects stand more than {MAX_DEPTH} deep in one another")
        case list():
            return [plain_json(item, depth + 1) for item in cast("list[object]", value)]
        case dict():
            items = cast("dict[object, object]", value).items()
            return {whole_text(str(key)): plain_json(item, depth + 1) for key, item in items}
        case _:
            raise ValueError(f"a {type(value).__name__} is no value of JSON")


def as_score(value: JsonValue) -> float | None:
    """Return a score as a number; None where it is none, or is not finite."""
    if not isinstance(value, bool | int | float) or not abs(value) <= LARGEST_SCORE:
        return None
    return float(value)
