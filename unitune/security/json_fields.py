"""Read JSON objects from untrusted sources (`Fields`).

Many fields are optional, and compatible servers omit others as well. So a field that is absent,
null or of another type is read as None (or empty), never as an error. The caller checks required
fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import cast

from pydantic import JsonValue


class Unreadable(ValueError):
    """Response with unexpected content."""


class Fields:
    """Fields of an object; empty for other values."""

    def __init__(self, value: object) -> None:
        self.all: Mapping[str, JsonValue] = (
            cast("dict[str, JsonValue]", value) if isinstance(value, dict) else {}
        )

    def text(self, name: str) -> str | None:
        """Return a text, with unpaired surrogates replaced because files cannot store them."""
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
        """Return an RFC 3339 time in seconds since 1970; 0 for any other value.

        A time without a zone is UTC.
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
        Unreadable: The text is not JSON, not UTF-8, or nested too deeply.
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
    """Yield the non-null values of nested objects by dotted name."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value
