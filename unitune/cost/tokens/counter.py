"""The counter of a model: exact where its tokenizer is here, and a range where it is not.

What tokenizer a model of a vendor has is read by its name from ``families.yaml``, which is meant to
grow. Open models bring their own, which is looked for on this machine.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from typing import Literal, Self

import yaml
from pydantic import TypeAdapter, model_validator

from unitune.backends.capabilities import StoredModel
from unitune.cost.tokens.approximate import ApproximateCounter
from unitune.cost.tokens.by_encoding import EncodingCounter
from unitune.cost.tokens.by_tokenizer import TokenizerCounter, find_tokenizer
from unitune.cost.tokens.count import TokenCounter
from unitune.security.spec import Spec
from unitune.workspace.install import install_command

# What stands before a vendor's own name of a model; another owner's (``owner/gpt-4o-like``) is a
# model of its own
_PREFIX = re.compile(
    r"ft:|(openai|azure|google|anthropic|amazon|models)/|.*\b(models|foundation-model)/"
)


class Family(Spec):
    """Models with one tokenizer."""

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
    def _encoding_or_reason(self) -> Self:
        if (self.encoding is None) != bool(self.hidden):
            raise ValueError("a family has an encoding, or a reason why there is none")
        return self


def family_of(model: str) -> Family | None:
    """Return the family of a model; None: an open model, or one that is not known.

    Args:
        model: As a vendor names it; a tuned model of OpenAI's (``ft:BASE:…``) is of its base's.
    """
    name = model.lower()
    while prefix := _PREFIX.match(name):
        name = name[prefix.end() :]
    return next((family for family in families() if re.match(family.pattern, name)), None)


@cache
def families() -> tuple[Family, ...]:
    """Return all families, in the order in which they are tried."""
    file = importlib.resources.files("unitune.cost.tokens") / "families.yaml"
    known = yaml.safe_load(file.read_text(encoding="utf-8"))
    return TypeAdapter(tuple[Family, ...]).validate_python(known)


def counter_for(
    model: str, stored: Iterable[StoredModel] = (), *, aliases: Iterable[str] = ()
) -> TokenCounter:
    """Return the counter of a model; nothing is fetched, ever.

    Args:
        model: A vendor's name, tuned ones too; a Hugging Face name; or a folder with its tokenizer.
        stored: Models that a backend keeps on this machine (`Stores`), where the tokenizer of an
            open model is looked for beside the Hugging Face cache.
        aliases: Other names of the same weights, as offers have them.
    """
    kept, names = tuple(stored), (model, *aliases)
    folder = next(filter(None, (find_tokenizer(name, kept) for name in names)), None)
    readable = find_spec("tokenizers") is not None
    if folder is not None and readable:
        try:
            return TokenizerCounter(folder)
        except ValueError as problem:
            return ApproximateCounter(f"of the tokenizer of {model}, {problem}")
    family = next(filter(None, map(family_of, names)), None)
    if family is not None and family.encoding is not None:
        return EncodingCounter(family.encoding, family.framing, family.assumed)
    if family is not None:
        return ApproximateCounter(family.hidden, unseen=True)
    if folder is not None:
        return ApproximateCounter(
            "the package `tokenizers`, which reads a model's own tokenizer, is not installed "
            f"({install_command('local')})"
        )
    return ApproximateCounter(f"the tokenizer of {model} is not on this machine")
