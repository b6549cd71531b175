"""Count for models that use one of OpenAI's encodings: exact texts in the framing of chat.

Whether a training counts the tokens that open a reply is unknown, and so is the framing of tools
and calls. Both are ranges; the high count of tools and calls is their JSON.
"""

from __future__ import annotations

import importlib.resources
import json
import lzma
import re
from binascii import a2b_base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from math import floor
from typing import TYPE_CHECKING, Literal, TypedDict, cast

import yaml
from pydantic import JsonValue

from unitune.cost.tokens.count import Count, RowCount
from unitune.data.example import Example, Message

if TYPE_CHECKING:
    import tiktoken

# Number of texts whose counts are cached: most files have one system prompt and one list of tools
RECENT_TEXTS = 64
INSTRUCTION_ROLES = ("system", "developer")
NOTHING = Count()


@dataclass(frozen=True, slots=True)
class Framing:
    """Tokens that surround texts."""

    source: str
    message: int  # per message, without its role and text
    name: int  # for a message with a name, without the name
    opening: int  # after a prompt, to open the reply
    tools: int  # around the tools of a prompt
    instructions: Count = NOTHING  # around a system or developer message
    answer: int = 0  # additional tokens per answer
    prelude: int = 0  # at the start of a conversation; a vendor may or may not add them


FRAMINGS: dict[Literal["chat", "harmony"], Framing] = {
    "chat": Framing(
        source="openai-cookbook, How_to_count_tokens_with_tiktoken, which matches the API",
        message=3,
        name=1,
        opening=3,
        tools=9,
    ),
    # <|start|> role <|message|> … <|end|>; <|start|>assistant; <|channel|>final; and a system
    # message of 57 tokens with the model, dates, reasoning effort and channels. Instructions have a
    # heading and, in the model's chat template, a blank line after them. Tools add a developer
    # message, two headings and a sentence in the system message.
    "harmony": Framing(
        source="openai/harmony, docs/format.md, and openai-harmony 0.0.8",
        message=3,
        name=1,
        opening=2,
        tools=27,
        instructions=Count(0, 3, 4),
        answer=2,
        prelude=61,
    ),
}


