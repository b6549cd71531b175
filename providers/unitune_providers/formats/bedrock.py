"""Rows of Bedrock's fine-tuning files: Nova's conversations, and pairs of prompt and completion.

Nova takes Converse messages of text: the user first, the assistant last, in turns, with a system
prompt or without, and no tools (Nova 2 may fail on them). Its reserved words make a job fail when
they stand in a prompt. Other text models take pairs; a pair has one user turn and no system prompt,
because a text that joined the two could not be taken apart again.

Source: docs.aws.amazon.com/nova/latest/userguide/fine-tune-prepare-data-understanding.html;
docs.aws.amazon.com/bedrock/latest/userguide: nova-2-sft-data-prep, preparing-text-data (2026).
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from unitune.backends.formats import Format, UnrepresentableRow, WireRow
from unitune.data.example import Example, Message
from unitune_providers.formats.checks import (
    example_of,
    is_answered,
    is_plain,
    joined,
    known_keys,
    objects,
    only_text,
    single_text,
    text_of,
    texts,
    with_paths,
)

SCHEMA = "bedrock-conversation-2024"
# Words that fail a job wherever they stand in a prompt of user or system
RESERVED = ("User:", "Bot:", "Assistant:", "System:", "<image>", "<video>", "[EOS]")


def encode_nova(example: Example) -> WireRow:
    """Write a conversation."""
    _text_row(example)
    turns = with_paths(example.messages)
    row: WireRow = {"schemaVersion": SCHEMA}
    if example.messages[0].role == "system":
        row["system"] = _blocks(*turns.pop(0))
    for position, (where, turn) in enumerate(turns):
        wanted = "assistant" if position % 2 else "user"
        if turn.role != wanted:
            raise UnrepresentableRow(
                f"{where} is from {turn.role!r} where {wanted!r} must speak: the user begins, "
                "after a system prompt at most, and they take turns"
            )
    row["messages"] = [
        {"role": turn.role, "content": _blocks(where, turn)} for where, turn in turns
    ]
    return row


def decode_nova(row: Mapping[str, JsonValue]) -> Example:
    """Read a conversation."""
    known_keys("the row", row, ("schemaVersion", "system", "messages"))
    text_of("schemaVersion", row.get("schemaVersion"))
    messages: list[JsonValue] = []
    if "system" in row:
        system = joined("system", objects("system", row["system"]))
        messages.append({"role": "system", "content": system})
    for index, turn in enumerate(objects("messages", row.get("messages"))):
        known_keys(f"messages[{index}]", turn, ("role", "content"))
        where = f"messages[{index}].content"
        content = joined(where, objects(where, turn.get("content")))
        messages.append({"role": turn.get("role"), "content": content})
    return example_of({"messages": messages}, encode_nova)


def encode_prompt(example: Example) -> WireRow:
    """Write a prompt and its completion."""
    _text_row(example)
    roles = [turn.role for turn in example.messages]
    if roles != ["user", "assistant"]:
        raise UnrepresentableRow(
            f"the row's messages are from {', '.join(roles)}, and a pair of prompt and completion "
            "has one from user and one from assistant; put a system prompt into the user's"
        )
    prompt, completion = (single_text(*each) for each in with_paths(example.messages))
    return {"prompt": prompt, "completion": completion}


def decode_prompt(row: Mapping[str, JsonValue]) -> Example:
    """Read a prompt and its completion."""
    known_keys("the row", row, ("prompt", "completion"))
    messages: list[JsonValue] = [
        {"role": "user", "content": text_of("prompt", row.get("prompt"))},
        {"role": "assistant", "content": text_of("completion", row.get("completion"))},
    ]
    return example_of({"messages": messages}, encode_prompt)


def _text_row(example: Example) -> None:
    """Refuse a row that is no answered conversation of plain text."""
    is_answered(example)
    if example.tools is not None:
        raise UnrepresentableRow("the row has tools, and tools are not allowed there")
    for where, turn in with_paths(example.messages):
        is_plain(where, turn)
        only_text(where, turn)


def _blocks(where: str, turn: Message) -> list[JsonValue]:
    content = texts(where, turn)
    for word in RESERVED if turn.role != "assistant" else ():
        if word in turn.text:
            raise UnrepresentableRow(
                f"{where} has {word!r} in it, a word that Nova reserves; write it in another way"
            )
    return [{"text": text} for text in content]


NOVA = Format(
    "bedrock-nova",
    "Nova conversations on Bedrock",
    encode_nova,
    decode_nova,
    ("schemaVersion", "system", "messages"),
    lambda row: "schemaVersion" in row,
)
PROMPT = Format(
    "bedrock-prompt",
    "Bedrock pairs of a prompt and its completion",
    encode_prompt,
    decode_prompt,
    ("prompt", "completion"),
)
