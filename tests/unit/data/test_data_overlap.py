"""Near duplicates and quoted runs: what is found, and that nothing is missed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitune.data.dataset import Row
from unitune.data.example import Example, Message
from unitune.data.overlap import NEAR_SIMILARITY, RUN_WORDS, Search, SharedCase

DISFL_QA = Path(__file__).parents[3] / "../shared/data/disfl-qa"


def rows(*questions: str, answer: str = "x") -> list[Row]:
    return [
        Row(
            line,
            Example(
                messages=(
                    Message(role="user", content=question),
                    Message(role="assistant", content=answer),
                )
            ),
        )
        for line, question in enumerate(questions, 1)
    ]


def found(train: list[Row], cases: list[Row]) -> tuple[SharedCase, ...]:
    search = Search(cases)
    search.look_in(train, "train")
    return search.found()


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
    assert [(1, "near-duplicate")] == kinds(rows(one), rows(other))


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
    assert [] == kinds(rows(one), rows(other))


def test_the_similarity_is_that_of_the_sets_of_five_letters() -> None:
    """ " abcdef " and " abcdefg ": pieces " abcd", "abcde", "bcdef" of 4 and 5, in all 6."""
    (shared,) = found(rows("abcdefghijklmnopqrst"), rows("abcdefghijklmnopqrs"))
    # 17 and 18 pieces; "pqrs " and "pqrst", "qrst " are not shared.
    assert pytest.approx(16 / 19) == shared.similarity


def test_a_long_question_quoted_in_a_longer_row_is_found_by_its_runs_of_words() -> None:
    asked = " ".join(f"word{at}" for at in range(20))
    more = " ".join(f"other{at}" for at in range(60))
    (shared,) = found(rows(f"{more} {asked} {more}"), rows(asked))
    assert ("n-gram", 1.0) == (shared.kind, shared.similarity)


@pytest.mark.parametrize(("quoted", "expected"), [(16, [(1, "n-gram")]), (15, [])])
def test_half_of_the_runs_must_stand_in_one_row(
    quoted: int, expected: list[tuple[int, str]]
) -> None:
    """20 words make 8 runs of 13; the first 16 words make 4 of them, the first 15 make 3."""
    words = [f"word{at}" for at in range(20)]
    more = " ".join(f"other{at}" for at in range(60))
    assert 8 == len(words) - RUN_WORDS + 1
    assert expected == kinds(rows(f"{' '.join(words[:quoted])} {more}"), rows(" ".join(words)))


def test_two_rows_that_have_half_each_are_no_leak() -> None:
    words = [f"word{at}" for at in range(30)]
    more = " ".join(f"other{at}" for at in range(60))
    halves = rows(f"{' '.join(words[:19])} {more}", f"{more} {' '.join(words[11:])}")
    assert [] == kinds(halves, rows(" ".join(words)))


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
    assert [(5, "near-duplicate")] == kinds(train, cases)


def test_two_sums_are_two_questions_unless_their_answers_are_equal() -> None:
    one = "A shop had 1234 boxes of apples and got 5678 more of them. How many are there now?"
    other = one.replace("5678", "5679")
    assert [] == kinds(rows(one, answer="6912"), rows(other, answer="6913"))
    assert [(1, "near-duplicate")] == kinds(rows(one, answer="sum"), rows(other, answer="sum"))


def test_the_nearest_double_is_told_and_of_equals_the_one_with_the_same_answer() -> None:
    case = rows("Is there a fee for exchanging foreign currencies?", answer="fee")
    farther = rows("Is there a few for exchanging foreign currencies?", answer="fee")[0].example
    nearer = rows("Is there a fee for exchanging foreign currencies", answer="y")[0].example
    same = rows("Is there a fee, for exchanging foreign currencies?", answer="fee")[0].example
    (shared,) = found([Row(7, farther), Row(8, nearer), Row(9, same), Row(10, same)], case)
    assert ("near-duplicate", 1.0, 9, True) == (
        shared.kind,
        shared.similarity,
        shared.train_line,
        shared.same_answer,
    )


def test_cases_that_ask_the_same_are_all_found() -> None:
    assert [(1, "exact"), (2, "exact")] == kinds(rows("a"), rows("a", "A"))


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
