"""Numbers of tokens as ranges, exact where low and high agree, and what counts them.

`assumed_row` counts a row whose framing is not known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from unitune.data.example import Example, Message


@dataclass(frozen=True, slots=True)
class Count:
    """A number of tokens, as a range around the best guess."""

    low: int = 0
    expected: int = 0
    high: int = 0

    @classmethod
    def of(cls, tokens: int) -> Count:
        """Return an exact count."""
        return cls(tokens, tokens, tokens)

    @property
    def exact(self) -> bool:
        """Whether it is one number."""
        return self.low == self.high

    def __add__(self, other: Count) -> Count:
        return Count(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def __mul__(self, other: Count) -> Count:
        return Count(self.low * other.low, self.expected * other.expected, self.high * other.high)


@dataclass(frozen=True, slots=True)
class RowCount:
    """The tokens of one row."""

    # What a request for its answer is billed as input: the turns before the answer, the tools, and
    # the framing of both
    prompt: Count = Count()
    # What a model would write to give its answer: text and tool calls, no framing
    answer: Count = Count()
    # What a training sees of it in one epoch: every turn, the tools and the framing; of a
    # preference row both answers
    total: Count = Count()

    def __add__(self, other: RowCount) -> RowCount:
        return RowCount(
            self.prompt + other.prompt, self.answer + other.answer, self.total + other.total
        )


class TokenCounter(Protocol):
    """Counts tokens as one model does; keeps nothing of what it counted."""

    @property
    def basis(self) -> str:
        """What it counts with, for people, e.g. "o200k_base"."""
        ...

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What makes ranges of its counts, one sentence each."""
        ...

    def text(self, text: str) -> Count:
        """Return the tokens of a text without any framing; whatever it holds, this never raises."""
        ...

    def row(self, example: Example) -> RowCount:
        """Return the tokens of a row with its framing and tools."""
        ...


# Tokens that a chat template adds to a message: ChatML has 3 and its role, Llama 3 has 4 and two
# line breaks, and some templates write sentences around tools
FRAMING = Count(3, 4, 8)


def framing_assumption() -> str:
    """Return what is assumed of a template that is not known, for people."""
    return f"the chat template is taken for {FRAMING.low} to {FRAMING.high} tokens a message"


def assumed_row(example: Example, text: Callable[[str], Count]) -> RowCount:
    """Return a row's tokens where its framing is not known; `text` counts without framing."""
    last = example.messages[-1]
    tools = text(_json(example.tools)) if example.tools else Count()
    before = tools + _framed(example.prompt, text)
    prompt = before + Count(0, FRAMING.expected, FRAMING.high)
    total = before + _framed(example.messages[len(example.prompt) :], text)
    if example.non_preferred_output:
        total += _framed(example.non_preferred_output, text) + Count(0, 0, prompt.high)
    answer = text(example.answer or "")
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
    return total


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
