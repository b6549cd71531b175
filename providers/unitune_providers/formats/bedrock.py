"""Convert rows of Bedrock's fine-tuning files: Nova's conversations and prompt-completion pairs.

Nova accepts Converse messages of text and images, alternating from user to assistant, with an
optional system prompt and without tools (Nova 2 may fail on them). The upload replaces an image's
bytes by its place in S3, because Nova trains only on images there. Its reserved words make a job
fail if a prompt contains them. Other text models accept pairs of one user turn and its answer,
without a system prompt, because a joined text could not be split again.

Source: docs.aws.amazon.com/nova/latest/userguide/fine-tune-prepare-data-understanding.html;
docs.aws.amazon.com/bedrock/latest/userguide: nova-2-sft-data-prep, preparing-text-data (2026).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pydantic import JsonValue

from unitune.backends.formats import Format, UnrepresentableRow, WireRow
from unitune.data.example import Example, Message
from unitune.data.images import ImageUrl
from unitune_providers.formats.checks import (
    embedded,
    example_of,
    is_answered,
    is_plain,
    joined,
    known_keys,
    object_of,
    objects,
    only_text,
    pieces,
    single_text,
    text_of,
    with_paths,
)

SCHEMA = "bedrock-conversation-2024"
# Source: docs.aws.amazon.com, Amazon Nova user guide, Multimodal support; botocore, ImageFormat
IMAGES = ("jpeg", "png", "gif", "webp")
# Words that make a job fail anywhere in a prompt of user or system
RESERVED = ("User:", "Bot:", "Assistant:", "System:", "<image>", "<video>", "[EOS]")


def encode_nova(example: Example) -> WireRow:
    """Encode a conversation."""
    _text_row(example)
    turns = with_paths(example.messages)
    row: WireRow = {"schemaVersion": SCHEMA}
    if example.messages[0].role == "system":
        row["system"] = _blocks(*turns.pop(0))
    for position, (where, turn) in enumerate(turns):
        wanted = "assistant" if position % 2 else "user"
        if turn.role != wanted:
            raise UnrepresentableRow(
                f"{where} is from {turn.role!r} instead of {wanted!r}: after an optional system "
                "prompt, user and assistant must alternate, the user first"
            )
    row["messages"] = [
        {"role": turn.role, "content": _blocks(where, turn)} for where, turn in turns
    ]
    return row


def decode_nova(row: Mapping[str, JsonValue]) -> Example:
    """Decode a conversation."""
    known_keys("the row", row, ("schemaVersion", "system", "messages"))
    text_of("schemaVersion", row.get("schemaVersion"))
    messages: list[JsonValue] = []
    if "system" in row:
        system = joined("system", objects("system", row["system"]))
        messages.append({"role": "system", "content": system})
    for index, turn in enumerate(objects("messages", row.get("messages"))):
        known_keys(f"messages[{index}]", turn, ("role", "content"))
        where = f"messages[{index}].content"
        content = joined(where, objects(where, turn.get("content")), image=_image)
        messages.append({"role": turn.get("role"), "content": content})
    return example_of({"messages": messages}, encode_nova)


def encode_prompt(example: Example) -> WireRow:
    """Encode a prompt and its completion."""
    _text_row(example)
    roles = [turn.role for turn in example.messages]
    if roles != ["user", "assistant"]:
        raise UnrepresentableRow(
            f"the row's messages are from {', '.join(roles)}, but a prompt-completion pair needs "
            "one from user and one from assistant; move a system prompt into the user's message"
        )
    prompt, completion = (single_text(*each) for each in with_paths(example.messages))
    return {"prompt": prompt, "completion": completion}


def decode_prompt(row: Mapping[str, JsonValue]) -> Example:
    """Decode a prompt and its completion."""
    known_keys("the row", row, ("prompt", "completion"))
    messages: list[JsonValue] = [
        {"role": "user", "content": text_of("prompt", row.get("prompt"))},
        {"role": "assistant", "content": text_of("completion", row.get("completion"))},
    ]
    return example_of({"messages": messages}, encode_prompt)


def _text_row(example: Example) -> None:
    is_answered(example)
    if example.tools is not None:
        raise UnrepresentableRow("the row has tools, which are not allowed there")
    for where, turn in with_paths(example.messages):
        is_plain(where, turn)
        only_text(where, turn)


def _blocks(where: str, turn: Message) -> list[JsonValue]:
    content = pieces(where, turn)
    for word in RESERVED if turn.role != "assistant" else ():
        if word in turn.text:
            raise UnrepresentableRow(
                f"{where} contains {word!r}, which is reserved by Nova; reword it"
            )
    return [
        {"text": each} if isinstance(each, str) else image_block(where, each) for each in content
    ]


def image_block(where: str, image: ImageUrl) -> JsonValue:
    """Return an image as a block of Converse, with its bytes in base64 or its place in S3."""
    if found := embedded(where, image, "s3"):
        kind, source = found.media_type, {"bytes": image.url.partition(",")[2]}
    else:
        ending = image.url.rpartition(".")[2].lower()
        kind, source = f"image/{ending}", {"s3Location": {"uri": image.url}}
    name = kind.removeprefix("image/").replace("jpg", "jpeg")
    if name not in IMAGES:
        raise UnrepresentableRow(
            f"{where} has the image {image.url[:80]!r}; the type must be one of {', '.join(IMAGES)}"
        )
    return {"image": {"format": name, "source": cast("JsonValue", source)}}


def _image(where: str, block: WireRow) -> str | None:
    if "image" not in block:
        return None
    image = object_of(f"{where}.image", block["image"])
    source = object_of(f"{where}.image.source", image.get("source"))
    if "bytes" in source:
        data = text_of(f"{where}.image.source.bytes", source["bytes"])
        return f"data:image/{text_of(f'{where}.format', image.get('format'))};base64,{data}"
    place = object_of(f"{where}.image.source.s3Location", source.get("s3Location"))
    return text_of(f"{where}.image.source.s3Location.uri", place.get("uri"))


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
