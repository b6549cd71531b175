"""The canonical training row: OpenAI chat messages, or OpenAI's preference triple.

Every file format is read into `Example` and every backend's format is written from it, so that one
row serves training, cost and evaluation. Keys that unitune does not know are kept as they are, for
graders. A preference row holds its preferred output as the last of `messages`, so that prompt and
answer mean the same in every row; in files it stands as the triple `input`, `preferred_output`,
`non_preferred_output`. Validity beyond shape (answers there, turns not empty) is checked
in `unitune.data.rows`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass

from unitune.data.records import json_or_none

ROLES = ("system", "developer", "user", "assistant", "tool")
TRIPLE = ("input", "preferred_output", "non_preferred_output")


def _refuse_flag(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a weight is a number, and not true or false")  # noqa: TRY004 - pydantic's
    return value


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TextPart:
    """A piece of text in a message that is made of parts."""

    type: Literal["text"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Message:
    """One turn of a conversation.

    A dataclass, because a file has many: a model takes 577 bytes, and this 89 (one short turn).
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[TextPart, ...] | None = None
    name: str | None = None
    tool_calls: tuple[dict[str, JsonValue], ...] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    """For assistant turns: what the model thinks before it answers."""
    weight: Literal[0, 1] | None = None
    """For assistant turns: 0 keeps the turn out of the loss."""

    _weight_is_a_number = field_validator("weight", mode="before")(_refuse_flag)

    @property
    def text(self) -> str:
        """The content as one string; empty when there is none."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content or ())

    @property
    def row(self) -> dict[str, JsonValue]:
        """The turn as it stands in a row, as JSON values: what it does not say is left out."""
        return _MESSAGE.dump_python(self, mode="json", exclude_defaults=True)

    @property
    def wire(self) -> dict[str, JsonValue]:
        """The turn as requests carry it: `row` without weight and reasoning."""
        unsent = {"weight", "reasoning_content"}
        return _MESSAGE.dump_python(self, mode="json", exclude_defaults=True, exclude=unsent)


_MESSAGE = TypeAdapter(Message)
MESSAGES = TypeAdapter(tuple[Message, ...])


class Example(BaseModel):
    """One row: a conversation whose last assistant turn is the answer to learn or to expect."""

    model_config = ConfigDict(frozen=True, extra="allow")
    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    tools: tuple[dict[str, JsonValue], ...] | None = None
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the row in the loss."""
    id: Annotated[str, Field(coerce_numbers_to_str=True)] | None = None
    """Name of the row as an evaluation case; made from its content when absent."""
    expected: str | None = None
    """Expected answer, where it is not the last assistant turn."""
    required: bool = False
    """A case that every candidate must get right, whatever the rest says."""
    non_preferred_output: (
        Annotated[tuple[Message, ...], Field(min_length=1, max_length=1)] | None
    ) = None
    """In a preference row: the answer that is worse than the last of `messages`."""

    kto_tag: bool | None = None
    """In a rated row: whether the answer is one to give. Called so by LLaMA-Factory."""

    _weight_is_a_number = field_validator("weight", mode="before")(_refuse_flag)

    @model_validator(mode="before")
    @classmethod
    def _from_triple(cls, value: Any) -> Any:
        """Give a triple the keys of an Example; any other row stays as it is."""
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
            raise ValueError("'system' is no custom key: it is the first of messages")
        return self

    @model_validator(mode="after")
    def _has_a_preferred_output(self) -> Self:
        if self.non_preferred_output is None:
            return self
        if self.messages[-1].role != "assistant":
            raise ValueError("the last of messages is the preferred output, from the assistant")
        if taken := [key for key in TRIPLE if key in (self.model_extra or {})]:
            raise ValueError(f"{taken[0]!r} cannot be a custom key in a preference row")
        return self

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages before the answer: the input of a model."""
        last = self.messages[-1]
        return self.messages[:-1] if last.role == "assistant" else self.messages

    @property
    def answer(self) -> str | None:
        """The expected answer, or None when the row has none."""
        last = self.messages[-1]
        if self.expected is not None:
            return self.expected
        return last.text if last.role == "assistant" else None

    @property
    def content(self) -> dict[str, JsonValue]:
        """What the row says, as JSON values: what equals its default is left out.

        A preference row is the triple that stands in files, its own keys behind.
        """
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
    def beside(self) -> tuple[str, ...]:
        """Keys that stand beside the conversation, for judging and for graders: never trained."""
        judging = [key for key in ("id", "expected") if getattr(self, key) is not None]
        return (*judging, *(["required"] if self.required else ()), *(self.model_extra or ()))

    @property
    def line(self) -> str:
        """The row as a line of canonical JSON Lines, without its end."""
        if self.non_preferred_output is None:
            return self.model_dump_json(exclude_defaults=True)
        return json.dumps(self.content, ensure_ascii=False, separators=(",", ":"))

    @property
    def input_key(self) -> str:
        """Hash of the model's input, the system prompt and tools included.

        Equal for equal inputs, whether a text is given whole or in parts, and whatever the weights
        and the ids of tool calls.
        """
        turns = [[turn.role, turn.text, turn.name, called(turn.tool_calls)] for turn in self.prompt]
        return digest([turns, self.tools])

    @property
    def case_id(self) -> str:
        """The row's `id`, or the first 12 hex digits of the hash of its content.

        Pinning a case makes no other case of it.
        """
        return self.id or digest(_without(self.content, "required"))[:12]

    @property
    def case_hash(self) -> str:
        """Hash of all that a score may depend on: input, expected answer, own keys."""
        return digest(_without(self.content, "id", "required", "weight"))


def _without(content: dict[str, JsonValue], *keys: str) -> dict[str, JsonValue]:
    return {key: value for key, value in content.items() if key not in keys}


_CANONICAL = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str
)


def called(calls: Iterable[Mapping[str, JsonValue]] | None) -> list[str]:
    """Return the functions of tool calls with their arguments, in canonical JSON, without ids."""
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
    """Return the SHA-256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(_CANONICAL.encode(value).encode("utf-8", "surrogatepass")).hexdigest()


def digest_all(values: Iterable[JsonValue]) -> str:
    """Return the `digest` of a list of values, made one by one: of a large file, it may be long."""
    hashed = hashlib.sha256(b"[")
    for at, value in enumerate(values):
        comma = "," if at else ""
        hashed.update((comma + _CANONICAL.encode(value)).encode("utf-8", "surrogatepass"))
    hashed.update(b"]")
    return hashed.hexdigest()
