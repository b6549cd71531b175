"""Find every text of a row: values, keys, and JSON inside strings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from pydantic import JsonValue

from unitune.data.records import json_or_none

_PLAIN = {  # full-width letters, non-breaking spaces and hyphens, with plain forms
    **{0xFF01 + at: 0x21 + at for at in range(94)},
    **dict.fromkeys((0xA0, 0x2007, 0x202F, 0x3000), ord(" ")),
    **dict.fromkeys((0x2010, 0x2011), ord("-")),
}


def plain(text: str) -> str:
    """Return a text of the same length with plain letters, spaces and hyphens."""
    return text if text.isascii() else text.translate(_PLAIN)


def strings(value: JsonValue) -> Iterator[str]:
    """Yield all texts of a JSON value, keys and JSON inside strings included."""
    if isinstance(value, str):
        yield value
        yield from strings(_within(value))
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from strings(key)
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)


def changed(value: JsonValue, change: Callable[[str], str]) -> JsonValue:
    """Return a JSON value with all its texts changed, keys and JSON inside strings included."""
    if isinstance(value, str):
        inner = _within(value)
        within, new = changed(inner, change), change(value)
        is_same = within == inner or within == _within(new)
        return new if is_same else json.dumps(within, ensure_ascii=False)
    if isinstance(value, list):
        return [changed(each, change) for each in value]
    if isinstance(value, dict):
        return {change(key): changed(each, change) for key, each in value.items()}
    return value


def _within(text: str) -> JsonValue:
    is_json = "\\" in text and text.lstrip()[:1] in ("{", "[", '"')
    return json_or_none(text) if is_json else None
