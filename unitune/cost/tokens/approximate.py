"""Count with o200k_base if the model's own tokenizer is missing, as a measured range.

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

import re
from math import ceil, floor
from typing import NamedTuple

from unitune.cost.tokens.by_encoding import count_tokens
from unitune.cost.tokens.count import Count, RowCount, assumed_row, framing_assumption
from unitune.data.example import Example

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
