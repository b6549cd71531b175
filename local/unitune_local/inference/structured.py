"""Hold answers to a JSON Schema, token by token, with llguidance, and read tool calls.

A local model writes calls as its chat template does. Two forms are read: JSON between
``<tool_call>`` and ``</tool_call>`` (Hermes, Qwen, SmolLM3), and an answer that consists of such an
object (Llama 3).

Sources: huggingface.co/docs/transformers, chat templates of Qwen2.5, Qwen3 and Llama 3.2
(2026-11-28).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer
from pydantic import JsonValue
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from unitune.errors import JobError
from unitune.models import ToolCalls, function_call


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


OPEN = "<tool_call>"
BLOCK = re.compile(rf"{OPEN}\s*(.*?)\s*</tool_call>", re.DOTALL)
ARGUMENTS = ("arguments", "parameters")  # the latter in Llama 3

Tools = Sequence[dict[str, JsonValue]]


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """Text of an answer, and its tool calls."""

    text: str
    calls: ToolCalls = ()


def read_calls(text: str, tools: Tools) -> ToolAnswer:
    """Separate an answer's calls from its text, if all of them call these tools."""
    if not tools:
        return ToolAnswer(text)
    blocks = BLOCK.findall(text)
    calls = [_call(block, tools) for block in blocks or [text]]
    if not all(calls):
        return ToolAnswer(text)
    rest = text[: text.index(OPEN)].rstrip() if blocks else ""
    return ToolAnswer(rest, tuple(call for call in calls if call))


def call_begins(text: str) -> int:
    """Return where a call begins or may begin in a growing answer, or its length."""
    if text.lstrip().startswith("{"):
        return 0
    place = text.find(OPEN)
    if place < 0:
        begun = (size for size in range(len(OPEN) - 1, 0, -1) if text.endswith(OPEN[:size]))
        place = len(text) - next(begun, 0)
    return len(text[:place].rstrip())


def _call(text: str, tools: Tools) -> dict[str, JsonValue] | None:
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    names = [cast("Any", tool.get("function") or {}).get("name") for tool in tools]
    if not isinstance(content, dict):
        return None
    call = cast("dict[str, JsonValue]", content)
    name = call.get("name")
    given = next((call[key] for key in ARGUMENTS if key in call), "")
    if not isinstance(name, str) or name not in names or not isinstance(given, dict | str):
        return None
    return function_call(name, given, f"call_{secrets.token_hex(12)}")
