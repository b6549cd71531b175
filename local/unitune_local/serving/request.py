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
    """What an answer has grown by."""

    text: str = ""
    tokens: Sequence[TokenChance] = ()  # that the text begins with, where their chances were wanted
    finish_reason: Literal["stop", "length"] | None = None  # with the last piece
    error: Exception | None = None  # in place of all else: why there is no answer, or no more of it
    completion_tokens: int = 0  # so far, the one that ends the answer included
    reasoning: str = ""  # with the last piece: what the model thought before it answered
    cached_tokens: int = 0  # of the prompt, that were read for an earlier request


class ModelFailed(Exception):
    """The model cannot answer this request."""


class Closed(Exception):
    """The server ends before the answer does."""


@dataclass(slots=True, eq=False)
class ServedRequest:
    """A request, from its arrival to the end of its answer."""

    answer: Answer
    streamed: bool  # whether each token is passed on, or the whole alone
    # How many of the likeliest tokens are told beside each; None: no chances
    top_logprobs: int | None
    pieces: asyncio.Queue[Piece] = field(default_factory=asyncio.Queue[Piece])
    read: PrefixCache | None = None  # what has been read of a long prompt, as one row
    cached_tokens: int = 0
    abandoned: bool = False
    sent: int = 0  # characters
    chances: deque[tuple[int, TokenChance]] = field(default_factory=deque[tuple[int, TokenChance]])

    @property
    def ids(self) -> list[int]:
        """All that its row is to see before the next token."""
        return [*self.answer.prompt, *self.answer.ids]

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
        new, self.sent = text[self.sent :], len(text)
        tokens: list[TokenChance] = []
        while self.chances and self.chances[0][0] < len(text):
            tokens.append(self.chances.popleft()[1])
        reason, count = ended and ended.finish_reason, len(self.answer.ids)
        thought = ended.reasoning if ended else ""
        return Piece(new, tokens, reason, None, count, thought, self.cached_tokens)
