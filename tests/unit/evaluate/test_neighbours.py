"""Nearest training rows, held against scikit-learn and by known likeness."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from unitune.data.example import Example, Message
from unitune.evaluate.prompts import prompts
from unitune.evaluate.prompts.prompts import Neighbours


def row(question: str, answer: str = "x") -> Example:
    turns = (Message(role="user", content=question), Message(role="assistant", content=answer))
    return Example(messages=turns)


def asked(rows: tuple[Example, ...]) -> list[str]:
    return [one.messages[0].text for one in rows]


TRAIN = [
    row("How do I top up my card?"),
    row("Topping up by bank transfer"),
    row("Where is my new card?"),
    row("I lost my phone"),
    row("What is the exchange rate for euros?"),
]


@pytest.mark.parametrize(
    ("question", "nearest"),
    [
        ("my card must be topped up", "How do I top up my card?"),
        ("is there a bank transfer for topups", "Topping up by bank transfer"),
        ("EXCHANGE RATES, EURO", "What is the exchange rate for euros?"),
        ("phone lost!!", "I lost my phone"),
    ],
)
def test_the_row_with_most_in_common_stands_last(question: str, nearest: str) -> None:
    assert nearest == asked(Neighbours(TRAIN).nearest(row(question), 3))[-1]


def test_more_neighbours_only_add_rows_at_the_beginning() -> None:
    found = Neighbours(TRAIN)
    assert found.nearest(TRAIN[0], 5)[-2:] == found.nearest(TRAIN[0], 2)


def test_fewer_rows_than_wanted_are_all_shown() -> None:
    assert len(Neighbours(TRAIN).nearest(row("anything"), 9)) == 5


WORDS = st.lists(st.sampled_from(["card", "cards", "top", "up", "lost", "a", "ü"]), max_size=6)
TEXTS = st.lists(WORDS.map(" ".join), min_size=1, max_size=8)


@given(TEXTS, st.randoms(use_true_random=False))
def test_the_order_of_the_file_decides_nothing(texts: list[str], chance: random.Random) -> None:
    rows = [row(text, str(at)) for at, text in enumerate(texts)]
    mixed = chance.sample(rows, len(rows))
    case = row("top up a card")
    assert Neighbours(rows).nearest(case, 4) == Neighbours(mixed).nearest(case, 4)


@given(TEXTS, WORDS.map(" ".join))
def test_likeness_is_the_cosine_that_scikit_learn_finds(texts: list[str], question: str) -> None:
    found = Neighbours([row(text) for text in texts])
    expected = np.zeros(len(found._rows))
    for terms in (prompts._word_terms, prompts._letter_terms):
        oracle = TfidfVectorizer(analyzer=lambda text, of=terms: list(of(text)), sublinear_tf=True)
        kept = [one.messages[0].text for one in found._rows]
        if not any(list(terms(text)) for text in kept):
            continue
        vectors = oracle.fit_transform(kept)
        expected += (vectors @ oracle.transform([question]).T).toarray()[:, 0]
    assert pytest.approx(expected, abs=1e-8) == found._likeness(row(question))


def test_letters_meet_inside_words_and_never_across_them() -> None:
    assert list(prompts._letter_terms("top")) == [" to", "top", "op ", " top", "top ", " top "]
    assert "p u" not in set(prompts._letter_terms("top up"))


def test_of_rows_with_one_question_one_is_shown() -> None:
    doubled = [*TRAIN, row("I lost my phone", "another answer")]
    assert len(Neighbours(doubled).nearest(row("phone"), 9)) == 5
