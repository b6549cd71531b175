"""Which training rows are most like a case: cosine of TF-IDF vectors, without a model.

A row's vector has two halves of equal weight: its words and pairs of words, and the runs of 3 to 5
letters inside its words, which also meet across endings and typing errors. Frequencies count as
1 + log(count), and rarity as log((1 + rows) / (1 + rows with it)) + 1 (Manning, Raghavan and
Schütze, Introduction to Information Retrieval, 6.2 and 6.4; smoothed as scikit-learn does). All is
learned from the training rows: the same rows give the same neighbours on every machine, in
whatever order they stand.

Not here: how a prompt shows them (`unitune.evaluate.prompts.prompts`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unitune.data.example import Example, digest
from unitune.data.overlap import question

Vector: TypeAlias = NDArray[np.float64]

POOL = 20_000
"""Rows that are searched, by hash of a larger file; their vectors take some five seconds."""

LETTERS = (3, 4, 5)
"""Lengths of the runs of letters: shorter ones are in all words, longer ones are words."""


class Neighbours:
    """Finds training rows by their questions; nothing is computed before the first is sought.

    Args:
        train: The training rows; of several with one input the first by hash is kept.
    """

    def __init__(self, train: Sequence[Example]) -> None:
        self._train = train

    def nearest(self, case: Example, count: int) -> tuple[Example, ...]:
        """Return the rows most like a case, the least like first.

        The last of the shots stands next to the question, and models lean to what they saw last
        (Zhao et al. 2021, arXiv 2102.09690): so that is the likest.
        """
        likeness = self._likeness(case)
        order = np.argsort(-likeness, kind="stable")[:count]
        return tuple(self._rows[int(at)] for at in order[::-1])

    def _likeness(self, case: Example) -> Vector:
        text = _text(case)
        words = self._words.likeness(_word_terms(text))
        letters = self._letters.likeness(_letter_terms(text))
        # Rounded, so that equals stay equal whatever the order of additions on a machine.
        return np.round(words + letters, 9)

    @cached_property
    def _rows(self) -> Sequence[Example]:
        ordered = sorted(self._train, key=lambda row: digest(row.content))
        return tuple({row.input_key: row for row in reversed(ordered)}.values())[:POOL]

    @cached_property
    def _words(self) -> _Half:
        return _half([_word_terms(_text(row)) for row in self._rows])

    @cached_property
    def _letters(self) -> _Half:
        return _half([_letter_terms(_text(row)) for row in self._rows])


@dataclass(frozen=True, slots=True)
class _Half:
    """Vectors of all rows over one kind of terms, term by term: a case has few of all terms.

    Args:
        rows: How many there are.
        terms: By name: its rarity, the rows that have it, and their weights of it.
    """

    rows: int
    terms: Mapping[str, _Term]

    def likeness(self, asked: Iterable[str]) -> Vector:
        """Return each row's cosine with a text; terms that no row has count for nothing."""
        total, length = np.zeros(self.rows), 0.0
        for name, count in Counter(asked).items():
            if term := self.terms.get(name):
                weight = (1 + math.log(count)) * term.rarity
                total[term.rows] += weight * term.weights
                length += weight**2
        return total / math.sqrt(length) if length else total


class _Term(NamedTuple):
    rarity: float
    rows: NDArray[np.int64]
    weights: Vector


def _half(texts: Sequence[Iterable[str]]) -> _Half:
    holders: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    for at, terms in enumerate(texts):
        for name, count in Counter(terms).items():
            holders[name].append((at, 1 + math.log(count)))
    rarity = {
        name: math.log((1 + len(texts)) / (1 + len(found))) + 1 for name, found in holders.items()
    }
    squares = np.zeros(len(texts))
    for name, found in holders.items():
        for at, frequency in found:
            squares[at] += (frequency * rarity[name]) ** 2
    lengths = np.sqrt(squares)
    half: dict[str, _Term] = {}
    for name, found in holders.items():
        rows = np.array([at for at, _ in found], dtype=np.int64)
        frequencies = np.array([frequency for _, frequency in found])
        half[name] = _Term(rarity[name], rows, frequencies * rarity[name] / lengths[rows])
    return _Half(len(texts), half)


def _text(example: Example) -> str:
    return " ".join(question(example))


def _word_terms(text: str) -> Iterator[str]:
    words = _plain(text)
    yield from words
    yield from map(" ".join, pairwise(words))


def _letter_terms(text: str) -> Iterator[str]:
    for word in _plain(text):
        padded = f" {word} "
        for length in LETTERS:
            for start in range(max(1, len(padded) - length + 1)):
                yield padded[start : start + length]


def _plain(text: str) -> list[str]:
    """Return the words, as far as they are letters and digits."""
    return "".join(sign if sign.isalnum() else " " for sign in text).split()
