"""Wire formats: a vendor's rows as pure functions, found by name without the vendor's SDK.

A `Format` turns one canonical row into one of the vendor's and back. A row that the format cannot
represent raises `UnrepresentableRow`, so that nothing is lost silently; the caller names the line.
Entry points in the group ``unitune.formats`` name `Format` objects
(`unitune.backends.registry.format`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from unitune.data.example import Example

WireRow = dict[str, JsonValue]


class UnrepresentableRow(ValueError):
    """A row says something that the other side has no place for; the message says what."""


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of row on one vendor's wire.

    Args:
        name: As `unitune convert --to` takes it: ``openai-chat``.
        summary: One line for people.
        encode: From canonical to wire.
        decode: From wire to canonical.
    """

    name: str
    summary: str
    encode: Callable[[Example], WireRow]
    decode: Callable[[Mapping[str, JsonValue]], Example]
