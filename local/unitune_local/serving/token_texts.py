"""Describe tokens for clients: their text, their bytes and their log-probability."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

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
