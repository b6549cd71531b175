"""Near duplicates and quoted runs: what is found, and that nothing is missed."""

from __future__ import annotations

import json
import random
from collections.abc import Set as AbstractSet
from itertools import combinations, permutations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.chat_rows import chat_rows

from unitune.data.dataset import Row
from unitune.data.near import NEAR_SIMILARITY, Double, NearIndex, parts_needed
from unitune.data.overlap import RUN_WORDS, Search, SharedCase
from unitune.data.pieces import pieces

DISFL_QA = Path(__file__).parents[3] / "../shared/data/disfl-qa"


def rows(*questions: str, answer: str = "x") -> list[Row]:
    return chat_rows((question, answer) for question in questions)


def found(train: list[Row], cases: list[Row]) -> tuple[SharedCase, ...]:
    search = Search(cases)
    search.compare_rows(train, "train")
    return search.shared_cases()


def kinds(train: list[Row], cases: list[Row]) -> list[tuple[int, str]]:
    return [(shared.line, shared.kind) for shared in found(train, cases)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "Is there a fee for exchanging foreign currencies?",
            "Is there a few for exchanging foreign currencies?",
        ),
        ("My card hasn't arrived, what now?", "my card hasn\u2019t arrived - what now"),
        ("Please delete my account.", "please delete my account!"),
        (
            "What is the amount of disposable cards I can have each day?",
            "what is the amount of disposable cards I can have?",
        ),
    ],
)
def test_questions_that_differ_by_a_letter_marks_or_a_word_are_near_duplicates(
    one: str, other: str
) -> None:
    assert kinds(rows(one), rows(other)) == [(1, "near-duplicate")]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What do I have to do to change my name?", "What do I have to do to change my PIN?"),
        ("lost card", "lost cards"),
        ("How do I top up?", "How do I top up by card?"),
        ("top-up", "top_up"),
        ("hi", "hi!"),
    ],
)
def test_short_questions_about_other_things_are_none(one: str, other: str) -> None:
    assert kinds(rows(one), rows(other)) == []


def test_the_similarity_is_that_of_the_sets_of_five_letters() -> None:
    """ " abcdef " and " abcdefg ": pieces " abcd", "abcde", "bcdef" of 4 and 5, in all 6."""
    (shared,) = found(rows("abcdefghijklmnopqrst"), rows("abcdefghijklmnopqrs"))
    # 17 and 18 pieces; "pqrs " and "pqrst", "qrst " are not shared.
    assert pytest.approx(16 / 19) == shared.similarity


def test_a_long_question_quoted_in_a_longer_row_is_found_by_its_runs_of_words() -> None:
    asked = " ".join(f"word{at}" for at in range(20))
    more = " ".join(f"other{at}" for at in range(60))
    (shared,) = found(rows(f"{more} {asked} {more}"), rows(asked))
    assert (shared.kind, shared.similarity) == ("n-gram", 1.0)


@pytest.mark.parametrize(("quoted", "expected"), [(16, [(1, "n-gram")]), (15, [])])
def test_half_of_the_runs_must_stand_in_one_row(
    quoted: int, expected: list[tuple[int, str]]
) -> None:
    """20 words make 8 runs of 13; the first 16 words make 4 of them, the first 15 make 3."""
    words = [f"word{at}" for at in range(20)]
    more = " ".join(f"other{at}" for at in range(60))
    assert len(words) - RUN_WORDS + 1 == 8
    assert expected == kinds(rows(f"{' '.join(words[:quoted])} {more}"), rows(" ".join(words)))


def test_two_rows_that_have_half_each_are_no_leak() -> None:
    words = [f"word{at}" for at in range(30)]
    more = " ".join(f"other{at}" for at in range(60))
    halves = rows(f"{' '.join(words[:19])} {more}", f"{more} {' '.join(words[11:])}")
    assert kinds(halves, rows(" ".join(words))) == []


TEMPLATE = (
    "Read the message of a customer of the bank and answer with one label. Message: {} Label:"
)


def test_a_template_around_every_question_makes_no_leak_and_hides_none() -> None:
    asked = ["where is my card", "refund me at once", "close my account", "the app has crashed"]
    train = rows(
        *(
            TEMPLATE.format(one)
            for one in ("stolen phone", "why was I charged twice for a taxi last night")
        )
    )
    cases = rows(*map(TEMPLATE.format, [*asked, "why was I charged twice for a taxi last nights"]))
    assert kinds(train, cases) == [(5, "near-duplicate")]


def test_two_sums_are_two_questions_unless_their_answers_are_equal() -> None:
    one = "A shop had 1234 boxes of apples and got 5678 more of them. How many are there now?"
    other = one.replace("5678", "5679")
    assert kinds(rows(one, answer="6912"), rows(other, answer="6913")) == []
    assert kinds(rows(one, answer="sum"), rows(other, answer="sum")) == [(1, "near-duplicate")]


