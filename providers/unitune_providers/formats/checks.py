"""Check canonical rows before they are encoded, and decode them.

Each check raises `UnrepresentableRow` with the position in the row. Three details may be lost: the
default weight of a turn (1 for assistants, 0 for others), a content list of a single text, and the
`detail` of an image. `id`, `expected` and custom keys are for evaluation; formats drop
them, except for reinforcement, where graders read them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from pydantic import JsonValue, ValidationError

from unitune.backends.formats import UnrepresentableRow, WireRow
from unitune.data.example import Example, Message, explain
from unitune.data.images import BadImage, Image, ImageUrl
from unitune.data.preferences import preference
from unitune.data.records import BadRow, strict_json
from unitune.findings import Finding
from unitune.text import listed

# Keys of a canonical row that graders do not use as references
CONVERSATION = ("messages", "tools", "weight")


def require_unit_weight(example: Example) -> None:
    """Refuse a row whose weight is not 1."""
    if example.weight != 1:
        raise UnrepresentableRow(
            f"the row has the weight {example.weight:g}, but all rows have the same weight there"
        )


def is_answered(example: Example, *, weighted: bool = False) -> None:
    """Refuse preferences, rows without an answer, and row weights unless `weighted`."""
    if example.non_preferred_output is not None:
        raise UnrepresentableRow(
            "the row is a preference, whose worse answer cannot be represented"
        )
    last = example.messages[-1].role
    if last != "assistant":
        expected = (
            ""
            if example.expected is None
            else "; `expected` is used for evaluation, not for training"
        )
        raise UnrepresentableRow(
            f"the last message is from {last!r}, but the row must end with an answer from "
            f"'assistant'{expected}"
        )
    if not weighted:
        require_unit_weight(example)


def is_question(example: Example) -> None:
    """Refuse a row with an answer, because reinforcement samples its own."""
    if example.non_preferred_output is not None:
        raise UnrepresentableRow("the row is a preference, whose answers cannot be represented")
    last = example.messages[-1].role
    if last != "user":
        raise UnrepresentableRow(
            f"the last message is from {last!r}, but the row must end with the user's message; "
            "write the answer as `expected`, which graders read as item.expected"
        )


def is_pair(example: Example) -> Message:
    """Return the worse answer, or refuse a row without a valid preference."""
    if example.non_preferred_output is None:
        raise UnrepresentableRow("the row has no worse answer (`non_preferred_output`)")
    if not example.prompt:
        raise UnrepresentableRow("the two answers have no question before them")
    try:
        preference(example.content)
    except BadRow as problem:
        raise refusal(problem.findings[0]) from None
    return example.non_preferred_output[0]


def is_plain(where: str, turn: Message) -> None:
    """Refuse a turn with an unusual weight or a name."""
    weighs_as_usual(where, turn)
    no_name(where, turn)


def weighs_as_usual(where: str, turn: Message) -> None:
    """Refuse a weight that differs from the default of the role."""
    usual = 1 if turn.role == "assistant" else 0
    if turn.weight not in (None, usual):
        raise UnrepresentableRow(
            f"{where} has the weight {turn.weight}, but weights are not allowed there"
        )


def no_name(where: str, turn: Message) -> None:
    """Refuse a turn with a name."""
    if turn.name is not None:
        raise UnrepresentableRow(
            f"{where} has the name {turn.name!r}, but names are not allowed there"
        )


def only_text(where: str, turn: Message) -> None:
    """Refuse a turn that calls or answers a tool."""
    if turn.role == "tool" or turn.tool_calls is not None or turn.tool_call_id is not None:
        raise UnrepresentableRow(
            f"{where} calls or answers a tool, but tools are not allowed there"
        )


def written_system(where: str, turn: Message) -> tuple[str, Message]:
    """Return a system prompt, or refuse an empty one, which would be lost."""
    if not turn.text:
        raise UnrepresentableRow(f"{where} is an empty system prompt, which would be lost")
    return where, turn


def pieces(where: str, turn: Message) -> list[str | ImageUrl]:
    """Return the content of a turn as a list with each text and image."""
    if turn.content is None:
        raise UnrepresentableRow(f"{where} has no content")
    if not turn.pieces:
        raise UnrepresentableRow(f"{where}.content is an empty list")
    if turn.images and turn.role != "user":
        raise UnrepresentableRow(
            f"{where} is from {turn.role!r} and has an image; only messages from 'user' may"
        )
    return [*turn.pieces]


def texts(where: str, turn: Message) -> list[str]:
    """Return the content of a turn as a list with the text of each part."""
    given = pieces(where, turn)
    if turn.images:
        raise UnrepresentableRow(f"{where} has an image, but only text is allowed there")
    return [part for part in given if isinstance(part, str)]


def embedded(where: str, image: ImageUrl, *schemes: str) -> Image | None:
    """Return an embedded image's header, or None for a reference with an allowed scheme."""
    if image.scheme in schemes:
        return None
    if image.scheme != "data":
        allowed = (
            f" and {listed([f'{scheme}: addresses' for scheme in schemes])}" if schemes else ""
        )
        raise UnrepresentableRow(
            f"{where} has the image {image.url[:80]!r}; only embedded images (local files, data: "
            f"URIs){allowed} are allowed there"
        )
    try:
        return image.image
    except BadImage as problem:
        raise UnrepresentableRow(f"the image in {where} {problem}") from None


