"""Choose the token counter of a model.

A vendor can count the prompts of a sample, by which the count of every row is scaled. If the
model's own tokenizer is missing, o200k_base counts a measured range instead.

Vocabularies agree on English and code and differ most on scripts that some were not trained on.
Tokens of the same texts as a multiple of o200k_base, measured with ``benchmarks/token_ranges.py``
on 2026-11-30:

| | Latin | Cyrillic, Korean | Greek, Hebrew, Persian | Chinese, Japanese | of India |
|--|--|--|--|--|--|
| Gemma 3 | 0.92-1.14 | 0.91-0.99 | 0.95-1.18 | 0.65-0.85 | 0.75-1.03 |
| Gemini | 0.88-1.13 | 0.95-1.13 | 0.93-1.09 | 0.64-0.85 | 1.23-1.71 |
| Llama 3.1 | 0.96-1.29 | 0.96-1.20 | 0.99-2.59 | 0.95-1.04 | 1.50-4.36 |
| Llama 4 | 0.84-1.07 | 0.86-0.93 | 0.95-1.16 | 0.73-0.82 | 1.04-2.01 |
| Qwen3 | 1.00-1.35 | 1.17-1.46 | 0.97-2.46 | 0.87-0.89 | 2.48-3.85 |
| DeepSeek V3 | 1.00-1.30 | 1.10-1.27 | 1.18-1.32 | 0.80-0.90 | 1.38-2.19 |

Latin: 25 languages besides English, Python and JSON, which alone are within 1.00 to 1.14.
Gemma, Gemini and Qwen have a token per digit and o200k_base one per three digits, so the high count
has one per digit. The 32,000 entries of Mistral 7B v0.3 differ more: up to 1.26, 1.84, 2.01, 2.91,
1.54 and 5.44 times. Such vocabularies and unpublished ones get `UNSEEN` times the high count.
Scripts that were not measured count as those of India.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.util import find_spec
from math import ceil, floor
from typing import Literal, NamedTuple, Self

import yaml
from pydantic import TypeAdapter, model_validator

from unitune.backends.capabilities import CountsTokens, StoredModel
from unitune.cost.tokens.by_encoding import EncodingCounter, count_tokens
from unitune.cost.tokens.by_tokenizer import TokenizerCounter, find_tokenizer
from unitune.cost.tokens.count import Count, RowCount, TokenCounter, assumed_row, framing_assumption
from unitune.cost.tokens.images import ImageCounter, rule_of
from unitune.data.example import Example
from unitune.documents import Spec
from unitune.errors import Unsupported
from unitune.models import Request
from unitune.workspace.install import install_command

ENCODING = "o200k_base"


class Multiple(NamedTuple):
    """Tokens of an unknown vocabulary per token of o200k_base."""

    low: float
    expected: float
    high: float


# Everything outside the scripts below: Latin letters, digits, punctuation, spaces
LATIN = Multiple(0.83, 1.05, 1.35)
# Cyrillic and Korean; Greek, Hebrew and Arabic; Chinese and Japanese; others, such as those of
# India, and emoji
SCRIPTS: tuple[tuple[re.Pattern[str], Multiple], ...] = (
    (re.compile(r"[\u0400-\u052f\uac00-\ud7af]+"), Multiple(0.85, 1.1, 1.5)),
    (re.compile(r"[\u0370-\u03ff\u1f00-\u1fff\u0590-\u06ff]+"), Multiple(0.85, 1.25, 2.6)),
    (re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]+"), Multiple(0.63, 0.9, 1.15)),
    (
        re.compile(r"[\u0700-\u1dff\u3100-\u33ff\ua000-\uabff\U00010000-\U0010ffff]+"),
        Multiple(0.6, 1.8, 4.4),
    ),
)
UNSEEN = 1.4
DIGITS = re.compile(r"\d{2,}")


class ApproximateCounter:
    """Counter with o200k_base and a range for other (wider: unpublished) vocabularies."""

    def __init__(self, reason: str, *, unseen: bool = False) -> None:
        self._reason = reason
        self._most = UNSEEN if unseen else 1.0

    @property
    def basis(self) -> str:
        return (
            f"{ENCODING} instead of {'an unpublished' if self._most > 1 else 'another'} vocabulary"
        )

    @property
    def assumptions(self) -> tuple[str, ...]:
        times = f"{LATIN.low:.2f} to {LATIN.high * self._most:.2f} times"
        own = f"the model may have {times} as many tokens (more outside Latin script)"
        return (f"{self._reason}: {ENCODING} counts instead; {own}", framing_assumption())

    def text(self, text: str) -> Count:
        total = count_tokens(ENCODING, text)
        parts = [] if text.isascii() else [_part(text, *script) for script in SCRIPTS]
        rest = max(0, total - sum(tokens for tokens, _ in parts))
        low, expected, high = (
            rest * factor + sum(tokens * multiple[at] for tokens, multiple in parts)
            for at, factor in enumerate(LATIN)
        )
        digits = sum(len(run) - ceil(len(run) / 3) for run in DIGITS.findall(text))
        return Count(floor(low), round(expected), ceil((high + digits) * self._most))

    def row(self, example: Example) -> RowCount:
        return assumed_row(example, self.text)


def _part(text: str, script: re.Pattern[str], multiple: Multiple) -> tuple[int, Multiple]:
    """Return the tokens of a text's runs in a script, counting each run separately."""
    return sum(count_tokens(ENCODING, run) for run in script.findall(text)), multiple


