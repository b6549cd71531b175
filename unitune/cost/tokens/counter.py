"""The counter of a model: exact where its tokenizer is here, and a range where it is not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from unitune.backends.capabilities import StoredModel
from unitune.cost.tokens.by_characters import CharacterCounter
from unitune.cost.tokens.by_encoding import EncodingCounter
from unitune.cost.tokens.by_tokenizer import (
    TokenizerCounter,
    can_read_tokenizers,
    find_tokenizer,
)
from unitune.cost.tokens.count import Count, RowCount
from unitune.cost.tokens.families import Family, family_of
from unitune.data.example import Example
from unitune.workspace.install import install_command


class TokenCounter(Protocol):
    """Counts tokens as one model does; keeps nothing of what it counted."""

    @property
    def basis(self) -> str:
        """What it counts with, for people, e.g. "o200k_base"."""
        ...

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What makes ranges of its counts, one sentence each."""
        ...

    def text(self, text: str) -> Count:
        """Return the tokens of a text without any framing; whatever it holds, this never raises."""
        ...

    def row(self, example: Example) -> RowCount:
        """Return the tokens of a row with its framing and tools."""
        ...


def counter_for(
    model: str, stored: Iterable[StoredModel] = (), *, aliases: Iterable[str] = ()
) -> TokenCounter:
    """Return the counter of a model; nothing is fetched, ever.

    Args:
        model: A vendor's name, tuned ones too; a Hugging Face name; or a folder with its tokenizer.
        stored: Models on this machine, as `unitune.backends.capabilities.Stores` tells them, where
        the
            tokenizer of an open model is looked for beside the Hugging Face cache.
        aliases: Other names of the same weights, as offers have them; the first that tells helps.
    """
    kept = tuple(stored)
    names = (model, *aliases)
    folder = next(filter(None, (find_tokenizer(name, kept) for name in names)), None)
    if folder is not None and can_read_tokenizers():
        try:
            return TokenizerCounter(folder)
        except ValueError as problem:
            return CharacterCounter(f"of the tokenizer of {model}, {problem}")
    if family := next(filter(None, map(family_of, names)), None):
        return _of_family(family)
    if folder is not None:
        return CharacterCounter(
            "the package `tokenizers`, which reads a model's own tokenizer, is not installed "
            f"({install_command('local')})"
        )
    return CharacterCounter(f"the tokenizer of {model} is not on this machine")


def _of_family(family: Family) -> TokenCounter:
    if family.encoding is None:
        return CharacterCounter(family.hidden)
    return EncodingCounter(family.encoding, family.framing, family.assumed)
