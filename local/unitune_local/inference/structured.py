"""Hold answers to a JSON Schema, token by token, with llguidance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast

import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer
from pydantic import JsonValue
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from unitune.errors import JobError


class SchemaError(JobError):
    """JSON Schema that answers cannot be held to."""


def grammar_of(schema: Mapping[str, JsonValue]) -> str:
    """Return a JSON Schema as llguidance's grammar.

    Raises:
        SchemaError: It is not valid, or uses a keyword that cannot be enforced token by token.
    """
    grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema))
    if problem := LLMatcher.validate_grammar(grammar):
        raise SchemaError(
            f"a local model cannot follow the JSON Schema of the answers: "
            f"{problem.rstrip('. ')}. Correct the schema, or leave out what llguidance does not "
            "support."
        )
    return grammar


class Guide:
    """State of one answer in its grammar."""

    def __init__(self, tokenizer: LLTokenizer, grammar: str) -> None:
        self._matcher = LLMatcher(tokenizer, grammar)

    @property
    def ended(self) -> bool:
        """True if nothing can follow."""
        return self._matcher.is_stopped()

    def take(self, token: int) -> None:
        """Advance by a token that `allowed` allows."""
        self._matcher.consume_token(token)

    def allowed(self, width: int) -> Tensor:
        """Return the tokens (V,) that may come next; raises RuntimeError at llguidance's limits."""
        packed = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)
        if self._matcher.is_error():
            raise RuntimeError(self._matcher.get_error())
        bits = (packed[:, None] >> torch.arange(8)) & 1
        return torch.nn.functional.pad(bits.flatten().bool(), (0, width))[:width]


class Guides:
    """Factory for the guides of a model's answers."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: frozenset[int]) -> None:
        self._source, self._stops = tokenizer, stops

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        return from_tokenizer(cast("Any", self._source), eos_token=sorted(self._stops))

    def guide(self, grammar: str) -> Guide:
        """Return a guide at the beginning of a grammar."""
        return Guide(self._tokenizer, grammar)
