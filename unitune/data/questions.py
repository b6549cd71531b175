"""Normalise questions and answers for comparison, without words from shared templates."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeAlias

from unitune.data.example import Example, called, digest

Turns: TypeAlias = tuple[str, ...]
Words: TypeAlias = tuple[str, ...]
Run: TypeAlias = int

# Consecutive words that form a template if many cases have them. The five most common in banking77
# are in 0.5 % of its cases. A shorter template is too small a part of a question to matter.
TEMPLATE_WORDS = 5

TEMPLATE_SHARE = 0.1  # "many" is a tenth of the cases, so a file may mix several templates

TEMPLATE_CASES = 3  # lower bound of "many": two cases may be duplicates

# If this share of the cases with a run has one answer, the run belongs to a question and its
# copies. A run in most cases is a template anyway, because one label may dominate a file.
COPIES_SHARE = 0.9

_APOSTROPHES = "'\u2018\u2019"
# Punctuation becomes spaces and apostrophes vanish; signs such as + and % carry meaning
_MARKS = {
    ord(mark): " " for mark in '.,;:!?"()[]-\u2013\u2014\u2026\u201c\u201d\u201e\u00ab\u00bb'
} | {ord(mark): None for mark in _APOSTROPHES}

_ENDS = re.compile(  # ends of clauses; JSON inside a string has escaped line breaks
    r"[\n\r.,;:!?\"()\[\]\u2026\u201c\u201d\u201e\u00ab\u00bb\u3002\uff01\uff1f]|\\n"
)

_DIGITS = re.compile(r"\d+")
_AS_LETTERS = str.maketrans("0123456789", "ghijklmnop")  # a hash is not a number of the question

# Source: Unicode 16, DerivedCoreProperties.txt, Default_Ignorable_Code_Point
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)

# Lower-case letters that look like Latin ones in either case. Source: Unicode Technical Standard
# 39, confusables.txt, Cyrillic, Greek and Latin letters. Letters of one alphabet stay distinct.
_ALIKE = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445"  # Cyrillic
    "\u0455\u0456\u0458\u0475\u04bb\u04cf\u0501\u051b\u051d"
    "\u03b1\u03b2\u03b5\u03b6\u03b7\u03b9\u03ba\u03bc\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7"  # Greek
    "\u0131\u0251\u0261",
    "abekmhopctyxsijvhldqwabezhikmvoptyxiag",
)


class Templates:
    """Word runs shared by many questions with different answers."""

    def __init__(self, questions: Mapping[Turns, Hashable]) -> None:
        runs = {turns: set(word_runs(words_of(turns), TEMPLATE_WORDS)) for turns in questions}
        counts = Counter(run for some in runs.values() for run in some)
        many = max(TEMPLATE_CASES, TEMPLATE_SHARE * len(questions))
        common = {run for run, count in counts.items() if count >= many}
        answers: defaultdict[Run, Counter[Hashable]] = defaultdict(Counter)
        for turns, answer in questions.items() if common else ():
            for run in runs[turns] & common:
                answers[run][answer] += bool(answer)
        self._runs = frozenset(
            run
            for run in common
            if counts[run] > len(questions) / 2
            or max(answers[run].values()) < COPIES_SHARE * counts[run]
        )

    def own_words(self, turns: Turns) -> Words:
        """Return the words of user turns without those from a template."""
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
    """Return the normalised user turns; without any, the other turns."""
    prompt = example.prompt
    turns = (
        [turn for turn in prompt if turn.role == "user"]
        or [turn for turn in prompt if turn.role not in ("system", "developer")]
        or prompt
    )
    texts = tuple(normal(turn.text) for turn in turns)
    images = [image.key for turn in prompt for image in turn.images]
    return _about(images, texts) if images else texts


def _about(images: Sequence[str], texts: Turns) -> Turns:
    """Replace words by their hashes with the images, as other images make another question."""
    about = digest(images)
    return tuple(
        " ".join(digest([about, word])[:12].translate(_AS_LETTERS) for word in text.split() or [""])
        for text in texts
    )


def conversation(example: Example) -> Turns:
    """Return all turns before the answer, normalised, with their tool calls."""
    return tuple(normal(" ".join((turn.key, *called(turn.tool_calls)))) for turn in example.prompt)


def question_hash(example: Example) -> str:
    """Return a hash of the prompt that ignores case, width and white space."""
    turns = [[turn.role, normal(turn.key), called(turn.tool_calls)] for turn in example.prompt]
    return digest([turns, example.tools])


def answer_key(example: Example) -> tuple[str, ...]:
    """Return the normalised answer and its tool calls; empty without an answer."""
    calls = example.messages[-1].tool_calls if example.expected is None else None
    key = normal(example.answer or ""), *called(calls)
    return key if any(key) else ()


def normal(text: str) -> str:
    """Return a text without differences of width, case, white space and look-alike letters."""
    if text.isascii():
        return " ".join(text.lower().split())
    folded = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded.translate(_ALIKE)).split())


def is_blank(text: str) -> bool:
    """Return whether a text has no visible characters."""
    return not text.strip() or not (text.isascii() or normal(text))


def numbers_of(turns: Turns) -> tuple[str, ...]:
    """Return the numbers in some turns, in order."""
    return tuple(_DIGITS.findall(" ".join(turns)))


def words_of(turns: Turns) -> Words:
    """Return the words of some turns, without punctuation."""
    return tuple(" ".join(turns).translate(_MARKS).split())


def clauses_of(text: str, *, lines: bool = False) -> list[Words]:
    """Return the words of each line, or of each clause."""
    parts = text.splitlines() if lines else _ENDS.split(text)
    return [words for part in parts if part and (words := words_of((normal(part),)))]


def text_of(words: Words) -> str:
    """Join words with a space on both ends, so that every word is delimited."""
    return f" {' '.join(words)} "


def word_runs(words: Words, length: int) -> list[Run]:
    """Return a hash of each run of `length` words; hashes differ between processes."""
    return [hash(words[at : at + length]) for at in range(len(words) - length + 1)]
