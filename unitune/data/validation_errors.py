"""Explain pydantic's errors about a record as findings that name the place in the row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails

from unitune.data.example import ROLES, Message, TextPart
from unitune.errors import nearest
from unitune.files.validation import Location, by_location, dotted, own_text, wanted
from unitune.findings import Finding, error
from unitune.text import clip

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
_REPLACEMENTS = {
    "function_call": 'Write `tool_calls: [{"id": …, "type": "function", "function": {"name": …, '
    '"arguments": …}}]`, and the result as a "tool" turn with its `tool_call_id`.',
    "reasoning": "Write it under `reasoning_content`.",
    "thinking": "Write it under `reasoning_content`.",
}
# Words in the names of parts, in the formats of OpenAI, Anthropic and Google
_MEDIA = ("image", "audio", "video", "file", "document")


def explain(failure: ValidationError, value: JsonValue) -> list[Finding]:
    """Return pydantic's errors about a record as findings, one per place."""
    errors = by_location(value, failure)
    # An error about a container only repeats the error about its part.
    wholes = {at[:length] for at in errors for length in range(len(at))}
    findings = (_finding(value, at, errors[at]) for at in errors if at not in wholes)
    return list(dict.fromkeys(findings))


def _finding(value: JsonValue, at: Location, details: Sequence[ErrorDetails]) -> Finding:
    detail, key = details[0], str(at[-1]) if at else "row"
    where, around = _dotted(at), _dotted(at[:-1])
    if media := _media_type(value, at):
        return error(
            "unsupported-part",
            f"{_dotted(at[:4])} is of type {media!r}. Images, audio and files are not supported "
            "yet.",
            "Remove the row, or describe the part in words.",
        )
    if detail["type"] == "unexpected_keyword_argument":  # a dataclass's unknown key
        keys = [field.name for field in fields(TextPart if "content" in at[:-1] else Message)]
        guess = "" if key in _REPLACEMENTS else _guess(key, keys)
        known = f"Allowed keys: {', '.join(keys)}. Put custom keys next to `messages`."
        what = f"{around} has an unknown key {key!r}.{guess}"
        return error("unknown-key", what, _REPLACEMENTS.get(key, known))
    if detail["type"] == "missing":
        return error("missing-key", f"{around} has no {key!r}.", "Add it.")
    if detail["type"] == "value_error":
        return error("wrong-value", f"{where}: {own_text(detail)}.", "Change the row.")
    given: object = detail["input"]
    guess = _guess(given, ROLES) if key == "role" and isinstance(given, str) else ""
    return error(
        "wrong-value", f"{where} is {clip(given)}.{guess}", f"It must be {wanted(details)}."
    )


def _media_type(value: JsonValue, at: Location) -> str | None:
    for part in at:
        if isinstance(value, dict):
            value = value.get(str(part))
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
        kind = value.get("type") if isinstance(value, dict) else None
        if isinstance(kind, str) and any(word in kind for word in _MEDIA):
            return kind
    return None


def _guess(given: str, known: Sequence[str]) -> str:
    plain = given.strip().lower()
    synonym = _SYNONYMS.get(plain)
    guess = synonym if synonym in known else nearest(plain, known)
    return f" Did you mean {guess!r}?" if guess else ""


def _dotted(at: Location) -> str:
    return dotted(at) or "the row"
