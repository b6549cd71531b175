"""Represent token counts as ranges, and count rows whose framing is unknown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from unitune.data.example import Example, Message


@dataclass(frozen=True, slots=True)
class Count:
    """Number of tokens as a range; exact if low and high agree."""

    low: int = 0
    expected: int = 0
    high: int = 0

    @classmethod
    def of(cls, tokens: int) -> Count:
        """Return an exact count."""
        return cls(tokens, tokens, tokens)

    @property
    def exact(self) -> bool:
        """True if low and high are equal."""
        return self.low == self.high

    def __add__(self, other: Count) -> Count:
        return Count(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def __mul__(self, other: Count) -> Count:
        return Count(self.low * other.low, self.expected * other.expected, self.high * other.high)


@dataclass(frozen=True, slots=True)
class RowCount:
    """Tokens of one row."""

    # Billed input of a request for the answer: the previous turns, the tools and their framing
    prompt: Count = Count()
    # Text and tool calls of the answer, without framing
    answer: Count = Count()
    # Input of a training in one epoch: every turn, the tools and the framing; for a preference row,
    # both answers
    total: Count = Count()

    def __add__(self, other: RowCount) -> RowCount:
        return RowCount(
            self.prompt + other.prompt, self.answer + other.answer, self.total + other.total
        )


class TokenCounter(Protocol):
    """Stateless token counter of one model."""

    @property
    def basis(self) -> str:
        """Name of the tokenizer for messages, e.g. "o200k_base"."""
        ...

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Reasons why counts are ranges, one sentence each."""
        ...

    def row(self, example: Example) -> RowCount:
        """Return the tokens of a row with its framing and tools."""
        ...


# Tokens that a chat template adds to a message: ChatML has 3 and its role, Llama 3 has 4 and two
# line breaks, and some templates write sentences around tools
FRAMING = Count(3, 4, 8)


def framing_assumption() -> str:
    """Return the assumption made about an unknown template."""
    return f"the chat template is assumed to add {FRAMING.low} to {FRAMING.high} tokens per message"


def assumed_row(example: Example, text: Callable[[str], Count]) -> RowCount:
    """Return a row's tokens with unknown framing; `text` counts without framing."""
    last = example.messages[-1]
    tools = text(_json(example.tools)) if example.tools else Count()
    before = tools + _framed(example.prompt, text)
    prompt = before + Count(0, FRAMING.expected, FRAMING.high)
    total = before + _framed(example.messages[len(example.prompt) :], text)
    if example.non_preferred_output:
        total += _framed(example.non_preferred_output, text) + Count(0, 0, prompt.high)
    answer = text(example.answer or "") + text(last.reasoning_content or "")
    if last.role == "assistant" and last.tool_calls:
        answer += text(_json(last.tool_calls))
    return RowCount(prompt, answer, total)


def _framed(turns: Iterable[Message], text: Callable[[str], Count]) -> Count:
    total = Count()
    for turn in turns:
        total += FRAMING + text(turn.text)
        if turn.name is not None:
            total += text(turn.name)
        if turn.tool_calls:
            total += text(_json(turn.tool_calls))
        if turn.reasoning_content:  # templates may leave out that of earlier turns
            reasoning = text(turn.reasoning_content)
            total += Count(0, reasoning.expected, reasoning.high)
    return total


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
