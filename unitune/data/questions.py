"""What of a row is compared with others: its question, normalised, without the words of templates.

User turns alone are compared: system prompts tend to be shared. Words that many questions have in a
row, as from a template around each of them, are left out.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection
from typing import TypeAlias

from unitune.data.example import Example

Turns: TypeAlias = tuple[str, ...]
Words: TypeAlias = tuple[str, ...]
Run: TypeAlias = int

TEMPLATE_WORDS = 5
"""Words in a row that make a template when many cases have them.

The commonest five of banking77 stand in 0.5 % of its cases. A shorter template is too small a part
of a question to make two of them similar.
"""

TEMPLATE_SHARE = 0.1
"""Many is a tenth of the cases, so that a file may mix several templates."""

TEMPLATE_CASES = 3
"""Many is at least so many: two cases may be each other's doubles."""

_APOSTROPHES = "'\u2018\u2019"
_MARKS = {
    ord(mark): " " for mark in '.,;:!?"()[]-\u2013\u2014\u2026\u201c\u201d\u201e\u00ab\u00bb'
} | {ord(mark): None for mark in _APOSTROPHES}
"""Sentence marks become spaces, apostrophes nothing; signs such as + and % mean something."""

_DIGITS = re.compile(r"\d+")


class Templates:
    """The runs of words that many questions have.

    Args:
        questions: Their turns, as of `question`, each once.
    """

    def __init__(self, questions: Collection[Turns]) -> None:
        counts = Counter(
            run for turns in questions for run in set(word_runs(words_of(turns), TEMPLATE_WORDS))
        )
        many = max(TEMPLATE_CASES, TEMPLATE_SHARE * len(questions))
        self._runs = frozenset(run for run, count in counts.items() if count >= many)

    def own_words(self, turns: Turns) -> Words:
        """Return the words of user turns, without those that come from a template."""
        words = words_of(turns)
        runs = word_runs(words, TEMPLATE_WORDS) if self._runs else ()
        if self._runs.isdisjoint(runs):
            return words
        from_template = {
            at + step
            for at, run in enumerate(runs)
            if run in self._runs
            for step in range(TEMPLATE_WORDS)
        }
        return tuple(word for at, word in enumerate(words) if at not in from_template)


def question(example: Example) -> Turns:
    """Return the question, normalised: the user turns; where there are none, the other turns."""
    prompt = example.prompt
    turns = (
        [turn for turn in prompt if turn.role == "user"]
        or [turn for turn in prompt if turn.role not in ("system", "developer")]
        or prompt
    )
    return tuple(normal(turn.text) for turn in turns)


def normal(text: str) -> str:
    """Return a text without regard to width, case and white space."""
    if text.isascii():
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def numbers_of(turns: Turns) -> tuple[str, ...]:
    """Return the numbers of some turns, in order."""
    return tuple(_DIGITS.findall(" ".join(turns)))


def words_of(turns: Turns) -> Words:
    """Return the words of some turns, without sentence marks."""
    return tuple(" ".join(turns).translate(_MARKS).split())


def text_of(words: Words) -> str:
    """Return words as a text whose first and last are as much words as the others."""
    return f" {' '.join(words)} "


def word_runs(words: Words, length: int) -> list[Run]:
    """Return all runs of so many words, each by its hash, which no other process shares."""
    return [hash(words[at : at + length]) for at in range(len(words) - length + 1)]
