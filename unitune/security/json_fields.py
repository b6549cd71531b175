"""A JSON object from outside, read without trust: `Fields`.

A description calls many fields optional, and servers of the same wire leave out others too. So a
field that is absent, null or of another type is None (or empty), and never an error; what cannot be
done without is the reader's to miss.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import cast

from pydantic import JsonValue


class Unreadable(ValueError):
    """An answer that is not what it should be."""


class Fields:
    """The fields of an object; none where it is no object."""

    def __init__(self, value: object) -> None:
        self.all: Mapping[str, JsonValue] = (
            cast("dict[str, JsonValue]", value) if isinstance(value, dict) else {}
        )

    def text(self, name: str) -> str | None:
        """Return a text, with unpaired surrogates replaced: no file can hold one."""
        value = self.all.get(name)
        return whole_text(value) if isinstance(value, str) else None

    def whole(self, name: str) -> int | None:
        """Return a whole number."""
        value = self.number(name)
        return int(value) if value is not None and value == int(value) else None

    def number(self, name: str) -> float | None:
        """Return a finite number."""
        value = self.all.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return value if abs(value) < float("inf") else None

    def time(self, name: str) -> float:
        """Return a time of RFC 3339, in seconds since 1970; 0 where there is none.

        One without a zone is UTC, on whatever machine it is read.
        """
        try:
            time = datetime.fromisoformat(self.text(name) or "")
            return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return 0.0

    def fields(self, name: str) -> Fields:
        """Return the object in a field."""
        return Fields(self.all.get(name))

    def items(self, name: str) -> list[Fields]:
        """Return the objects in a list."""
        return [Fields(item) for item in self.values(name) if isinstance(item, dict)]

    def values(self, name: str) -> list[JsonValue]:
        """Return a list."""
        value = self.all.get(name)
        return value if isinstance(value, list) else []


def read_json(content: bytes | str) -> object:
    """Return the JSON value of a text.

    Raises:
        Unreadable: It is none, is no UTF-8, or is nested too deeply.
    """
    try:
        return cast("object", json.loads(content))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"no JSON: {error}") from error


def whole_text(text: str) -> str:
    """Return a text with unpaired surrogates replaced."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def flat(values: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Yield the values of nested objects by dotted names, without those that are null."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value
