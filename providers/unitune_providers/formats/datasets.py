"""Convert rows to ShareGPT's conversations and Alpaca's instructions, and back.

`unitune.data` decodes them. ShareGPT has no call ids: results must answer the calls in order, or
the row is refused. An Alpaca row has an optional system prompt and alternating turns of user and
assistant. Its `input` is written empty, as a user's text does not show where it would begin.

Source: as in `unitune.data.sharegpt` and `unitune.data.shapes`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import JsonValue

from unitune.backends.formats import Format, UnrepresentableRow, WireRow
from unitune.data import shapes, sharegpt
from unitune.data.example import Example, Message
from unitune.data.records import BadRow
from unitune_providers.formats.checks import (
    called_functions,
    example_of,
    is_answered,
    is_plain,
    only_text,
    refusal,
    single_text,
    with_paths,
    written_system,
)
from unitune_providers.formats.openai import check_tools, check_turn

_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}


def encode_sharegpt(example: Example) -> WireRow:
    """Encode a conversation."""
    is_answered(example)
    check_tools(example.tools or ())
    waiting: list[JsonValue] = []
    turns: list[JsonValue] = []
    for where, turn in with_paths(example.messages):
        is_plain(where, turn)
        check_turn(where, turn)
        if turn.role == "tool":
            if not waiting or waiting.pop(0) != turn.tool_call_id:
                raise UnrepresentableRow(f"{where} does not answer the calls in order")
            turns.append({"from": "observation", "value": single_text(where, turn)})
        elif turn.tool_calls:
            waiting = [call["id"] for call in turn.tool_calls]
            turns.append({"from": "function_call", "value": _calls(where, turn)})
        elif turn.role in _SPEAKERS:
            turns.append({"from": _SPEAKERS[turn.role], "value": single_text(where, turn)})
        else:
            raise UnrepresentableRow(
                f"{where} is from {turn.role!r}, which is unknown there; use 'system'"
            )
    row: WireRow = {"conversations": turns}
    if example.tools == ():
        raise UnrepresentableRow("tools is an empty list, which would be lost")
    if example.tools:
        row["tools"] = _json([tool["function"] for tool in example.tools])
    return row


def decode_sharegpt(row: Mapping[str, JsonValue]) -> Example:
    """Decode a conversation."""
    try:
        content = sharegpt.read(dict(row))
    except BadRow as problem:
        raise refusal(problem.findings[0]) from None
    return example_of(content, encode_sharegpt)


def encode_alpaca(example: Example) -> WireRow:
    """Encode an instruction."""
    is_answered(example)
    if example.tools is not None:
        raise UnrepresentableRow("the row has tools, which are not allowed there")
    turns = with_paths(example.messages)
    for where, turn in turns:
        is_plain(where, turn)
        only_text(where, turn)
    has_system = turns[0][1].role == "system"
    system = single_text(*written_system(*turns.pop(0))) if has_system else None
    roles = [turn.role for _, turn in turns]
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise UnrepresentableRow(
            f"the row's messages are from {', '.join(roles)}, but in an instruction user and "
            "assistant alternate after an optional system prompt"
        )
    said = [single_text(*place) for place in turns]
    *before, (user, answer) = zip(said[::2], said[1::2], strict=True)
    row: WireRow = {"instruction": user, "input": "", "output": answer}
    if system is not None:
        row["system"] = system
    return {**row, "history": [[*pair] for pair in before]} if before else row


def decode_alpaca(row: Mapping[str, JsonValue]) -> Example:
    """Decode an instruction."""
    rest = dict(row)
    system = rest.pop("system", None)
    try:
        content = shapes.alpaca(rest)
    except BadRow as problem:
        raise refusal(problem.findings[0]) from None
    if system and isinstance(messages := content.get("messages"), list):
        content["messages"] = [{"role": "system", "content": system}, *messages]
    return example_of(content, encode_alpaca)


def _calls(where: str, turn: Message) -> str:
    if turn.text:
        raise UnrepresentableRow(
            f"{where} has text in addition to its calls, which is not allowed there"
        )
    calls: list[JsonValue] = [function for _, function in called_functions(where, turn)]
    return _json(calls if len(calls) > 1 else calls[0])


def _json(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False)


SHAREGPT = Format(
    "sharegpt",
    "ShareGPT conversations of `from` and `value`",
    encode_sharegpt,
    decode_sharegpt,
    (*sharegpt.KEYS, "tools"),
)
ALPACA = Format(
    "alpaca",
    "Alpaca instructions",
    encode_alpaca,
    decode_alpaca,
    ("instruction", "input", "context", "output", "response", "system", "history"),
)
