"""Which training rows say what a case says: `Search`, three ways of looking.

    exact            the user turns are equal after normalisation (NFKC, case, white space)
    near-duplicate   of all pieces of five letters in the two, both have at least 80 %
    n-gram           at least half of the case's runs of 13 words stand in one training row

User turns alone are compared: system prompts tend to be shared, and so are labels, canned replies
and JSON answers; whether the answers are equal is told beside. Words that many cases have in a
row, as from a template around each question, are left out of the two inexact ways. Two questions
that differ in a number and in their answers are two questions.

The search is complete, not sampled: where MinHash would miss some, an index of each case's rarest
pieces finds every pair over the threshold (prefix filtering: Chaudhuri, Ganti and Kaushik, ICDE
2006; Bayardo, Ma and Srikant, WWW 2007; the count of shared rare pieces as in Xiao, Wang, Lin and
Yu, WWW 2008). Cases are kept, and training rows stream past them.

Not found: paraphrases and translations. Scripts without spaces are held to near duplicates more
strictly, since five of their letters are several words, and have no runs of words.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from unitune.data.dataset import Row
from unitune.data.example import Example

Kind = Literal["exact", "near-duplicate", "n-gram"]
Turns: TypeAlias = tuple[str, ...]
Words: TypeAlias = tuple[str, ...]
Run: TypeAlias = int

PIECE_LETTERS = 5
"""As for short documents in Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.2.2.

Tried on banking77: of the near duplicates found with 5 letters 96 % have the label of their double;
words instead of letters find "change my name" beside "change my pin".
"""

NEAR_SIMILARITY = 0.8
"""Jaccard similarity from which two texts are near duplicates; customary in deduplication."""

RUN_WORDS = 13
"""Words of an n-gram, as in GPT-3's contamination check (Brown et al. 2020, appendix C)."""

RUN_SHARE = 0.5
"""Share of a case's n-grams in one training row from which the case counts as seen."""

TEMPLATE_WORDS = 5
"""Words in a row that make a template when many cases have them.

The commonest five of banking77 stand in 0.5 % of its cases. A shorter template is too small a part
of a question to make two of them similar.
"""

TEMPLATE_SHARE = 0.1
"""Many is a tenth of the cases, so that a file may mix several templates."""

TEMPLATE_CASES = 3
"""Many is at least so many: two cases may be each other's doubles."""

REMEMBERED_QUESTIONS = 20_000
"""Whose pieces are kept, some 5 KB a sentence; those of others are made again when needed."""

_APOSTROPHES = "'\u2018\u2019"
_MARKS = {
    ord(mark): " " for mark in '.,;:!?"()[]-\u2013\u2014\u2026\u201c\u201d\u201e\u00ab\u00bb'
} | {ord(mark): None for mark in _APOSTROPHES}
"""Sentence marks become spaces, apostrophes nothing; signs such as + and % mean something."""

_DIGITS = re.compile(r"\d+")


class SharedCase(BaseModel):
    """A case whose question stands in the rows that a model or its prompt was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    case: str
    """`Example.case_id` of the case."""
    line: int
    """Of the case in its file."""
    kind: Kind
    similarity: float
    """exact: 1. near-duplicate: Jaccard similarity. n-gram: share of the case's n-grams."""
    train_file: str
    """Where its nearest double stands; of equally near ones the first with the same answer."""
    train_line: int
    same_answer: bool
    """Whether that double has the same answer too, after normalisation."""

    def __str__(self) -> str:
        """Where the double stands, and how near it is: ``train.csv:7, near-duplicate 0.86``."""
        nearness = "" if self.kind == "exact" else f", {self.kind} {self.similarity:.2f}"
        return f"{self.train_file}:{self.train_line}{nearness}"