def image_part(url: str) -> JsonValue:
    """Return a canonical image part."""
    return {"type": "image_url", "image_url": {"url": url}}


def single_text(where: str, turn: Message) -> str:
    """Return the content of a turn, which must be one text."""
    given = texts(where, turn)
    if len(given) > 1:
        raise UnrepresentableRow(
            f"{where}.content has {len(given)} parts, but only one text is allowed there"
        )
    return given[0]


def with_paths(messages: Collection[Message]) -> list[tuple[str, Message]]:
    """Return messages with their paths in a row: ``messages[0]``."""
    return [(f"messages[{index}]", turn) for index, turn in enumerate(messages)]


def json_object(where: str, text: str) -> dict[str, JsonValue]:
    """Parse a text that must be one JSON object, without losing information."""
    try:
        value, repeated = strict_json(text)
    except (ValueError, RecursionError) as error:
        raise UnrepresentableRow(f"{where} is not valid JSON ({error})") from None
    if repeated:
        raise UnrepresentableRow(f"{where} has the key {repeated[0]!r} twice in one object")
    if not isinstance(value, dict):
        raise UnrepresentableRow(f"{where} is not a JSON object")
    return value


def called_functions(where: str, turn: Message) -> Iterator[tuple[JsonValue, WireRow]]:
    """Yield the id and the function of each call of a turn, with arguments as an object."""
    for index, call in enumerate(turn.tool_calls or ()):
        function = call["function"]
        assert isinstance(function, dict), "checked by check_turn"
        place = f"{where}.tool_calls[{index}].function.arguments"
        arguments = json_object(place, str(function["arguments"]))
        yield call["id"], {"name": function["name"], "arguments": arguments}


def known_keys(where: str, row: Mapping[str, JsonValue], known: Collection[str]) -> None:
    """Refuse a vendor's object with unknown keys."""
    for key in row:
        if key not in known:
            raise UnrepresentableRow(
                f"{where} has the unknown key {key!r}; allowed: {', '.join(known)}"
            )


def objects(where: str, value: JsonValue) -> list[dict[str, JsonValue]]:
    """Return a value that must be a list of objects."""
    if not isinstance(value, list):
        raise UnrepresentableRow(f"{where} is not a list")
    return [object_of(f"{where}[{index}]", item) for index, item in enumerate(value)]


def object_of(where: str, value: JsonValue) -> dict[str, JsonValue]:
    """Return a value that must be an object."""
    if not isinstance(value, dict):
        raise UnrepresentableRow(f"{where} is not an object")
    return value


def text_of(where: str, value: JsonValue) -> str:
    """Return a value that must be a text."""
    if not isinstance(value, str):
        raise UnrepresentableRow(f"{where} is not text")
    return value


def joined(
    where: str,
    blocks: list[WireRow],
    known: Collection[str] = ("text",),
    image: Callable[[str, WireRow], str | None] | None = None,
) -> JsonValue:
    """Convert blocks to content: one text, or a list of texts and images.

    `image` returns the address of the image in a block, or None if the block is a text.
    """
    content: list[JsonValue] = []
    for index, block in enumerate(blocks):
        if image and (url := image(f"{where}[{index}]", block)):
            content.append(image_part(url))
            continue
        known_keys(f"{where}[{index}]", block, known)
        text = text_of(f"{where}[{index}].text", block.get("text"))
        if len(blocks) == 1:
            return text
        content.append({"type": "text", "text": text})
    return content


def example_of(row: Mapping[str, JsonValue], encode: Callable[[Example], WireRow]) -> Example:
    """Return the example with these canonical keys, if the format can encode it."""
    content = dict(row)
    try:
        if "non_preferred_output" in content:
            preference(content)
        example = Example.model_validate(content)
    except BadRow as problem:
        raise refusal(problem.findings[0]) from None
    except ValidationError as failure:
        raise refusal(explain(failure, content)[0]) from None
    encode(example)
    return example


def refusal(finding: Finding) -> UnrepresentableRow:
    """Convert a finding to an `UnrepresentableRow`."""
    return UnrepresentableRow(finding.message.partition(" Did you mean")[0].removesuffix("."))
