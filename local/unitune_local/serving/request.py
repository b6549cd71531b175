"""A request in a server, from its arrival to the end of its answer; and the pieces of that."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from unitune_local.inference.answers import Answer
from unitune_local.inference.prefix_cache import PrefixCache
from unitune_local.serving.token_texts import TokenChance


@dataclass(frozen=True, slots=True)
class Piece:
    """What an answer has grown by.

    Args:
        text: More of it.
        tokens: That the text begins with, where their chances were wanted.
        finish_reason: With the last piece: stop, length.
        error: In place of all else: why there is no answer, or no more of it.
        completion_tokens: So far, the one that ends the answer included.
        cached_tokens: Of the prompt, that were read for an earlier request.
    """

    text: str = ""
    tokens: Sequence[TokenChance] = ()
    finish_reason: Literal["stop", "length"] | None = None
    error: Exception | None = None
    completion_tokens: int = 0
    cached_tokens: int = 0


class ModelFailed(Exception):
    """The model cannot answer this request."""


class Closed(Exception):
    """The server ends before the answer does."""


@dataclass(slots=True, eq=False)
class ServedRequest:
    """A request, from its arrival to the end of its answer.

    Args:
        prompt: Token ids.
        answer: As it grows.
        streamed: Whether each token is passed on, or the whole alone.
        top_logprobs: How many of the likeliest tokens are told beside each; None: no chances.
        pieces: For who waits.
        read: What has been read of a long prompt, as one row.
    """

    prompt: list[int]
    answer: Answer
    streamed: bool
    top_logprobs: int | None
    pieces: asyncio.Queue[Piece]
    read: PrefixCache | None = None
    cached_tokens: int = 0
    abandoned: bool = False
    sent: int = 0  # characters
    chances: deque[tuple[int, TokenChance]] = field(default_factory=deque[tuple[int, TokenChance]])

    @property
    def ids(self) -> list[int]:
        """All that its row is to see before the next token."""
        return [*self.prompt, *self.answer.ids]

    @property
    def over(self) -> bool:
        """Whether it needs no further token."""
        return self.answer.done or self.abandoned

    def grown(self) -> Piece | None:
        """Return what may be passed on since the last piece; None: nothing."""
        ended = self.answer.finished() if self.answer.done else None
        if not (ended or self.streamed):
            return None
        text = ended.text if ended else self.answer.text_so_far()
        if not ended and len(text) <= self.sent:
            return None
        piece = Piece(
            text[self.sent :],
            self._chances_before(len(text)),
            ended and ended.finish_reason,
            None,
            len(self.answer.ids),
            self.cached_tokens,
        )
        self.sent = len(text)
        return piece

    def _chances_before(self, end: int) -> list[TokenChance]:
        """Take the tokens that begin before a place in the text."""
        taken: list[TokenChance] = []
        while self.chances and self.chances[0][0] < end:
            taken.append(self.chances.popleft()[1])
        return taken
