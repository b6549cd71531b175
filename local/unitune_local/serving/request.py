"""Hold a server's requests and the pieces of their answers."""

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
    """New part of an answer."""

    text: str = ""
    tokens: Sequence[TokenChance] = ()  # tokens that the text begins with, if requested
    finish_reason: Literal["stop", "length"] | None = None  # only in the last piece
    error: Exception | None = None  # failure that replaces or ends the answer
    completion_tokens: int = 0  # so far, including the one that ends the answer
    reasoning: str = ""  # only in the last piece: reasoning before the answer
    cached_tokens: int = 0  # tokens of the prompt taken from the prefix store


class ModelFailed(Exception):
    """Error of a request that the model cannot answer."""


class Closed(Exception):
    """Error of an answer that the end of the server cuts off."""


@dataclass(slots=True, eq=False)
class ServedRequest:
    """Request from its arrival to the end of its answer."""

    answer: Answer
    streamed: bool  # each token is sent, instead of only the whole
    # Number of the likeliest tokens reported for each place; None: no probabilities
    top_logprobs: int | None
    pieces: asyncio.Queue[Piece] = field(default_factory=asyncio.Queue[Piece])
    read: PrefixCache | None = None  # cache of the part of a long prompt that was read, as one row
    cached_tokens: int = 0
    abandoned: bool = False
    sent: int = 0  # characters
    chances: deque[tuple[int, TokenChance]] = field(default_factory=deque[tuple[int, TokenChance]])

    @property
    def ids(self) -> list[int]:
        """All tokens that its row contains before the next one."""
        return [*self.answer.prompt, *self.answer.ids]

    @property
    def over(self) -> bool:
        """True if it needs no further token."""
        return self.answer.done or self.abandoned

    def grown(self) -> Piece | None:
        """Return the part that may be sent since the last piece, if any."""
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
