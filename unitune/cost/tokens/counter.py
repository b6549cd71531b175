"""The counter of a model: exact where its tokenizer is here, and a range where it is not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from unitune.abilities import StoredModel
from unitune.cost.tokens.count import Count, RowCount
from unitune.data.example import Example


class TokenCounter(Protocol):
    """Counts tokens as one model does; keeps nothing of what it counted."""

    @property
    def basis(self) -> str:
        """What it counts with, for people, e.g. "o200k_base"."""
        ...

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Why its counts are ranges, one sentence each; empty where all is known."""
        ...

    def text(self, text: str) -> Count:
        """Return the tokens of a text without any framing; whatever it holds, this never raises."""
        ...

    def row(self, example: Example) -> RowCount:
        """Return the tokens of a row with its framing and tools."""
        ...


def counter_for(model: str, stored: Iterable[StoredModel] = ()) -> TokenCounter:
    """Return the counter of a model; nothing is fetched, ever.

    Args:
        model: A vendor's name, tuned ones too; a Hugging Face name; or a folder with its tokenizer.
        stored: Models on this machine, as `unitune.abilities.Stores` tells them, where the
            tokenizer of an open model is looked for beside the Hugging Face cache.
    """
    raise NotImplementedError(model, stored)
