"""Which tokenizer a model has, by its name: read from ``families.yaml``, which is meant to grow."""

from __future__ import annotations

import importlib.resources
import re
from functools import cache
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, model_validator

_BEFORE = re.compile(
    r"ft:|(openai|azure|google|anthropic|amazon|models)/|.*\b(models|foundation-model)/"
)
"""What stands before a vendor's own name of a model; another owner's (``owner/gpt-4o-like``) is a
model of its own."""


class Family(BaseModel):
    """Models with one tokenizer."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    pattern: str
    """Regular expression for the beginning of a name in lower case."""
    encoding: Literal["o200k_base", "cl100k_base"] | None = None
    framing: Literal["chat", "harmony"] = "chat"
    """How its conversations are written down."""
    assumed: str = ""
    """Why the encoding is a guess; empty where it is known."""
    hidden: str = ""
    """Why the tokenizer cannot be had; empty where there is an encoding."""

    @model_validator(mode="after")
    def _has_one_of_both(self) -> Self:
        if (self.encoding is None) != bool(self.hidden):
            raise ValueError("a family has an encoding, or a reason why there is none")
        return self


def family_of(model: str) -> Family | None:
    """Return the family of a model; None: an open model, or one that is not known.

    Args:
        model: As a vendor names it; a tuned model of OpenAI's (``ft:BASE:…``) is of its base's.
    """
    name = model.lower()
    while found := _BEFORE.match(name):
        name = name[found.end() :]
    return next((one for one in families() if re.match(one.pattern, name)), None)


@cache
def families() -> tuple[Family, ...]:
    """Return all families, in the order in which they are tried."""
    file = importlib.resources.files("unitune.cost.tokens") / "families.yaml"
    known = yaml.safe_load(file.read_text(encoding="utf-8"))
    return TypeAdapter(tuple[Family, ...]).validate_python(known)
