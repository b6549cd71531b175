"""Define a server's requests, the pieces of their answers, and the tokens in these."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from unitune_local.inference.answers import Answer
from unitune_local.inference.prefix_cache import PrefixCache

BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # name of a byte in byte fallback


@dataclass(frozen=True, slots=True)
class TokenChance:
    """A token with its log-probability."""

    text: str  # with a replacement character for a part of one
    bytes: tuple[int, ...] | None  # None if unknown
    logprob: float  # natural logarithm, before temperature and top_p
    top: Sequence[TokenChance] = ()  # the likeliest tokens at its place, in order


class TokenTexts:
    """Texts of the tokens of a tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def chance(self, logits: Tensor, token: int, top: int) -> TokenChance:
        """Return a token with its log-probability by logits (V), and the likeliest tokens."""
        logprobs = logits.float().log_softmax(-1)
        places = logprobs.topk(min(top, len(logprobs))).indices
        best = cast("list[int]", cast("Any", places).tolist())
        likeliest = [self._named(index, float(logprobs[index])) for index in best]
        return self._named(token, float(logprobs[token]), likeliest)

    def _named(self, token: int, logprob: float, top: Sequence[TokenChance] = ()) -> TokenChance:
        decode = cast("Any", self._tokenizer).decode
        text = cast("str", decode([token], clean_up_tokenization_spaces=False))
        # OpenAI's API has no minus infinity and sends -9999 instead.
        return TokenChance(text, self._bytes(token, text), max(logprob, -9999.0), top)

    def _bytes(self, token: int, text: str) -> tuple[int, ...] | None:
        if "\N{REPLACEMENT CHARACTER}" not in text:
            return tuple(text.encode())
        name = cast("str", cast("Any", self._tokenizer).convert_ids_to_tokens(token))
        if match := BYTE.fullmatch(name):
            return (int(match[1], 16),)
        known = all(letter in self._byte_of for letter in name)
        return tuple(self._byte_of[letter] for letter in name) if known else None

    @cached_property
    def _byte_of(self) -> dict[str, int]:
        return {letter: byte for byte, letter in bytes_to_unicode().items()}


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
