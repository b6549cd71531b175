"""What documents and the parts of a job file are made of: frozen data, which refuses unknown keys.

`Typed` is for lists whose entries differ by `type`, such as scorers and contenders; an
entry that needs no options is written as its type alone.
"""

from __future__ import annotations

from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
)


class Frozen(BaseModel):
    """Frozen data."""

    model_config = ConfigDict(frozen=True)


class Closed(Frozen):
    """Frozen data that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid")


class Spec(Closed):
    """The same, whose schema tells what stands below each field."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Typed(Spec):
    """A specification with a `type`; ``exact`` is short for ``{type: exact}``."""

    @model_serializer(mode="wrap")
    def _shortest(self, handler: SerializerFunctionWrapHandler) -> JsonValue:
        content = {"type": getattr(self, "type"), **handler(self)}  # noqa: B009 - each leaf has one
        return content["type"] if len(content) == 1 else content


def is_short(kind: type[Typed]) -> bool:
    """Whether the type alone says everything that an entry of this kind needs."""
    return not any(field.is_required() for field in kind.model_fields.values())


def from_name(value: Any) -> Any:
    """Return the specification that a bare type is short for; anything else as it is."""
    return {"type": value} if isinstance(value, str) else value
