"""Which answered rows of train a few-shot prompt shows: drawn ones, or those most like a case.

`draw` spreads rows over the answers: one seeded sequence of rows, whose first k are the k shots, so
that more shots only add rows. Each next row is the one whose answer shows most of what was shown
least: a new label before a label a second time, and, in JSON answers, a new value of a key before
one that stood in an earlier shot.

`Neighbours` ranks rows by the cosine of TF-IDF vectors, without a model. A row's vector has two
halves of equal weight: its words and pairs of words, and the runs of 3 to 5 letters inside its
words, which also meet across endings and typing errors. Frequencies count as 1 + log(count), and
rarity as log((1 + rows) / (1 + rows with it)) + 1 (Manning, Raghavan and Schütze, Introduction to
Information Retrieval, 6.2 and 6.4; smoothed as scikit-learn does).

Ties are broken by hash: the same rows give the same shots on every machine, in whatever order they
stand. How many are shown is chosen on dev (`unitune.evaluate.prompts.build`).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from unitune.data.example import Example, digest
from unitune.data.overlap import question

if TYPE_CHECKING:
    from scipy.sparse import csc_array

DRAWN_FROM = 2000
"""Rows that `draw` considers; a seeded sample of a larger file. Keeps it under a second."""
SEARCHED = 20_000
"""Rows that `Neighbours` searches, by hash of a larger file; their vectors take some seconds."""
LETTERS = (3, 4, 5)
"""Lengths of the runs of letters: shorter ones are in all words, longer ones are words."""


def draw(train: Iterable[Example], count: int, seed: int) -> tuple[Example, ...]:
    """Choose rows to show, in the order in which they are shown, spread over the answers."""
    rows = sorted(train, key=lambda example: digest([seed, example.case_id]))
    pool = list({example.input_key: example for example in rows}.values())[:DRAWN_FROM]
    facets = [_facets(example.answer or "") for example in pool]
    shown: Counter[str] = Counter()
    left = list(range(len(pool)))
    drawn: list[Example] = []
    while left and len(drawn) < count:
        best = min(left, key=lambda at: sum(shown[facet] for facet in facets[at]) / len(facets[at]))
        left.remove(best)
        shown.update(facets[best])
        drawn.append(pool[best])
    return tuple(drawn)


def _facets(answer: str) -> tuple[str, ...]:
    """Return what an answer shows: the values of its keys for a JSON object, else itself."""
    try:
        value: object = json.loads(answer)
    except ValueError:
        return (answer.strip(),)
    if isinstance(value, dict) and value:
        return tuple(json.dumps(pair) for pair in cast("dict[str, object]", value).items())
    return (answer.strip(),)


class Neighbours:
    """Finds training rows by their questions; nothing is computed before the first search.

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
        order = np.argsort(-self._likeness(case), kind="stable")[:count]
        return tuple(self._rows[int(at)] for at in order[::-1])

    def _likeness(self, case: Example) -> NDArray[np.float64]:
        text = _text(case)
        words = self._words.likeness(_word_terms(text))
        letters = self._letters.likeness(_letter_terms(text))
        # Rounded, so that equals stay equal whatever the order of additions on a machine.
        return np.round(words + letters, 9)

    @cached_property
    def _rows(self) -> Sequence[Example]:
        ordered = sorted(self._train, key=lambda row: digest(row.content))
        return tuple({row.input_key: row for row in reversed(ordered)}.values())[:SEARCHED]

    @cached_property
    def _words(self) -> _TfIdf:
        return _TfIdf([_word_terms(_text(row)) for row in self._rows])

    @cached_property
    def _letters(self) -> _TfIdf:
        return _TfIdf([_letter_terms(_text(row)) for row in self._rows])


class _TfIdf:
    """Vectors of length 1 of texts, over one kind of terms."""

    def __init__(self, texts: Sequence[Iterable[str]]) -> None:
        from scipy.sparse import csc_array  # noqa: PLC0415 - slow to import

        self._columns: dict[str, int] = {}
        rows: list[int] = []
        columns: list[int] = []
        frequencies: list[float] = []
        for at, terms in enumerate(texts):
            for term, count in Counter(terms).items():
                rows.append(at)
                columns.append(self._columns.setdefault(term, len(self._columns)))
                frequencies.append(1 + math.log(count))
        holders = np.bincount(columns, minlength=len(self._columns))
        self._rarity = np.log((1 + len(texts)) / (1 + holders)) + 1
        weights = np.array(frequencies) * self._rarity[columns]
        lengths = np.sqrt(np.bincount(rows, weights**2, minlength=len(texts)))
        shape = (len(texts), len(self._columns))
        self._vectors: csc_array[np.float64] = csc_array(
            (weights / lengths[rows], (rows, columns)), shape=shape
        )

    def likeness(self, terms: Iterable[str]) -> NDArray[np.float64]:
        """Return each text's cosine with a text; terms that no text has count for nothing."""
        counts = {term: count for term, count in Counter(terms).items() if term in self._columns}
        if not counts:
            return np.zeros(self._vectors.shape[0])
        columns = [self._columns[term] for term in counts]
        weights = (1 + np.log(list(counts.values()))) * self._rarity[columns]
        return np.asarray(self._vectors[:, columns] @ (weights / np.linalg.norm(weights)))


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
