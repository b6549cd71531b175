"""Read messages in the forms that tracing tools record them.

OpenAI's chat messages; the parts of OpenTelemetry's GenAI conventions
(https://opentelemetry.io/docs/specs/semconv/gen-ai/); OpenInference's ``message.role`` keys
(Phoenix); and LangChain's serialised messages (LangSmith).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from pydantic import JsonValue

from unitune.data.records import json_or_none
from unitune.text import clip

Fields: TypeAlias = dict[str, JsonValue]

ROLES = {
    **{role: role for role in ("system", "developer", "user", "assistant", "tool")},
    "human": "user",
    "ai": "assistant",
    "aimessage": "assistant",
    "aimessagechunk": "assistant",
    "model": "assistant",
    "function": "tool",
}
TEXT_PARTS = ("text", "input_text", "output_text")
OF_FUNCTIONS = ("name", "description", "parameters")
REASONING_PARTS = ("reasoning", "thinking")


class Unusable(ValueError):
    """A call that no row can be made of, with the reason."""


def fields(value: JsonValue) -> Fields:
    """Return an object; an empty one for any other value."""
    return value if isinstance(value, dict) else {}


def items(value: JsonValue) -> list[JsonValue]:
    """Return a list; an empty one for any other value."""
    return value if isinstance(value, list) else []


def parsed(value: JsonValue) -> JsonValue:
    """Return the value of a JSON text, or any other value unchanged."""
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        return json_or_none(value) or value
    return value


def prompt_of(value: JsonValue) -> list[Fields]:
    """Return the messages of a recorded input; raises `Unusable`."""
    value = parsed(value)
    for key in ("messages", "input", "prompt"):
        if isinstance(value, dict) and key in value:
            return prompt_of(value[key])
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    messages = [value] if isinstance(value, dict) else items(value)
    if len(messages) == 1 and isinstance(messages[0], list):  # a batch of one, in LangChain
        messages = messages[0]
    return [turn for message in messages for turn in _turns(message)]


def answer_of(value: JsonValue) -> Fields | None:
    """Return the last assistant message of a recorded output; raises `Unusable`."""
    value = parsed(value)
    if isinstance(value, str):
        return {"role": "assistant", "content": value} if value else None
    if isinstance(value, list):
        return answer_of(value[-1]) if value else None
    for key in ("choices", "generations", "messages", "message", "output"):
        if key in (found := fields(value)) and "role" not in found:
            return answer_of(found[key])
    turns = [turn for turn in _turns(value) if turn["role"] == "assistant"]
    return next((turn for turn in turns if turn["content"] or "tool_calls" in turn), None)


def tools_of(value: JsonValue) -> list[JsonValue]:
    """Return tool definitions in OpenAI's form."""
    tools = list[JsonValue]()
    for each in items(parsed(value)):
        tool = fields(parsed(fields(each).get("tool") or each))
        tool = fields(parsed(tool.get("json_schema") or tool))
        if "function" not in tool:
            own: Fields = {key: tool[key] for key in OF_FUNCTIONS if tool.get(key) is not None}
            tool: Fields = {"type": "function", "function": own}
        tools.append(tool)
    return tools


@dataclass(slots=True)
class _Content:
    """Parts of one message, by kind."""

    text: list[str] = field(default_factory=list[str])
    reasoning: list[str] = field(default_factory=list[str])
    calls: list[JsonValue] = field(default_factory=list[JsonValue])
    results: list[Fields] = field(default_factory=list[Fields])

    def add(self, part: JsonValue) -> None:
        found = fields(part) or {"type": "text", "text": part}
        match found.get("type"):
            case kind if kind in TEXT_PARTS:
                self.text.append(first_text(found, "text", "content"))
            case kind if kind in REASONING_PARTS:
                self.reasoning.append(first_text(found, "content", "thinking", "text"))
            case "tool_call" | "tool_use":
                self.calls.append(_call(found))
            case "tool_call_response" | "tool_result":
                self.results.append(_result(found))
            case kind:
                raise Unusable(f"a message has a part of type {clip(kind)}")


def _turns(message: JsonValue) -> Iterator[Fields]:
    """Yield a recorded message as messages in OpenAI's form: one for each tool result."""
    if isinstance(message, str):
        message = {"role": "user", "content": message}
    found = fields(fields(message).get("message") or message)
    found = fields(found.get("kwargs")) or found  # LangChain's serialised messages
    spoken = first_text(found, "role", "type").lower()
    role = ROLES.get(spoken)
    if role is None:
        raise Unusable(f"a message has the role {clip(spoken)}")
    content, plain = _Content(), found.get("content")
    content.calls += map(_call, items(found.get("tool_calls")))
    for part in items(found.get("parts") or plain):
        content.add(part)
    yield from content.results
    text = "".join(content.text) if content.text else plain if isinstance(plain, str) else None
    if role == "tool" and not content.results:
        yield _result({**found, "content": text})
    elif text is not None or content.calls:
        turn: Fields = {"role": role, "content": text}
        if content.calls:
            turn["tool_calls"] = content.calls
        if reasoning := "".join(content.reasoning) or first_text(found, "reasoning_content"):
            turn["reasoning_content"] = reasoning
        yield turn


def _call(value: JsonValue) -> Fields:
    call = fields(fields(value).get("tool_call") or value)
    function = fields(call.get("function")) or call
    keys = [key for key in ("arguments", "args", "input") if key in function]
    given = function[keys[0]] if keys else "{}"
    arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    wire: Fields = {"name": function.get("name"), "arguments": arguments}
    return {"id": call.get("id"), "type": "function", "function": wire}


def _result(part: Fields) -> Fields:
    keys = [key for key in ("response", "result", "content") if part.get(key)]
    value = part[keys[0]] if keys else ""
    content = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    call = first_text(part, "tool_call_id", "tool_use_id", "id")
    return {"role": "tool", "content": content, "tool_call_id": call}


def first_text(found: Fields, *keys: str) -> str:
    """Return the first value that is set under one of the keys; empty if there is none."""
    return next((str(found[key]) for key in keys if found.get(key)), "")