class EncodingCounter:
    """Counter that uses o200k_base or cl100k_base, with ranges if the encoding is a guess."""

    def __init__(
        self, encoding: str, framing: Literal["chat", "harmony"] = "chat", assumed: str = ""
    ) -> None:
        self._encoding = encoding
        self._framing = FRAMINGS[framing]
        self._assumed = assumed
        self._tokens = lru_cache(RECENT_TEXTS)(partial(count_tokens, encoding))

    @property
    def basis(self) -> str:
        return f"{self._encoding}, framed as in {self._framing.source}"

    @property
    def assumptions(self) -> tuple[str, ...]:
        opening, prelude = self._framing.opening, self._framing.prelude
        assumptions = [self._assumed] if self._assumed else []
        assumptions += [
            f"the {opening} reply-priming tokens are counted in the upper bound only",
            f"tools are counted as {TOOLS_LOW:.0%} to 100% of the tokens of their JSON",
        ]
        if prelude:
            assumptions.append(
                f"the {prelude} tokens of the system message are not in the low count"
            )
        return tuple(assumptions)

    def row(self, example: Example) -> RowCount:
        """Return the tokens of a row.

        For a preference row, both answers are counted with the prompt once (low, expected) or twice
        (high), because no vendor documents which.
        """
        last, opening = example.messages[-1], self._framing.opening
        answers = example.messages[-1:] if last.role == "assistant" else ()
        worse = example.non_preferred_output or ()
        before = self._framed(example.prompt) + self._prelude(example.prompt, example.tools)
        written = self._framed(answers)
        prompt = before + Count.of(opening)
        total = before + written + self._framed(worse) + Count(0, 0, opening)
        if worse:
            total += Count(0, 0, prompt.high)
        answer = Count.of(self._tokens(example.answer or "")) + self._calls(answers)
        return RowCount(*map(self._widened, (prompt, answer, total)))

    def _framed(self, turns: Sequence[Message]) -> Count:
        tokens = 0
        for turn in turns:
            tokens += self._framing.message + self._tokens(turn.role) + self._tokens(turn.text)
            tokens += self._framing.answer if turn.role == "assistant" else 0
            if turn.name is not None:
                tokens += self._framing.name + self._tokens(turn.name)
        return Count.of(tokens) + self._calls(turns)

    def _prelude(self, turns: Sequence[Message], tools: Sequence[Tool] | None) -> Count:
        framing, added = self._framing, Count()
        instructions = [turn for turn in turns if turn.role in INSTRUCTION_ROLES]
        if tools:
            added += Count.of(framing.tools) + self._tools(tools)
        if framing.prelude:
            added += Count(0, framing.prelude, framing.prelude)
            added += sum([framing.instructions] * len(instructions), Count())
        return added

    def _calls(self, turns: Sequence[Message]) -> Count:
        calls = Count()
        for turn in turns:
            if turn.tool_calls:
                calls += sum((_call(each, self._tokens) for each in turn.tool_calls), Count())
            if turn.tool_call_id is not None:
                calls += Count(0, 0, self._tokens(turn.tool_call_id))
        return calls

    def _tools(self, tools: Sequence[Tool]) -> Count:
        tokens = self._tokens(json.dumps(tools, ensure_ascii=False))
        return Count(floor(tokens * TOOLS_LOW), round(tokens * TOOLS_EXPECTED), tokens)

    def _widened(self, count: Count) -> Count:
        """Return a count widened by 10 % if the encoding is a guess.

        New encodings changed counts by less before: o200k_base and cl100k_base are within 1 % of
        each other on English prose and code, and further apart on other languages.
        """
        if not self._assumed:
            return count
        return Count(count.low * 9 // 10, count.expected, -(-count.high * 11 // 10))


Tokens = Callable[[str], int]
Tool = Mapping[str, JsonValue]

# Tokens of tools in a prompt as a fraction of their JSON tokens, without the frame. Measured: 0.36
# to 0.64 in 24 prompts with known counts (hmarr/openai-chat-tokens, src/token-counts.test.ts, 2024;
# openai-harmony 0.0.8). With long descriptions the fraction approaches 1.
TOOLS_LOW = 0.3
TOOLS_EXPECTED = 0.5
# Tokens of " to=functions.", which addresses a call in OpenAI's public Harmony format
CALL_ADDRESS = 4


def _call(call: Tool, tokens: Tokens) -> Count:
    function = call.get("function")
    as_json = tokens(_json(call))
    if not isinstance(function, dict):
        return Count.of(as_json)
    plain = tokens(_text(function, "name")) + tokens(_text(function, "arguments"))
    likely = plain + CALL_ADDRESS
    return Count(plain, likely, max(likely, as_json))


def _text(values: Mapping[str, JsonValue], key: str) -> str:
    value = values.get(key, "")
    return value if isinstance(value, str) else _json(value)


def _json(value: JsonValue | Tool) -> str:
    return json.dumps(cast("JsonValue", value), ensure_ascii=False)


# Longest text passed to tiktoken at once. tiktoken 0.14.0 panics in its regular expressions
# (StackOverflow) on a million white-space characters, but not on 450,000 (2026-11-25).
PIECE_CHARACTERS = 100_000
# No token of either encoding spans the end of a word and the following space, so cutting there does
# not change the count
_BETWEEN_WORDS = re.compile(r"[A-Za-z](?= [A-Za-z])")
_DATA = importlib.resources.files("unitune.cost.tokens") / "encodings"


class _Recipe(TypedDict):
    sha256: str
    special: dict[str, int]
    pattern: list[str]


def count_tokens(encoding: str, text: str) -> int:
    """Return the number of tokens of any text in o200k_base or cl100k_base; never fails."""
    encode = tiktoken_encoding(encoding).encode_ordinary
    return sum(len(encode(piece)) for piece in pieces(text))


def pieces(text: str, most: int = PIECE_CHARACTERS) -> Iterator[str]:
    """Cut a long text between words, or else anywhere, into pieces of at most `most` characters."""
    start = 0
    while len(text) - start > most:
        window = text[start : start + most]
        # Search the end first: a whole window of prose has thousands of candidates.
        for tail in (max(0, most - 1000), 0):
            if places := [match.end() for match in _BETWEEN_WORDS.finditer(window, tail)]:
                break
        cut = places[-1] if places else most
        yield window[:cut]
        start += cut
    yield text[start:]


@cache
def tiktoken_encoding(name: str) -> tiktoken.Encoding:
    """Return tiktoken's o200k_base or cl100k_base, built from the shipped table."""
    import tiktoken  # noqa: PLC0415 - slow to import

    recipe = recipes()[name]
    fields = rank_table(name).split()
    ranks = dict(zip(map(a2b_base64, fields[::2]), map(int, fields[1::2]), strict=True))
    return tiktoken.Encoding(
        name,
        pat_str="|".join(recipe["pattern"]),
        mergeable_ranks=ranks,
        special_tokens=recipe["special"],
    )


def rank_table(name: str) -> bytes:
    """Return an encoding's uncompressed rank file as published by tiktoken."""
    return lzma.decompress(_DATA.joinpath(f"{name}.tiktoken.xz").read_bytes())


@cache
def recipes() -> dict[str, _Recipe]:
    """Return the patterns, special tokens and hashes of the encodings, by name."""
    text = _DATA.joinpath("encodings.yaml").read_text(encoding="utf-8")
    return cast("dict[str, _Recipe]", yaml.safe_load(text))
