r"""Read ShareGPT's conversations as canonical messages: turns of ``from`` and ``value``.

A ``function_call`` turn holds calls as JSON, and ``observation`` the result. Calls get the ids
``call_0``, ``call_1``, … in order.

Source: LLaMA-Factory, data/README.md (ShareGPT format, `tools` as a text); axolotl,
docs/dataset-formats/conversation.qmd (roles); FastChat's dumps (`human`, `gpt`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import count

from pydantic import JsonValue

from unitune.data.records import Flat, bad, strict_json
from unitune.text import clip

KEYS = ("conversations", "conversation")
ROLES: Mapping[str, str] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "tool": "tool",
}


def fits(row: Flat) -> bool:
    """Return whether a row holds a ShareGPT conversation."""
    return any(isinstance(row.get(key), list) for key in KEYS)


def read(row: Flat) -> Flat:
    """Return the row with messages, or with TRL's preference keys; raises `BadRow`."""
    rest = dict(row)
    key = next((key for key in KEYS if isinstance(row.get(key), list)), None)
    if key is None:
        raise bad("missing-key", "the row has no list of `conversations`.", _TURN)
    turns = _Turns()
    messages = [*turns.read(key, rest.pop(key))]
    rest["tools"] = tools_of(rest.pop("tools", None))
    if rest.get("chosen") is None and rest.get("rejected") is None:
        return {"messages": messages, **rest}
    for answer in ("chosen", "rejected"):
        if isinstance(rest.get(answer), dict):
            rest[answer] = [*turns.read(answer, [rest[answer]])]
    return {"prompt": messages, **rest}


class _Turns:
    def __init__(self) -> None:
        self._ids = (f"call_{number}" for number in count())
        self._waiting: list[str] = []

    def read(self, key: str, turns: JsonValue) -> Iterator[JsonValue]:
        for index, turn in enumerate(turns if isinstance(turns, list) else []):
            where = f"{key}[{index}]"
            if not isinstance(turn, dict):
                raise bad("wrong-value", f"{where} is {clip(turn)}.", _TURN)
            yield turn if "role" in turn and "from" not in turn else self._message(where, turn)

    def _message(self, where: str, turn: Flat) -> Flat:
        rest = {key: value for key, value in turn.items() if value is not None}
        speaker, text = rest.pop("from", None), rest.pop("value", None)
        role = ROLES.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            raise bad("wrong-value", f"{where}.from is {clip(speaker)}.", _TURN)
        if not isinstance(text, str):
            raise bad(
                "wrong-value", f"{where}.value is {clip(text)}, which is not a string.", _TURN
            )
        if speaker == "function_call":
            calls = _json(f"{where}.value", text)
            return {"role": role, "tool_calls": self._calls(where, calls), **rest}
        if role == "tool" and self._waiting:
            rest["tool_call_id"] = self._waiting.pop(0)
        return {"role": role, "content": text, **rest}

    def _calls(self, where: str, calls: JsonValue) -> list[JsonValue]:
        made: list[JsonValue] = []
        self._waiting = []
        for call in calls if isinstance(calls, list) else [calls]:
            if not isinstance(call, dict) or call.keys() != {"name", "arguments"}:
                raise bad(
                    "wrong-value", f"{where}.value is {clip(call)}, which is not a call.", _CALL
                )
            given = call["arguments"]
            text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
            self._waiting.append(next(self._ids))
            function: Flat = {"name": call["name"], "arguments": text}
            made.append({"id": self._waiting[-1], "type": "function", "function": function})
        return made


def tools_of(value: JsonValue) -> list[JsonValue] | None:
    """Return the functions of a row in OpenAI's form; raises `BadRow` unless it is a list."""
    tools = _json("tools", value) if isinstance(value, str) and value.strip() else value
    if not tools:
        return None
    if not isinstance(tools, list):
        raise bad("wrong-value", f"tools is {clip(tools)}, which is not a list.", _CALL)
    return [
        {"type": "function", "function": tool}
        if isinstance(tool, dict) and "name" in tool and "type" not in tool
        else tool
        for tool in tools
    ]


def _json(where: str, text: str) -> JsonValue:
    try:
        return strict_json(text)[0]
    except (ValueError, RecursionError) as failure:
        raise bad("wrong-value", f"{where} is not JSON: {failure}.", _CALL) from None


_TURN = f"""A turn is {{"from": …, "value": "text"}}, from {", ".join(ROLES)}."""
_CALL = 'A call is {"name": …, "arguments": {…}} as JSON text; tools is a list of functions.'