@dataclass(frozen=True, slots=True)
class _Said:
    """What is compared beside the question: the answer, and the numbers that are asked about."""

    answer: str
    numbers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Question:
    """The user turns of one or several cases.

    Args:
        words: In order, without those of templates.
        pieces: How many different pieces it has.
        runs: How many different runs of words.
        cases: Positions of the cases that ask this.
    """

    words: Words
    pieces: int
    runs: int
    cases: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Double:
    """A row that says what a case says; of several for one case the greatest rank is told."""

    rank: tuple[bool, float, bool]
    kind: Kind
    file: str
    line: int


class Search:
    """Looks for cases in rows that stream past.

    Args:
        cases: What is looked for.
    """

    def __init__(self, cases: Sequence[Row]) -> None:
        self._cases = cases
        self._doubles: dict[int, _Double] = {}
        self._remembered_pieces = lru_cache(REMEMBERED_QUESTIONS)(_pieces)
        asking: defaultdict[Turns, list[int]] = defaultdict(list)
        self._said: list[_Said] = []
        for at, row in enumerate(cases):
            asked = question(row.example)
            asking[asked].append(at)
            self._said.append(_said(row.example, asked))
        self._templates = _templates(asking)
        words = {asked: self._own_words(asked) for asked in asking}
        frequency = Counter(piece for own in words.values() for piece in _pieces(own))
        in_order = sorted(frequency, key=lambda piece: (frequency[piece], piece))
        self._rarity = {piece: at for at, piece in enumerate(in_order, 1)}
        self._exact: dict[Turns, _Question] = {}
        self._by_piece: defaultdict[int, list[_Question]] = defaultdict(list)
        self._by_run: defaultdict[Run, list[_Question]] = defaultdict(list)
        for asked, own in words.items():
            self._index(asked, own, tuple(asking[asked]))

    def _index(self, asked: Turns, words: Words, cases: tuple[int, ...]) -> None:
        pieces, runs = _pieces(words), set(_runs(words, RUN_WORDS))
        indexed = _Question(words, len(pieces), len(runs), cases)
        self._exact[asked] = indexed
        for piece in sorted(map(self._rarity.__getitem__, pieces))[: _prefix(len(pieces))]:
            self._by_piece[piece].append(indexed)
        for run in runs:
            self._by_run[run].append(indexed)

    def look_in(self, rows: Iterable[Row], file: str) -> None:
        """Hold rows against the cases.

        Args:
            rows: What a model or its prompt was made from.
            file: Where they come from, for `SharedCase`.
        """
        for row in rows:
            self.look_at(row, file)

    def look_at(self, row: Row, file: str) -> None:
        """Hold one row against the cases."""
        asked = question(row.example)
        said = _said(row.example, asked)
        for found, kind, similarity in self._matches(asked):
            for at in found.cases:
                case = self._said[at]
                same = case.answer == said.answer
                if kind == "near-duplicate" and not same and case.numbers != said.numbers:
                    continue
                rank = (kind == "exact", similarity, same)
                if at not in self._doubles or rank > self._doubles[at].rank:
                    self._doubles[at] = _Double(rank, kind, file, row.line)

    def found(self) -> tuple[SharedCase, ...]:
        """Return the cases that stand in the rows so far, in the order of the cases."""
        return tuple(
            SharedCase(
                case=self._cases[at].example.case_id,
                line=self._cases[at].line,
                kind=double.kind,
                similarity=double.rank[1],
                train_file=double.file,
                train_line=double.line,
                same_answer=double.rank[2],
            )
            for at, double in sorted(self._doubles.items())
        )

    def _matches(self, asked: Turns) -> Iterator[tuple[_Question, Kind, float]]:
        if asked in self._exact:
            yield self._exact[asked], "exact", 1.0
        words = self._own_words(asked)
        for found, similarity in self._near(words):
            yield found, "near-duplicate", similarity
        for found, share in self._quoted(words):
            yield found, "n-gram", share

    def _near(self, words: Words) -> Iterator[tuple[_Question, float]]:
        pieces = _pieces(words)
        known = sorted(filter(None, map(self._rarity.get, pieces)))
        # Two sets share at most the smaller one: without enough known pieces there is no double.
        if len(known) < NEAR_SIMILARITY * len(pieces):
            return
        # Pieces that no case has are the rarest of all, and find nothing.
        unknown = len(pieces) - len(known)
        rarest = known[: max(_prefix(len(pieces)) - unknown, 0)]
        hits = [found for piece in rarest for found in self._by_piece.get(piece, ())]
        candidates = {id(found): found for found in hits}
        enough: dict[int, float] = {}
        for key, rare in Counter(map(id, hits)).items():
            found = candidates[key]
            if found.pieces not in enough:
                common = max(len(known) - len(rarest), found.pieces - _prefix(found.pieces))
                enough[found.pieces] = _needed(len(pieces), found.pieces) - common
            # Of the pieces that are not among one's rarest, all could be shared, and no more.
            if rare < enough[found.pieces]:
                continue
            shared = len(pieces & self._remembered_pieces(found.words))
            similarity = shared / (len(pieces) + found.pieces - shared)
            if similarity >= NEAR_SIMILARITY:
                yield found, similarity

    def _quoted(self, words: Words) -> Iterator[tuple[_Question, float]]:
        hits = [one for run in set(_runs(words, RUN_WORDS)) for one in self._by_run.get(run, ())]
        found = {id(one): one for one in hits}
        for key, count in Counter(map(id, hits)).items():
            share = count / found[key].runs
            if share >= RUN_SHARE:
                yield found[key], share

    def _own_words(self, asked: Turns) -> Words:
        """Return the words of user turns, without those that come from a template."""
        words = _words(asked)
        if not self._templates:
            return words
        from_template = {
            at + step
            for at, run in enumerate(_runs(words, TEMPLATE_WORDS))
            if run in self._templates
            for step in range(TEMPLATE_WORDS)
        }
        return tuple(word for at, word in enumerate(words) if at not in from_template)


