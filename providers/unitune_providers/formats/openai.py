"""Convert rows of OpenAI's fine-tuning files, also used by Azure, Mantle, Fireworks and Nebius.

They are canonical rows without the keys that OpenAI's file check refuses ("contains an extra …").
Rows keep their tools, message weights (chat) and `parallel_tool_calls`. Only reinforcement rows
keep custom keys, which graders read as ``item.KEY``; a row's `scorers` are never sent.

Source: openai/openai-openapi, openapi.json 2.3.0 (2026-08-21), FineTuneChatCompletionRequest… and
ChatCompletionRequest… messages; microsoft/azure-skills, dataset-formats.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from pydantic import JsonValue

from unitune.backends.formats import Format, UnrepresentableRow, WireRow
from unitune.data.example import TRIPLE, Example, Message
from unitune.scorers.row_scorers import KEY
from unitune_providers.formats.checks import (
    embedded,
    example_of,
    is_answered,
    is_pair,
    is_question,
    known_keys,
    object_of,
    pieces,
    require_unit_weight,
    text_of,
    weighs_as_usual,
    with_paths,
)

PARALLEL = "parallel_tool_calls"
# Source: FunctionObject.name in the description above
FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def encode_chat(example: Example) -> WireRow:
    """Encode a row for supervised tuning."""
    is_answered(example)
    return {"messages": _messages(example.messages), **_tools(example)}


def decode_chat(row: Mapping[str, JsonValue]) -> Example:
    """Decode a row for supervised tuning."""
    known_keys("the row", row, ("messages", "tools", PARALLEL))
    return example_of(row, encode_chat)


def encode_dpo(example: Example) -> WireRow:
    """Encode a pair of answers."""
    worse = is_pair(example)
    require_unit_weight(example)
    *prompt, preferred = example.messages
    return {
        "input": {"messages": _messages(prompt), **_tools(example)},
        "preferred_output": [unweighted("preferred_output", preferred)],
        "non_preferred_output": [unweighted("non_preferred_output", worse)],
    }


def decode_dpo(row: Mapping[str, JsonValue]) -> Example:
    """Decode a pair of answers."""
    known_keys("the row", row, ("input", "preferred_output", "non_preferred_output"))
    return example_of({"non_preferred_output": None, **row}, encode_dpo)


def encode_rft(example: Example) -> WireRow:
    """Encode a prompt with the keys for its grader."""
    is_question(example)
    require_unit_weight(example)
    row = {key: value for key, value in example.content.items() if key != KEY}
    row["messages"] = [unweighted(*each) for each in with_paths(example.messages)]
    return {**row, **_tools(example)}


def decode_rft(row: Mapping[str, JsonValue]) -> Example:
    """Decode a prompt with the keys for its grader."""
    if "weight" in row:
        raise UnrepresentableRow(
            "the row has the key 'weight', which would be read as the row's own weight"
        )
    return example_of(row, encode_rft)


def check_turn(where: str, turn: Message) -> None:
    """Refuse a turn that OpenAI's messages cannot represent."""
    if turn.tool_calls is not None and turn.role != "assistant":
        raise UnrepresentableRow(f"{where} has tool_calls, but only the assistant may call tools")
    if (turn.tool_call_id is None) == (turn.role == "tool"):
        raise UnrepresentableRow(
            f"{where} is from {turn.role!r} and has {'no ' if turn.role == 'tool' else ''}"
            "tool_call_id, which is required in tool messages and not allowed in others"
        )
    if turn.tool_calls is None or turn.content is not None:
        pieces(where, turn)
    for index, call in enumerate(turn.tool_calls or ()):
        check_call(f"{where}.tool_calls[{index}]", call)
    if turn.tool_calls is not None and not turn.tool_calls:
        raise UnrepresentableRow(f"{where}.tool_calls is an empty list")


def check_call(where: str, call: dict[str, JsonValue], *, needs_id: bool = True) -> None:
    """Refuse an invalid call, ``{"id", "type": "function", "function": {"name", "arguments"}}``."""
    known_keys(where, call, ("id", "type", "function"))
    if needs_id or "id" in call:
        text_of(f"{where}.id", call.get("id"))
    if call.get("type") != "function":
        raise UnrepresentableRow(f"{where}.type is not 'function'")
    function = object_of(f"{where}.function", call.get("function"))
    known_keys(f"{where}.function", function, ("name", "arguments"))
    text_of(f"{where}.function.name", function.get("name"))
    text_of(f"{where}.function.arguments", function.get("arguments"))


def check_tools(
    tools: Sequence[dict[str, JsonValue]],
    known: Collection[str] = ("name", "description", "parameters", "strict"),
    named: re.Pattern[str] = FUNCTION_NAME,
) -> None:
    """Refuse invalid tools; functions have the keys `known` and names that match `named`."""
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        known_keys(where, tool, ("type", "function"))
        if tool.get("type") != "function":
            raise UnrepresentableRow(f"{where}.type is not 'function'")
        function = object_of(f"{where}.function", tool.get("function"))
        known_keys(f"{where}.function", function, known)
        name = text_of(f"{where}.function.name", function.get("name"))
        if not named.fullmatch(name):
            raise UnrepresentableRow(
                f"{where}.function.name is {name!r}; it must match {named.pattern}"
            )


def unweighted(where: str, turn: Message) -> dict[str, JsonValue]:
    """Return a turn without its weight, which must be the default."""
    weighs_as_usual(where, turn)
    return {key: value for key, value in _turn(where, turn).items() if key != "weight"}


def _turn(where: str, turn: Message) -> dict[str, JsonValue]:
    check_turn(where, turn)
    if turn.name is not None and turn.role == "tool":
        raise UnrepresentableRow(f"{where} has a name, which is not allowed in tool messages")
    for image in turn.images:
        embedded(where, image, "https")
    return turn.row


def _messages(messages: Sequence[Message]) -> list[JsonValue]:
    return [
        _turn(where, turn) if turn.role == "assistant" else unweighted(where, turn)
        for where, turn in with_paths(messages)
    ]


def _tools(example: Example) -> dict[str, JsonValue]:
    check_tools(example.tools or ())
    made: dict[str, JsonValue] = {}
    if example.tools is not None:
        made["tools"] = list(example.tools)
    if PARALLEL in (example.model_extra or {}):
        made[PARALLEL] = (example.model_extra or {})[PARALLEL]
        if not isinstance(made[PARALLEL], bool):
            raise UnrepresentableRow(f"{PARALLEL} is neither true nor false")
    return made


CHAT = Format(
    "openai-chat",
    "OpenAI chat messages, for supervised tuning",
    encode_chat,
    decode_chat,
    ("messages", "tools", PARALLEL),
)
# docs.fireworks.ai/updates/changelog, 2025-08-22: thinking traces under reasoning_content
FIREWORKS_CHAT = replace(
    CHAT,
    name="fireworks-chat",
    summary="Fireworks chat messages with reasoning, for supervised tuning",
    reasoning=True,
)
DPO = Format(
    "openai-dpo",
    "OpenAI pairs of a better and a worse answer",
    encode_dpo,
    decode_dpo,
    TRIPLE,
)
RFT = Format(
    "openai-rft",
    "OpenAI questions with their graders' keys, for reinforcement",
    encode_rft,
    decode_rft,
)
