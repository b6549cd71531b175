"""Convert rows of Together's fine-tuning files: OpenAI's formats with other rules.

Rows, and turns of any role, may have weights. There is no developer role and no name. A text must
be a single string, but in a row with images, which must be embedded, each content is a list of
parts. User and assistant alternate. Rows with `reasoning` are refused, because canonical rows do
not have it.

Source: docs.together.ai/docs/fine-tuning/data-preparation (2026), and the checks in
together/lib/utils/files.py of together 2 (made by the server from version 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from pydantic import JsonValue

from unitune.backends.formats import Format, UnrepresentableRow, WireRow
from unitune.data.example import Example, Message
from unitune_providers.formats.checks import (
    called_functions,
    embedded,
    example_of,
    image_part,
    is_answered,
    is_pair,
    no_name,
    single_text,
    weighs_as_usual,
    with_paths,
)
from unitune_providers.formats.openai import check_tools, check_turn

OUTPUTS = ("preferred_output", "non_preferred_output")


def encode_chat(example: Example) -> WireRow:
    """Encode a row for supervised tuning."""
    is_answered(example, weighted=True)
    messages = _messages(example.messages)
    return {"messages": messages, **_tools(example), **_weight(example)}


def decode_chat(row: Mapping[str, JsonValue]) -> Example:
    """Decode a row for supervised tuning."""
    if "messages" not in row:
        raise UnrepresentableRow("the row has no 'messages'")
    return example_of({**row, "messages": _named_reasoning(row["messages"])}, encode_chat)


def encode_dpo(example: Example) -> WireRow:
    """Encode a pair of answers."""
    worse = is_pair(example)
    *prompt, preferred = example.messages
    if prompt[-1].role == "assistant":
        raise UnrepresentableRow("the message before the two answers is also from 'assistant'")
    return {
        "input": {"messages": _messages(prompt), **_tools(example)},
        "preferred_output": [_output("preferred_output", preferred)],
        "non_preferred_output": [_output("non_preferred_output", worse)],
        **_weight(example),
    }


def decode_dpo(row: Mapping[str, JsonValue]) -> Example:
    """Decode a pair of answers."""
    outputs = {key: _named_reasoning(row[key]) for key in OUTPUTS if key in row}
    return example_of({"non_preferred_output": None, **row, **outputs}, encode_dpo)


def _named_reasoning(messages: JsonValue) -> JsonValue:
    """Return messages whose `reasoning` has the canonical name."""
    if not isinstance(messages, list):
        return messages
    return [
        {"reasoning_content" if key == "reasoning" else key: value for key, value in turn.items()}
        if isinstance(turn, dict) and "reasoning_content" not in turn
        else turn
        for turn in messages
    ]


def _weight(example: Example) -> WireRow:
    return {} if example.weight == 1 else {"weight": example.weight}


def _messages(messages: Sequence[Message]) -> list[JsonValue]:
    first = messages[0].role
    if first not in ("system", "user"):
        raise UnrepresentableRow(
            f"the first message is from {first!r}, but it must be from 'system' or 'user'"
        )
    for (_, before), (where, turn) in pairwise(with_paths(messages)):
        if turn.role == "system":
            raise UnrepresentableRow(
                f"{where} is from 'system', which is allowed only at the beginning"
            )
        if turn.role == before.role != "tool":
            raise UnrepresentableRow(
                f"{where} is from {turn.role!r} like the message before; roles must alternate"
            )
    rows = [_turn(where, turn) for where, turn in with_paths(messages)]
    if any(turn.images for turn in messages):  # then all messages of a row must have parts
        for row in rows:
            if isinstance(text := row.get("content"), str):
                row["content"] = [{"type": "text", "text": text}]
    return [*rows]


def _turn(where: str, turn: Message) -> dict[str, JsonValue]:
    if turn.role == "developer":
        raise UnrepresentableRow(
            f"{where} is from 'developer', which is unknown there; use 'system'"
        )
    no_name(where, turn)
    check_turn(where, turn)
    list(called_functions(where, turn))  # checks that arguments are objects
    row = turn.row
    for image in turn.images:
        embedded(where, image)
    if turn.images:
        row["content"] = [
            {"type": "text", "text": piece} if isinstance(piece, str) else image_part(piece.url)
            for piece in turn.pieces
        ]
    elif turn.content is not None:
        row["content"] = single_text(where, turn)
    return row


def _output(where: str, turn: Message) -> dict[str, JsonValue]:
    weighs_as_usual(where, turn)
    if turn.content is None:
        raise UnrepresentableRow(f"{where} has no content")
    return {key: value for key, value in _turn(where, turn).items() if key != "weight"}


def _tools(example: Example) -> dict[str, JsonValue]:
    if example.tools is None:
        return {}
    if not example.tools:
        raise UnrepresentableRow("tools is an empty list")
    check_tools(example.tools)
    return {"tools": list(example.tools)}


CHAT = Format(
    "together-chat",
    "Together conversations, for supervised tuning",
    encode_chat,
    decode_chat,
    reasoning=True,
)
DPO = Format(
    "together-dpo",
    "Together pairs of a better and a worse answer",
    encode_dpo,
    decode_dpo,
    reasoning=True,
)
