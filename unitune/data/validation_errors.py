"""Why a record is no Example, in plain sentences.

`explain` turns pydantic's errors, which name union branches and tuples, into findings that name
the place in the row, the value and what is allowed there. The words for each key stand in one
table. Which rows are usable beyond their shape is the business of `unitune.data.rows`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails

from unitune.data.example import ROLES, Message, TextPart
from unitune.errors import nearest
from unitune.findings import Finding, clip, error

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class _Allowed:
    """What may stand under a key.

    Args:
        code: Code of the finding about a wrong value.
        what: What is allowed.
    """

    code: str
    what: str


_ALLOWED = {
    "messages": _Allowed("wrong-messages", 'a list of at least one {"role": …, "content": …}'),
    "role": _Allowed("wrong-role", f"one of {', '.join(ROLES)}"),
    "content": _Allowed("wrong-content", 'text in quotes, or a list of {"type": "text", …} parts'),
    "type": _Allowed("wrong-part", '"text"'),
    "text": _Allowed("wrong-content", "text in quotes"),
    "name": _Allowed("wrong-value", "text in quotes"),
    "tool_calls": _Allowed("wrong-value", "a list of objects"),
    "tool_call_id": _Allowed("wrong-value", "text in quotes"),
    "weight": _Allowed("wrong-weight", "0 or 1 in a message, a number from 0 on for a row"),
    "tools": _Allowed("wrong-value", "a list of objects"),
    "id": _Allowed("wrong-value", "text in quotes"),
    "expected": _Allowed("wrong-value", "text in quotes"),
    "required": _Allowed("wrong-value", "true or false"),
    "input": _Allowed("wrong-value", '{"messages": […]}, with or without "tools"'),
    "preferred_output": _Allowed("wrong-output", "a list of one message, from the assistant"),
    "non_preferred_output": _Allowed("wrong-output", "a list of one message, from the assistant"),
}
_ANY = _Allowed("wrong-value", "what the format describes")

# What other tools call the same things.
_SYNONYMS = {
    "ai": "assistant",
    "bot": "assistant",
    "completion": "assistant",
    "from": "role",
    "function": "tool",
    "gpt": "assistant",
    "human": "user",
    "model": "assistant",
    "prompt": "user",
    "value": "content",
}

# Kinds of parts in the formats of OpenAI, Anthropic and Google.
_NOT_YET = ("image", "audio", "video", "file", "document")


def explain(failure: ValidationError, value: JsonValue) -> list[Finding]:
    """Return pydantic's errors about a record as findings, one for each place.

    Args:
        failure: From `Example.model_validate(value)`.
        value: The record.
    """
    told: dict[Location, ErrorDetails] = {}
    for detail in failure.errors():
        told.setdefault(_in_record(value, detail), detail)
    # A complaint about a whole (no text, too short) only echoes the one about its part.
    wholes = {at[:length] for at in told for length in range(len(at))}
    parts = {at: detail for at, detail in told.items() if at not in wholes}
    return list(dict.fromkeys(_findings(parts, value)))


def _findings(told: dict[Location, ErrorDetails], value: JsonValue) -> Iterator[Finding]:
    for at, detail in told.items():
        kind = _part_kind(value, at)
        yield _not_yet(at, kind) if kind else _finding(at, detail)


def _in_record(value: JsonValue, detail: ErrorDetails) -> Location:
    """Drop from pydantic's location the parts that name union branches, not keys."""
    at: list[str | int] = []
    here = value
    for part in detail["loc"]:
        if _holds(here, part):
            here = _inner(here, part)
            at.append(part)
    return (*at, detail["loc"][-1]) if detail["type"] == "missing" else tuple(at)


def _holds(value: JsonValue, part: str | int) -> bool:
    if isinstance(value, dict):
        return part in value
    return isinstance(value, list) and isinstance(part, int)


def _inner(value: JsonValue, part: str | int) -> JsonValue:
    if isinstance(value, dict):
        return value.get(str(part))
    return value[part] if isinstance(value, list) and isinstance(part, int) else None


def _part_kind(value: JsonValue, at: Location) -> str | None:
    """Return the type of the image, sound or file in which a location lies."""
    for part in at:
        value = _inner(value, part)
        kind = value.get("type") if isinstance(value, dict) else None
        if isinstance(kind, str) and any(word in kind for word in _NOT_YET):
            return kind
    return None


def _not_yet(at: Location, kind: str) -> Finding:
    return error(
        "unsupported-part",
        f"{_dotted(at[:4])} is of type {kind!r}: images, sound and files are not supported yet.",
        "Keep rows of text alone; leave this row out, or describe the part in words.",
    )


def _finding(at: Location, detail: ErrorDetails) -> Finding:
    key = str(at[-1]) if at else "row"
    if detail["type"] == "unexpected_keyword_argument":  # by which a dataclass says it
        return _unknown_key(at, key)
    if detail["type"] == "missing":
        where = f"{_dotted(at[:-1])} has" if at[:-1] else "the row has"
        return error("missing-key", f"{where} no {key!r}.", f"Give it {_allowed(at).what}.")
    if detail["type"] == "value_error":
        told = detail["msg"].removeprefix("Value error, ")
        return error("wrong-value", f"{_dotted(at)}: {told}.", "Change the row.")
    given: object = detail["input"]
    guess = _guess(str(given), ROLES) if key == "role" and isinstance(given, str) else ""
    return error(
        _allowed(at).code,
        f"{_dotted(at)} is {clip(given)}.{guess}",
        f"Allowed is {_allowed(at).what}.",
    )


def _unknown_key(at: Location, key: str) -> Finding:
    keys = [key.name for key in fields(TextPart if "content" in at[:-1] else Message)]
    return error(
        "unknown-key",
        f"{_dotted(at[:-1])} has a key {key!r}, which is not known.{_guess(key, keys)}",
        f"Known there: {', '.join(keys)}. Keys of your own may stand beside `messages`.",
    )


def _guess(given: str, known: tuple[str, ...] | list[str]) -> str:
    plain = given.strip().lower()
    synonym = _SYNONYMS.get(plain)
    guess = synonym if synonym in known else nearest(plain, known)
    return f" Did you mean {guess!r}?" if guess else ""


def _allowed(at: Location) -> _Allowed:
    keys = [part for part in at if isinstance(part, str)]
    return _ALLOWED.get(keys[-1], _ANY) if keys else _ANY


def _dotted(at: Location) -> str:
    """Return a location as Python writes it: ``messages[1].role``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at)
    return text.removeprefix(".") or "the row"
