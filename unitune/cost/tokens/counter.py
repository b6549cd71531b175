"""Choose the token counter of a model."""

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
from unitune.documents import Spec
from unitune.workspace.install import install_command

# Prefix before a vendor's name of a model. Another owner's model (``owner/gpt-4o-like``) is a
# different one
_PREFIX = re.compile(
    r"ft:|(openai|azure|google|anthropic|amazon|models)/|.*\b(models|foundation-model)/"
)


class Family(Spec):
    """Models that share a tokenizer."""

    pattern: str
    """Regular expression for the start of a name in lower case."""
    encoding: Literal["o200k_base", "cl100k_base"] | None = None
    framing: Literal["chat", "harmony"] = "chat"
    """Framing of conversations."""
    assumed: str = ""
    """Reason why the encoding is a guess; empty if it is known."""
    hidden: str = ""
    """Reason why the tokenizer is not available; empty if there is an encoding."""

    @model_validator(mode="after")
    def _encoding_or_reason(self) -> Self:
        if (self.encoding is None) != bool(self.hidden):
            raise ValueError("a family needs either an encoding or the reason why it has none")
        return self


def family_of(model: str) -> Family | None:
    """Return the family of a model (tuned or not), or None for an open or unknown model."""
    name = model.lower()
    while prefix := _PREFIX.match(name):
        name = name[prefix.end() :]
    return next((family for family in families() if re.match(family.pattern, name)), None)


@cache
def families() -> tuple[Family, ...]:
    """Return all families in the order in which they are tried."""
    file = importlib.resources.files("unitune.cost.tokens") / "families.yaml"
    known = yaml.safe_load(file.read_text(encoding="utf-8"))
    return TypeAdapter(tuple[Family, ...]).validate_python(known)


def counter_for(
    model: str, stored: Iterable[StoredModel] = (), *, aliases: Iterable[str] = ()
) -> TokenCounter:
    """Return the counter of a model, by any of its names, without downloading anything.

    The tokenizers of `stored` models are searched in addition to the Hugging Face cache.
    """
    kept, names = tuple(stored), (model, *aliases)
    folder = next(filter(None, (find_tokenizer(name, kept) for name in names)), None)
    readable = find_spec("tokenizers") is not None
    if folder is not None and readable:
        try:
            return TokenizerCounter(folder)
        except ValueError as problem:
            return ApproximateCounter(f"the tokenizer of {model}: {problem}")
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