def test_the_nearest_double_is_told_and_of_equals_the_one_with_the_same_answer() -> None:
    case = rows("Is there a fee for exchanging foreign currencies?", answer="fee")
    farther = rows("Is there a few for exchanging foreign currencies?", answer="fee")[0].example
    nearer = rows("Is there a fee for exchanging foreign currencies", answer="y")[0].example
    same = rows("Is there a fee, for exchanging foreign currencies?", answer="fee")[0].example
    (shared,) = found([Row(7, farther), Row(8, nearer), Row(9, same), Row(10, same)], case)
    assert (
        shared.kind,
        shared.similarity,
        shared.train_line,
        shared.same_answer,
    ) == ("near-duplicate", 1.0, 9, True)


def test_cases_that_ask_the_same_are_all_found() -> None:
    assert kinds(rows("a"), rows("a", "A")) == [(1, "exact"), (2, "exact")]


SENTENCES = st.lists(
    st.lists(
        st.sampled_from(["card", "cards", "top", "up", "lost", "my", "12"]), min_size=1, max_size=9
    ).map(" ".join),
    min_size=1,
    max_size=12,
)


@given(SENTENCES, SENTENCES)
def test_the_index_finds_what_comparing_all_pairs_finds(train: list[str], asked: list[str]) -> None:
    """Fewer than three distinct cases have no template, so that plain sets are the oracle."""
    asked = sorted(set(asked))[:2]

    def pieces(text: str) -> set[str]:
        return {f" {text} "[at : at + 5] for at in range(len(text) - 2)}

    expected = {
        case: max(
            len(pieces(case) & pieces(row)) / len(pieces(case) | pieces(row)) for row in train
        )
        for case in asked
        if pieces(case)
    }
    near = {case: value for case, value in expected.items() if value >= NEAR_SIMILARITY}
    cases = rows(*asked)
    assert near == {
        asked[shared.line - 1]: shared.similarity
        for shared in found(rows(*train), cases)
        if asked[shared.line - 1] in near or shared.kind == "near-duplicate"
    }


def jaccard(one: AbstractSet[object], other: AbstractSet[object]) -> float:
    return len(one & other) / (len(one | other) or 1)


def brute_force(train: list[Row], cases: list[Row]) -> dict[int, tuple[str, float, int]]:
    """Hold every row against every case, for questions of plain words without templates."""

    def question(row: Row) -> str:
        return row.example.messages[0].text

    def runs(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[at : at + RUN_WORDS]) for at in range(len(words) - RUN_WORDS + 1)}

    found: dict[int, tuple[tuple[bool, float], str, int]] = {}
    looks = [
        (row.line, question(row), pieces(f" {question(row)} "), runs(question(row)))
        for row in train
    ]
    for case in cases:
        asked, mine = pieces(f" {question(case)} "), runs(question(case))
        for line, text, theirs, quoted in looks:
            similarity = jaccard(asked, theirs)
            share = len(mine & quoted) / (len(mine) or 1)
            for kind, value, holds in (
                ("exact", 1.0, text == question(case)),
                ("near-duplicate", similarity, similarity >= NEAR_SIMILARITY),
                ("n-gram", share, share >= 0.5),
            ):
                rank = (kind == "exact", value)
                if holds and (case.line not in found or rank > found[case.line][0]):
                    found[case.line] = (rank, kind, line)
    return {line: (kind, rank[1], row) for line, (rank, kind, row) in found.items()}


VOCABULARY = (
    "card account transfer refund balance limit pin cash charge fee declined pending app phone "
    "address currency exchange rate top up order track lost stolen verify"
)
WORDS = VOCABULARY.split()


def copied(chance: random.Random, text: str) -> str:
    """Return a text with a word or two changed, left out or put in."""
    words = text.split()
    for _ in range(chance.randint(0, 2)):
        at = chance.randrange(len(words) + 1)
        words[at : at + chance.randint(0, 1)] = chance.choices(WORDS, k=chance.randint(0, 1))
    return " ".join(words or WORDS[:1])


@pytest.mark.parametrize("length", [(1, 5), (8, 12), (20, 30), (60, 90)])
def test_the_search_finds_what_holding_every_row_against_every_case_finds(
    length: tuple[int, int],
) -> None:
    """Questions of 25 words share nearly all their pieces; half of the rows are near copies."""
    chance = random.Random(length[0])  # noqa: S311 - repeatable, not secret
    asked = [" ".join(chance.choices(WORDS, k=chance.randint(*length))) for _ in range(100)]
    asked = list(dict.fromkeys(asked))
    train = [
        copied(chance, chance.choice(asked))
        if chance.random() < 0.5
        else " ".join(chance.choices(WORDS, k=chance.randint(*length)))
        for _ in range(400)
    ]
    cases = rows(*asked)
    expected = brute_force(rows(*train), cases)
    kinds = {kind for kind, _, _ in expected.values()}
    assert {"exact", "near-duplicate"} <= kinds
    search = Search(cases)
    search.compare_rows(rows(*train), "train")
    assert expected == {
        one.line: (one.kind, one.similarity, one.train_line) for one in search.shared_cases()
    }


