"""Rows of a question and its answer."""

from __future__ import annotations

from collections.abc import Iterable

from unitune.data.dataset import Row
from unitune.data.example import Example, Message


def chat_rows(pairs: Iterable[tuple[str, str]]) -> list[Row]:
    """Return rows that ask and answer this, on lines from 1."""
    return [
        Row(
            line,
            Example(
                messages=(
                    Message(role="user", content=question),
                    Message(role="assistant", content=answer),
                )
            ),
        )
        for line, (question, answer) in enumerate(pairs, 1)
    ]
