"""Numbers of tokens as ranges, exact where low and high agree, and what counts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from unitune.data.example import Example


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

    prompt: Count = Count()
    """What a request for its answer is billed as input: the turns before the answer, the tools, and
    the framing of both."""
    answer: Count = Count()
    """What a model would write to give its answer: text and tool calls, no framing."""
    total: Count = Count()
    """What a training sees of it in one epoch: every turn, the tools and the framing; of a
    preference row both answers."""

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
