"""Counting for models that have one of OpenAI's encodings: exact texts, framed as chat is.

The framing of a prompt is known: the API counts the same. How a training counts a row is not: it
may or may not have the tokens that open a reply, so they stand in the high count alone, and one
reconciled run settles it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from pydantic import JsonValue

from unitune.cost.tokens.count import Count, RowCount
from unitune.cost.tokens.encoding import Encoding
from unitune.cost.tokens.tools import Tool, calls_count, tools_count
from unitune.data.example import ROLES, Example, Message

STEADY_TEXTS = 64
"""System prompts and lists of tools whose counts are remembered: most files have one of each."""
STEADY_COUNTS = 4096
"""Numbers whose `Count` is made once: making one takes longer than finding it."""
STEADY_ROLES = ("system", "developer")
PLAIN = ("role", "content")
"""Keys of a message that is nothing but a text."""
NOTHING = Count()


@dataclass(frozen=True, slots=True)
class Framing:
    """Tokens that stand around texts.

    Args:
        message: For each message, its role and text apart.
        name: For a message with a name, the name itself apart.
        opening: After a prompt, to open the reply.
        tools: Around the tools of a prompt.
        tools_in_system: Likewise, where a system message makes room for them.
        instructions: Before a system or developer message, and at most after it.
        answer: For each answer, more than for other messages.
        prelude: At the start of a conversation, which a vendor may or may not add.
        source: Where that stands.
    """

    message: int
    name: int
    opening: int
    tools: int
    tools_in_system: int
    instructions: Count = NOTHING
    answer: int = 0
    prelude: int = 0
    source: str = ""


FRAMINGS: dict[Literal["chat", "harmony"], Framing] = {
    "chat": Framing(
        message=3,
        name=1,
        opening=3,
        tools=9,
        tools_in_system=5,
        source="openai-cookbook, How_to_count_tokens_with_tiktoken, which counts as the API does",
    ),
    # <|start|> role <|message|> … <|end|>; <|start|>assistant; <|channel|>final; and the system
    # message that names the model, dates, the reasoning effort and the channels, 57 tokens framed.
    # Instructions have a heading, and in the model's chat template a blank line after them, too.
    # Around tools: a developer message, two headings, and a sentence in the system message.
    "harmony": Framing(
        message=3,
        name=1,
        opening=2,
        tools=27,
        tools_in_system=23,
        instructions=Count(0, 3, 4),
        answer=2,
        prelude=61,
        source="openai/harmony, docs/format.md, and openai-harmony 0.0.8",
    ),
}


class EncodingCounter:
    """Counts with one of OpenAI's encodings.

    Args:
        encoding: o200k_base or cl100k_base.
        framing: chat or harmony.
        assumed: Why the encoding is a guess; counts are then ranges. Empty where it is known.
    """

    def __init__(
        self, encoding: str, framing: Literal["chat", "harmony"] = "chat", assumed: str = ""
    ) -> None:
        self._encoding = Encoding(encoding)
        self._framing = FRAMINGS[framing]
        self._assumed = assumed
        self._tokens = self._encoding.tokens
        self._around = {role: self._around_text(role) for role in ROLES}
        # A file has many rows, and few system prompts, lists of tools and different counts.
        self._steady = lru_cache(STEADY_TEXTS)(self._tokens)
        self._tools = lru_cache(STEADY_TEXTS)(self._tools_of)
        self._exact = lru_cache(STEADY_COUNTS)(Count.of)
        self._trained = lru_cache(STEADY_COUNTS)(self._trained_of)

    @property
    def basis(self) -> str:
        """The encoding, and where the framing stands."""
        return f"{self._encoding.name}, framed as in {self._framing.source}"

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What makes ranges of its counts."""
        framing = self._framing
        told = [
            f"the {framing.opening} tokens that open a reply are in a row's high count alone",
            "tools and their calls are counted by rule, and as JSON where that is more",
        ]
        if framing.prelude:
            told.append(f"the {framing.prelude} tokens of the system message are left out in low")
        return (self._assumed, *told) if self._assumed else tuple(told)

    def text(self, text: str) -> Count:
        """Return the tokens of a text without any framing."""
        return self._widened(Count.of(self._tokens(text)))

    def row(self, example: Example) -> RowCount:
        """Return the tokens of a row with its framing and tools.

        Of a preference row, both answers are trained on, and its prompt once (low, expected) or
        once with each answer (high): no vendor says which.
        """
        last = example.messages[-1]
        answers = example.messages[-1:] if last.role == "assistant" else ()
        turns = example.prompt
        worse = example.non_preferred_output or ()
        asked, answer = self._framed(turns), self._framed(answers)
        extra, calls = self._beside(turns, example.tools), self._calls(answers)
        prompt = _sum(self._exact(asked + self._framing.opening), extra)
        total = _sum(self._trained(asked + answer + self._framed(worse)), extra, calls)
        if worse:
            total = _sum(total, self._calls(worse), Count(0, 0, prompt.high))
        said = _sum(self._exact(self._said(example, answer)), calls)
        if not self._assumed:
            return RowCount(prompt, said, total)
        return RowCount(self._widened(prompt), self._widened(said), self._widened(total))

    def plain(self, record: JsonValue) -> RowCount | None:
        """Return what `row` returns, for a row that is messages of role and text and nothing more.

        An `Example` of such a row, which most rows are, takes longer to make than to count.

        Args:
            record: A row as JSON has it.

        Returns:
            Its tokens; None where there is more to it, or the counts are no plain numbers.
        """
        if self._assumed or self._framing.prelude or not isinstance(record, dict):
            return None
        turns = record.get("messages")
        if len(record) != 1 or not isinstance(turns, list) or not turns:
            return None
        role, whole, framed = "", 0, 0
        for turn in turns:
            if not isinstance(turn, dict) or len(turn) != len(PLAIN):
                return None
            role, text = turn.get("role"), turn.get("content")
            if role not in ROLES or not isinstance(text, str):
                return None
            count = self._steady if role in STEADY_ROLES else self._tokens
            framed = self._around[role] + count(text)
            whole += framed
        answer = framed if role == "assistant" else 0
        return RowCount(
            self._exact(whole - answer + self._framing.opening),
            self._exact(framed - self._around[role] if answer else 0),
            self._trained(whole),
        )

    def _framed(self, turns: Sequence[Message]) -> int:
        """Return the tokens of turns with their framing, calls of tools apart."""
        tokens = 0
        for turn in turns:
            role, content = turn.role, turn.content
            text = content if isinstance(content, str) else turn.text
            count = self._steady if role in STEADY_ROLES else self._tokens
            tokens += self._around[role] + count(text)
            if turn.name is not None:
                tokens += self._framing.name + self._steady(turn.name)
        return tokens

    def _beside(self, turns: Sequence[Message], tools: Sequence[Tool] | None) -> Count:
        """Return what is a range in a prompt."""
        ranged = self._calls(turns)
        if tools:
            in_system = any(turn.role in STEADY_ROLES for turn in turns)
            framing = self._framing
            frame = framing.tools_in_system if in_system else framing.tools
            ranged += self._tools(json.dumps(tools, ensure_ascii=False), frame)
        if self._framing.prelude:
            ranged += Count(0, self._framing.prelude, self._framing.prelude)
            for turn in turns:
                ranged += self._framing.instructions if turn.role in STEADY_ROLES else NOTHING
        return ranged

    def _calls(self, turns: Sequence[Message]) -> Count:
        """Return the calls of tools in turns, and the ids to which results refer."""
        ranged = NOTHING
        for turn in turns:
            if turn.tool_calls:
                ranged += calls_count(turn.tool_calls, self._tokens)
            if turn.tool_call_id is not None:
                ranged += Count(0, 0, self._tokens(turn.tool_call_id))
        return ranged

    def _said(self, example: Example, framed: int) -> int:
        """Return what a model would write; the text of the last turn is not counted again."""
        last = example.messages[-1]
        if example.expected is not None or last.role != "assistant":
            return self._tokens(example.answer or "")
        name = 0 if last.name is None else self._framing.name + self._steady(last.name)
        return framed - self._around["assistant"] - name

    def _around_text(self, role: str) -> int:
        answer = self._framing.answer if role == "assistant" else 0
        return self._framing.message + self._tokens(role) + answer

    def _trained_of(self, tokens: int) -> Count:
        return Count(tokens, tokens, tokens + self._framing.opening)

    def _tools_of(self, text: str, frame: int) -> Count:
        return tools_count(json.loads(text), self._tokens, frame)

    def _widened(self, count: Count) -> Count:
        """Return a count 10 % wider either way where the encoding is a guess.

        Chosen for what a new encoding changed before: o200k_base and cl100k_base are within 1 % of
        each other on English prose and on code, and further apart on other languages.
        """
        if not self._assumed:
            return count
        return Count(count.low * 9 // 10, count.expected, -(-count.high * 11 // 10))


def _sum(count: Count, *more: Count) -> Count:
    for one in more:
        if one is not NOTHING:
            count += one
    return count
