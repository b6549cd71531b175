"""Define the canonical row: OpenAI chat messages, or OpenAI's preference triple.

Unknown keys are kept for graders. A preferred output is the last of `messages`.
Pydantic's errors about a record become findings that name the place in the row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from unitune.data.images import ImagePart, ImageUrl
from unitune.data.records import json_or_none
from unitune.errors import nearest
from unitune.files.validation import Location, by_location, dotted, own_text, wanted
from unitune.findings import Finding, error
from unitune.text import clip

ROLES = ("system", "developer", "user", "assistant", "tool")
TRIPLE = ("input", "preferred_output", "non_preferred_output")


def _refuse_flag(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a weight is a number, not true or false")  # noqa: TRY004 - pydantic's
    return value


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TextPart:
    """A text part of a message."""

    type: Literal["text"]
    text: str


Part = Annotated[TextPart | ImagePart, Discriminator("type")]


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Message:
    """One turn of a conversation; a dataclass takes 89 bytes, a pydantic model 577."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[Part, ...] | None = None
    name: str | None = None
    tool_calls: tuple[dict[str, JsonValue], ...] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    """Reasoning before the answer, in assistant turns."""
    weight: Literal[0, 1] | None = None
    """Weight of an assistant turn; 0 keeps it out of the loss."""

    _weight_is_a_number = field_validator("weight", mode="before")(_refuse_flag)

    @property
    def text(self) -> str:
        """The texts of the content as one string."""
        return self._written(lambda _: "")

    @property
    def shown(self) -> str:
        """The content for people: images as ``[image: cat.png, 640x480]``."""
        return self._written(lambda image: f" {image} ").strip() if self.images else self.text

    @property
    def key(self) -> str:
        """The content for comparison: images as their hash."""
        return self._written(lambda image: f"[{image.key}]")

    @property
    def pieces(self) -> tuple[str | ImageUrl, ...]:
        """The texts and images of the content, in order."""
        if isinstance(self.content, str):
            return (self.content,)
        return tuple(
            part.text if isinstance(part, TextPart) else part.image_url
            for part in self.content or ()
        )

    @property
    def images(self) -> tuple[ImageUrl, ...]:
        """The images of the content."""
        return tuple(piece for piece in self.pieces if isinstance(piece, ImageUrl))

    def _written(self, write: Callable[[ImageUrl], str]) -> str:
        return "".join(each if isinstance(each, str) else write(each) for each in self.pieces)

    @property
    def row(self) -> dict[str, JsonValue]:
        """The turn as JSON values, without defaults."""
        return without_image_names(_MESSAGE.dump_python(self, mode="json", exclude_defaults=True))

    @property
    def wire(self) -> dict[str, JsonValue]:
        """The turn as sent in requests: `row` without weight and reasoning."""
        return {
            key: value
            for key, value in self.row.items()
            if key not in ("weight", "reasoning_content")
        }


