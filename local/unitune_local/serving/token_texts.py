"""Tokens as clients see them: their text, their bytes, and how likely the model found them.

A token may be a part of a character. Its text then has a replacement character, and its bytes say
what it is, as far as the tokenizer's vocabulary shows them (byte-level BPE and byte fallback).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # how byte fallback names a byte


@dataclass(frozen=True, slots=True)
class TokenChance:
    """A token and how likely it was."""

    text: str  # with a replacement character where it is a part of one
    bytes: tuple[int, ...] | None  # none where they are not known
    logprob: float  # natural logarithm of its chance, before temperature and top_p
    top: Sequence[TokenChance] = ()  # the likeliest tokens at its place, the likeliest first


class TokenTexts:
    """The tokens of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def chance(self, logits: Tensor, token: int, top: int) -> TokenChance:
        """Return a token with its chance by the logits of its place (V), and the likeliest ones."""
        logprobs = logits.float().log_softmax(-1)
        places = logprobs.topk(min(top, len(logprobs))).indices
        best = cast("list[int]", cast("Any", places).tolist())
        likeliest = [self._named(index, float(logprobs[index])) for index in best]
        return self._named(token, float(logprobs[token]), likeliest)

    def _named(self, token: int, logprob: float, top: Sequence[TokenChance] = ()) -> TokenChance:
        decode = cast("Any", self._tokenizer).decode
        text = cast("str", decode([token], clean_up_tokenization_spaces=False))
        # OpenAI's wire has no minus infinity: -9999 is its word for it.
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
        """The bytes for which the letters of a byte-level vocabulary stand."""
        return {letter: byte for byte, letter in bytes_to_unicode().items()}