def question(example: Example) -> Turns:
    """Return what is asked, normalised: the user turns; where there are none, the other turns."""
    prompt = example.prompt
    asked = (
        [turn for turn in prompt if turn.role == "user"]
        or [turn for turn in prompt if turn.role not in ("system", "developer")]
        or prompt
    )
    return tuple(_normal(turn.text) for turn in asked)


def _normal(text: str) -> str:
    """Return a text without regard to width, case and white space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def _said(example: Example, asked: Turns) -> _Said:
    return _Said(_normal(example.answer or ""), tuple(_DIGITS.findall(" ".join(asked))))


def _words(asked: Turns) -> Words:
    return tuple(" ".join(asked).translate(_MARKS).split())


def _pieces(words: Words) -> set[str]:
    text = f" {' '.join(words)} "
    return {text[at : at + PIECE_LETTERS] for at in range(len(text) - PIECE_LETTERS + 1)}


def _prefix(pieces: int) -> int:
    """Return how many of its rarest pieces a near duplicate of a question cannot all lack."""
    return pieces - math.ceil(NEAR_SIMILARITY * pieces) + 1


def _needed(pieces: int, others: int) -> float:
    """Return how many pieces two near duplicates with so many must share."""
    if not NEAR_SIMILARITY <= pieces / others <= 1 / NEAR_SIMILARITY:
        return math.inf
    return math.ceil(NEAR_SIMILARITY / (1 + NEAR_SIMILARITY) * (pieces + others))


def _runs(words: Words, length: int) -> Iterator[Run]:
    """Yield all runs of so many words, each by its hash, which no other process shares."""
    return map(hash, zip(*(words[at:] for at in range(length)), strict=False))


def _templates(questions: Collection[Turns]) -> frozenset[Run]:
    """Return the runs of words that many questions have."""
    counts = Counter(
        run for asked in questions for run in set(_runs(_words(asked), TEMPLATE_WORDS))
    )
    many = max(TEMPLATE_CASES, TEMPLATE_SHARE * len(questions))
    return frozenset(run for run, count in counts.items() if count >= many)