def without_image_names(value: Any) -> Any:
    """Return JSON values without the names of images, which say nothing about the content."""
    if isinstance(value, list):
        return [without_image_names(each) for each in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    row = cast("dict[str, Any]", value)
    if row.get("type") == "image_url" and isinstance(image := row.get("image_url"), dict):
        image = cast("dict[str, Any]", image)
        return {**row, "image_url": {key: image[key] for key in image if key != "name"}}
    return {key: without_image_names(each) for key, each in row.items()}


_MESSAGE = TypeAdapter(Message)
MESSAGES = TypeAdapter(tuple[Message, ...])


class Example(BaseModel):
    """One row: a conversation whose last assistant turn is the answer."""

    model_config = ConfigDict(frozen=True, extra="allow")
    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    tools: tuple[dict[str, JsonValue], ...] | None = None
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the row in the loss."""
    id: Annotated[str, Field(coerce_numbers_to_str=True)] | None = None
    """Name of the row as a test case; derived from the content if absent."""
    expected: str | None = None
    """Expected answer, if it is not the last assistant turn."""
    required: bool = False
    """True if every candidate must get this case right to pass the gate."""
    non_preferred_output: (
        Annotated[tuple[Message, ...], Field(min_length=1, max_length=1)] | None
    ) = None
    """Answer that is worse than the last of `messages`, in a preference row."""

    kto_tag: bool | None = None
    """True if the answer is good, in a rated row (LLaMA-Factory's key)."""

    _weight_is_a_number = field_validator("weight", mode="before")(_refuse_flag)

    @model_validator(mode="before")
    @classmethod
    def _from_triple(cls, value: Any) -> Any:
        """Convert a triple to the fields of an Example; keep any other row."""
        if not isinstance(value, dict):
            return value
        row = cast("dict[str, Any]", value)
        if "messages" in row or not isinstance(row.get("input"), dict):
            return row
        inner, rest = dict(cast("dict[str, Any]", row["input"])), dict(row)
        rest.pop("input")
        turns = inner.pop("messages", None), rest.pop("preferred_output", None)
        if not all(isinstance(some, list | tuple) for some in turns):
            return row
        return {**inner, **rest, "messages": [turn for some in turns for turn in some or ()]}

    @model_validator(mode="after")
    def _system_is_a_message(self) -> Self:
        if "system" in (self.model_extra or {}):
            raise ValueError("'system' is not a custom key; make it the first message")
        return self

    @model_validator(mode="after")
    def _has_a_preferred_output(self) -> Self:
        if self.non_preferred_output is None:
            return self
        if self.messages[-1].role != "assistant":
            raise ValueError("the last message must be the preferred output, from the assistant")
        if taken := [key for key in TRIPLE if key in (self.model_extra or {})]:
            raise ValueError(f"{taken[0]!r} cannot be a custom key in a preference row")
        return self

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages before the answer."""
        last = self.messages[-1]
        return self.messages[:-1] if last.role == "assistant" else self.messages

    @property
    def answer(self) -> str | None:
        """The expected answer, or None."""
        last = self.messages[-1]
        if self.expected is not None:
            return self.expected
        return last.text if last.role == "assistant" else None

    @property
    def content(self) -> dict[str, JsonValue]:
        """The row as JSON values without defaults; a preference row as its triple."""
        flat: dict[str, JsonValue] = self.model_dump(mode="json", exclude_defaults=True)
        if self.non_preferred_output is None:
            return flat
        *prompt, preferred = cast("list[JsonValue]", flat.pop("messages"))
        tools = {"tools": flat.pop("tools")} if "tools" in flat else {}
        worse = flat.pop("non_preferred_output")
        return {
            "input": {"messages": prompt, **tools},
            "preferred_output": [preferred],
            "non_preferred_output": worse,
            **flat,
        }

    @property
    def images(self) -> tuple[ImageUrl, ...]:
        """The images of all messages."""
        return tuple(image for turn in self.messages for image in turn.images)

    @property
    def identity(self) -> dict[str, JsonValue]:
        """The `content` without the names of images."""
        return without_image_names(self.content) if self.images else self.content

    @property
    def scoring_keys(self) -> tuple[str, ...]:
        """Keys next to the conversation, for scoring and graders; never trained on."""
        judging = [key for key in ("id", "expected") if getattr(self, key) is not None]
        return (*judging, *(["required"] if self.required else ()), *(self.model_extra or ()))

    @property
    def line(self) -> str:
        """The row as canonical JSON without a line break."""
        if self.non_preferred_output is None:
            return self.model_dump_json(exclude_defaults=True)
        return json.dumps(self.content, ensure_ascii=False, separators=(",", ":"))

    @property
    def input_key(self) -> str:
        """Hash of the model's input with system prompt and tools.

        Content in one string or in parts, weights and ids of tool calls make no difference.
        """
        turns = [[turn.role, turn.key, turn.name, called(turn.tool_calls)] for turn in self.prompt]
        return digest([turns, self.tools])

    @property
    def case_id(self) -> str:
        """The row's `id`, or 12 hex digits of its content's hash without `required`."""
        return self.id or digest(_without(self.identity, "required"))[:12]

    @property
    def case_hash(self) -> str:
        """Hash of everything that a score may depend on: input, expected answer, custom keys."""
        return digest(_without(self.identity, "id", "required", "weight"))


def _without(content: dict[str, JsonValue], *keys: str) -> dict[str, JsonValue]:
    return {key: value for key, value in content.items() if key not in keys}


_CANONICAL = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str
)


def called(calls: Iterable[Mapping[str, JsonValue]] | None) -> list[str]:
    """Return the called functions and arguments in canonical JSON, without ids."""
    functions = [call.get("function") for call in calls or ()]
    return [
        _CANONICAL.encode({**each, "arguments": _value_of(each.get("arguments"))})
        for each in functions
        if isinstance(each, dict)
    ]


def _value_of(arguments: JsonValue) -> JsonValue:
    value = json_or_none(arguments) if isinstance(arguments, str) else arguments
    return arguments if value is None else value


def digest(value: JsonValue | Sequence[object]) -> str:
    """Return the SHA-256 of a value's canonical JSON in hex."""
    return hashlib.sha256(_CANONICAL.encode(value).encode("utf-8", "surrogatepass")).hexdigest()


def digest_all(values: Iterable[JsonValue]) -> str:
    """Return the `digest` of a list of values, consumed one by one."""
    hashed = hashlib.sha256(b"[")
    for at, value in enumerate(values):
        comma = "," if at else ""
        hashed.update((comma + _CANONICAL.encode(value)).encode("utf-8", "surrogatepass"))
    hashed.update(b"]")
    return hashed.hexdigest()


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
_PARTS = 'Write {"type": "text", "text": …} or {"type": "image_url", "image_url": {"url": …}}.'
_HOLDERS = {"image_url": ImageUrl, "content": TextPart}  # what has the unknown keys below a key
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
            f"{_dotted(at[:4])} is of type {media!r}. Allowed types are text and image_url.",
            'Write an image as {"type": "image_url", "image_url": {"url": PATH}}. Describe other '
            "media in words, or remove the row.",
        )
    if detail["type"] == "unexpected_keyword_argument":  # a dataclass's unknown key
        holder = next((_HOLDERS[step] for step in reversed(at[:-1]) if step in _HOLDERS), Message)
        keys = [field.name for field in fields(holder)]
        guess = "" if key in _REPLACEMENTS else _guess(key, keys)
        known = f"Allowed keys: {', '.join(keys)}. Put custom keys next to `messages`."
        what = f"{around} has an unknown key {key!r}.{guess}"
        return error("unknown-key", what, _REPLACEMENTS.get(key, known))
    if detail["type"].startswith("union_tag"):  # a part of the content
        given: object = detail["input"]
        part = cast("dict[str, object]", given) if isinstance(given, dict) else {}
        tag = part.get("type")
        what = f"{where}.type is {clip(tag)}." if tag else f"{where} has no 'type'."
        return error("wrong-value" if tag else "missing-key", what, _PARTS)
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
        if isinstance(kind, str) and kind != "image_url" and any(word in kind for word in _MEDIA):
            return kind
    return None


def _guess(given: str, known: Sequence[str]) -> str:
    plain = given.strip().lower()
    synonym = _SYNONYMS.get(plain)
    guess = synonym if synonym in known else nearest(plain, known)
    return f" Did you mean {guess!r}?" if guess else ""


def _dotted(at: Location) -> str:
    return dotted(at) or "the row"