# Prefix before a vendor's name of a model. Another owner's model (``owner/gpt-4o-like``) is a
# different one
_PREFIX = re.compile(
    r"ft:|(openai|azure|google|anthropic|amazon|models)/|.*\b(models|foundation-model)/"
)


class Family(Spec):
    """Models that share a tokenizer."""

    pattern: str
    """Regular expression for the start of a name in lower case."""
    encoding: Literal["o200k_base", "cl100k_base"] | None = None
    framing: Literal["chat", "harmony"] = "chat"
    """Framing of conversations."""
    assumed: str = ""
    """Reason why the encoding is a guess; empty if it is known."""
    hidden: str = ""
    """Reason why the tokenizer is not available; empty if there is an encoding."""

    @model_validator(mode="after")
    def _encoding_or_reason(self) -> Self:
        if (self.encoding is None) != bool(self.hidden):
            raise ValueError("a family needs either an encoding or the reason why it has none")
        return self


def family_of(model: str) -> Family | None:
    """Return the family of a model (tuned or not), or None for an open or unknown model."""
    name = _bare(model)
    return next((family for family in families() if re.match(family.pattern, name)), None)


def _bare(model: str) -> str:
    name = model.lower()
    while prefix := _PREFIX.match(name):
        name = name[prefix.end() :]
    return name


@cache
def families() -> tuple[Family, ...]:
    """Return all families in the order in which they are tried."""
    file = importlib.resources.files("unitune.cost.tokens") / "families.yaml"
    known = yaml.safe_load(file.read_text(encoding="utf-8"))
    return TypeAdapter(tuple[Family, ...]).validate_python(known)


def counter_for(
    model: str, stored: Iterable[StoredModel] = (), *, aliases: Iterable[str] = ()
) -> TokenCounter:
    """Return the counter of a model, by any of its names, without downloading anything.

    The tokenizers of `stored` models are searched in addition to the Hugging Face cache.
    """
    return ImageCounter(_text_counter(model, stored, aliases), rule_of(_bare(model)))


def _text_counter(
    model: str, stored: Iterable[StoredModel], aliases: Iterable[str]
) -> TokenCounter:
    kept, names = tuple(stored), (model, *aliases)
    folder = next(filter(None, (find_tokenizer(name, kept) for name in names)), None)
    readable = find_spec("tokenizers") is not None
    if folder is not None and readable:
        try:
            return TokenizerCounter(folder)
        except ValueError as problem:
            return ApproximateCounter(f"the tokenizer of {model}: {problem}")
    family = next(filter(None, map(family_of, names)), None)
    if family is not None and family.encoding is not None:
        return EncodingCounter(family.encoding, family.framing, family.assumed)
    if family is not None:
        return ApproximateCounter(family.hidden, unseen=True)
    if folder is not None:
        return ApproximateCounter(
            "the package `tokenizers`, which reads a model's own tokenizer, is not installed "
            f"({install_command('local')})"
        )
    return ApproximateCounter(f"the tokenizer of {model} is not on this machine")


# A random sample of 200 rows was within 5 % of the file's tokens (95 of 100 times, two files of
# 50,000 and 2,000 rows, measured 2026-11-24)
SAMPLE_ROWS = 200


@dataclass(frozen=True, slots=True)
class VendorCounter:
    """Counter that scales another counter by a vendor's count of a sample."""

    own: TokenCounter
    prompts: int  # number counted by the vendor
    least: Fraction  # smallest ratio of the vendor's tokens to ours
    expected: Fraction  # ratio over all prompts together
    most: Fraction

    @classmethod
    def sampled(
        cls, backend: CountsTokens, model: str, own: TokenCounter, rows: Iterable[Example]
    ) -> VendorCounter:
        """Let the vendor count the prompts of a sample of rows, one request each.

        Raises:
            Unsupported: The vendor counts none of them. Its other errors are not caught.
        """
        pairs: list[tuple[int, int]] = []
        refused = Unsupported("the sample has no prompts to count.")
        for row in rows:
            if not row.prompt:
                continue
            try:
                counted = backend.count_tokens(model, Request(messages=row.prompt, tools=row.tools))
            except Unsupported as problem:
                refused = problem
                continue
            pairs.append((counted, max(1, own.row(row).prompt.expected)))
        if not pairs:
            raise refused
        ratios = [Fraction(theirs, ours) for theirs, ours in pairs]
        theirs, ours = (sum(column) for column in zip(*pairs, strict=True))
        return cls(own, len(pairs), min(ratios), Fraction(theirs, ours), max(ratios))

    @property
    def basis(self) -> str:
        return f"the vendor's own count of {self.prompts:,} prompts; {self.own.basis}"

    @property
    def assumptions(self) -> tuple[str, ...]:
        times = f"{float(self.least):.2f} to {float(self.most):.2f} times"
        return (f"the vendor counted {times} our expected tokens; all rows are scaled accordingly",)

    def row(self, example: Example) -> RowCount:
        ours = self.own.row(example)
        return RowCount(*map(self._scaled, (ours.prompt, ours.answer, ours.total)))

    def _scaled(self, count: Count) -> Count:
        tokens = count.expected
        return Count(
            floor(tokens * self.least), round(tokens * self.expected), ceil(tokens * self.most)
        )
