"""Check that a chat template omits nothing: texts, tool calls, results, reasoning."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

from pydantic import JsonValue

from unitune.data.example import Message, called
from unitune.data.records import json_or_none
from unitune.text import clip
from unitune_local.data.chat_text import SPLIT, TemplateError

_THOUGHT = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)


class Said(NamedTuple):
    """Parts of an assistant's turn."""

    reasoning: str
    answer: str


def said_of(message: Message) -> Said:
    """Return reasoning and answer of a turn, also where its text begins with ``<think>``."""
    inline = _THOUGHT.fullmatch(message.text)
    if message.reasoning_content or not inline:
        return Said((message.reasoning_content or "").strip(), message.text.strip())
    return Said(inline[1].strip(), inline[2].strip())


def check_context(text: str, messages: Sequence[Message]) -> str:
    """Check the messages before an answer, and return the text after the last one.

    Reasoning of earlier answers may be missing; anything else raises TemplateError.
    """
    text, place = text.replace(SPLIT, ""), 0
    for number, message in enumerate(messages, start=1):
        if message.role == "assistant":
            place = _after_answer(text, message, number, place)
        elif message.role in ("system", "developer"):
            _after(text, message, number, 0)  # some templates move it to the last question
        else:
            place = _after(text, message, number, place)
    return text[place:]


def check_answer(text: str, message: Message, number: int) -> int:
    """Check the text of a turn, and return where its content ends; raises TemplateError."""
    reasoning, place = said_of(message).reasoning, 0
    if reasoning and (place := _end_of(text, reasoning, 0)) < 0:
        raise TemplateError(
            f"the chat template leaves out the reasoning of message {number}: {clip(reasoning)}.",
            "Set data.reasoning to drop, or use a model whose template supports reasoning.",
        )
    return _after_answer(text, message, number, place)


def _after_answer(text: str, message: Message, number: int, place: int) -> int:
    answer = said_of(message).answer
    if answer and (place := _end_of(text, answer, place)) < 0:
        raise _left_out(message, number, answer)
    for call in message.tool_calls or ():
        (function,) = [json.loads(each) for each in called([call])] or [{}]
        parts = [str(function.get("name")), *_leaves(function.get("arguments"))]
        ends = [_end_of(text, part, place) for part in parts]
        if min(ends) < 0:
            missing = parts[ends.index(min(ends))]
            what = "the call" if missing == parts[0] else f"{missing!r} in the call"
            raise TemplateError(
                f"the chat template leaves out {what} of {parts[0]!r} in message {number}.",
                "Use a model whose template supports tool calls, or set data.chat_template, for "
                "example to hermes.",
            )
        place = max(ends)
    return place


def _after(text: str, message: Message, number: int, place: int) -> int:
    content = message.text.strip()
    if (end := _end_of(text, content, place)) >= 0:
        return end
    value = json_or_none(content) if message.role == "tool" else None
    ends = [_end_of(text, leaf, place) for leaf in _leaves(value)]
    if not ends or min(ends) < 0:
        raise _left_out(message, number, content)
    return max(ends)


def _left_out(message: Message, number: int, content: str) -> TemplateError:
    return TemplateError(
        f"the chat template leaves out message {number}, {message.role}: {content[:40]!r}.",
        "Move its text into another message, or use a model whose template has that role.",
    )


def _end_of(text: str, part: str, start: int) -> int:
    """Return the end of a part of a message in a text, verbatim or quoted, or -1."""
    for form in dict.fromkeys(_forms(part)):
        if (place := text.find(form, start)) >= 0:
            return place + len(form)
    return -1


def _forms(part: str) -> Iterator[str]:
    yield part
    yield json.dumps(part, ensure_ascii=False)[1:-1]
    yield json.dumps(part)[1:-1]
    yield repr(part)[1:-1]


def _leaves(value: JsonValue) -> Iterator[str]:
    """Yield strings and numbers of a JSON value; templates differ in how they write the rest."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each)
    elif isinstance(value, str):
        yield value.strip()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield json.dumps(cast("JsonValue", value))