def test_a_pair_just_at_the_threshold_is_found_whatever_its_size() -> None:
    """A text and its first four fifths of pieces: the similarity is 0.8 to the last digit."""
    chance = random.Random(5)  # noqa: S311 - repeatable, not secret
    letters = "abcdefghijklmnopqrstuvwxyz"
    for fifths in (*range(1, 40), 100, 321):
        whole = "".join(chance.choices(letters, k=5 * fifths + 4))
        (double,) = NearIndex([whole]).doubles([whole[: 4 * fifths + 4]])
        assert double == (0, 0, 0.8)
        assert list(NearIndex([whole[: 4 * fifths + 4]]).doubles([whole + letters])) == []


def test_what_is_found_does_not_hang_on_how_much_is_looked_at_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Texts of the same six words share nearly all their pieces: many hits for each."""
    texts = [f" {' '.join(order)} " for order in permutations(WORDS[:5])]
    whole = list(NearIndex(texts).doubles(texts))
    assert len(whole) > len(texts)
    assert whole == [
        Double(at, other, similarity)
        for at, text in enumerate(texts)
        for other, theirs in enumerate(texts)
        if (similarity := jaccard(pieces(text), pieces(theirs))) >= NEAR_SIMILARITY
    ]
    for name in ("near.MOST_HITS", "pieces.BATCH_LETTERS", "pieces.BATCH_TEXTS"):
        monkeypatch.setattr(f"unitune.data.{name}", 100)
        assert whole == list(NearIndex(texts).doubles(texts))


@pytest.mark.parametrize("scanned_per_hit", [1e-9, 25, 1e9], ids=["by pieces", "both", "scanned"])
@pytest.mark.parametrize("rare_texts", [0, 128], ids=["frequent", "rare"])
@pytest.mark.parametrize("template", ["", "Please sort this message of a customer of ours: "])
def test_the_pairs_within_some_texts_are_those_of_comparing_all_with_all(
    monkeypatch: pytest.MonkeyPatch, template: str, rare_texts: int, scanned_per_hit: float
) -> None:
    """Near copies of texts of all sizes, the empty one and others without pieces among them."""
    monkeypatch.setattr("unitune.data.pieces.RARE_TEXTS", rare_texts)
    monkeypatch.setattr("unitune.data.near.SCANNED_PER_HIT", scanned_per_hit)
    monkeypatch.setattr("unitune.data.pieces.BATCH_TEXTS", 64)
    chance = random.Random(7)  # noqa: S311 - repeatable, not secret
    bases = [" ".join(chance.choices(WORDS, k=chance.randint(1, 60))) for _ in range(20)]
    texts = ["", "pin", *(template + copied(chance, chance.choice(bases)) for _ in range(120))]
    index = NearIndex(texts)
    pairs = [
        tuple(sorted((text, other)))
        for text, others in index.candidates_within()
        for other in others.tolist()
        if index.similarity(texts[text], other) >= NEAR_SIMILARITY
    ]
    sets = [pieces(text) for text in texts]
    expected = {
        (at, other)
        for at, other in combinations(range(len(texts)), 2)
        if sets[at] and jaccard(sets[at], sets[other]) >= NEAR_SIMILARITY
    }
    assert expected == set(pairs)
    assert len(pairs) == len(expected) > 50


def test_a_pair_has_more_parts_than_differences_in_frequent_pieces() -> None:
    """So that one part is the same, whatever share of all differences are rare pieces of either."""
    for size, other in product((*range(1, 20), 45, 81, 200, 1999), repeat=2):
        most = (size + other) // 9  # as many may differ at a similarity of 0.8
        ours, theirs = np.indices((most + 1, most + 1)).reshape(2, -1)
        left = most - ours - theirs
        parts = parts_needed(np.maximum(size - 9 * ours, other - 9 * theirs))
        assert (parts > left).all()


def test_few_pairs_of_rows_from_a_template_are_compared_piece_by_piece() -> None:
    """2,000 rows have most of their rare pieces in common with hundreds of others, none with all.

    The previous search would have compared each pair of them.
    """
    chance = random.Random(9)  # noqa: S311 - repeatable, not secret
    texts = [
        f" Hello {chance.choice(WORDS)}, your order {chance.randrange(10**6)} from "
        f"{chance.choice(WORDS)} {chance.choice(WORDS)} town is late "
        for _ in range(2000)
    ]
    compared = sum(len(others) for _, others in NearIndex(texts).candidates_within())
    assert compared < len(texts)


@pytest.mark.skipif(not DISFL_QA.is_dir(), reason="needs the disfl-qa files beside the checkout")
def test_disfl_qa_repeats_nothing_but_what_a_spreadsheet_broke() -> None:
    """Its splits are by article; the only shared questions are cells that say #VALUE!."""

    def read(name: str) -> list[Row]:
        content = json.loads((DISFL_QA / f"{name}.json").read_text(encoding="utf-8"))
        return rows(*(row["disfluent"] for row in content.values()))

    cases = read("test")
    shared = found(read("train"), cases)
    assert {("exact", "#VALUE!")} == {
        (one.kind, cases[one.line - 1].example.messages[0].text) for one in shared
    }
