from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from support.sample_comparison import SYSTEM, Counts, sample_comparison

from unitune.data.example import Message
from unitune.evaluate.documents.records import CaseResult
from unitune.evaluate.documents.results import Comparison
from unitune.report import cases
from unitune.report.cases import Outcome, Piece, ShownCase, marked

ALPHABET = st.text(alphabet='ab _-{":\n猫犬é', max_size=40)


def with_messages(*messages: tuple[Message, ...]) -> Comparison:
    """A comparison whose first cases were asked these messages; the others are left out."""
    comparison = sample_comparison()
    changed = tuple(
        replace(case, messages=asked)
        for case, asked in zip(comparison.cases, messages, strict=False)
    )
    return comparison.model_copy(update={"cases": changed})


def all_shown(comparison: Comparison, **options: int) -> list[ShownCase]:
    return [case for group in cases.grouped(comparison, **options) for case in group.cases]


def question(case: ShownCase) -> str:
    return "".join(piece.text for piece in case.question.pieces)


def test_groups_come_in_a_fixed_order_with_the_comparisons_counts() -> None:
    groups = cases.grouped(sample_comparison(Counts(5, 3, 2, 4)))

    assert [(group.outcome, group.total) for group in groups] == [
        (Outcome.GAINED, 5),
        (Outcome.LOST, 3),
        (Outcome.BOTH_WRONG, 4),
        (Outcome.BOTH_RIGHT, 2),
    ]
    assert [len(group.cases) for group in groups] == [5, 3, 4, 2]


def test_each_case_is_in_the_group_of_its_scores() -> None:
    comparison = sample_comparison(Counts(5, 3, 2, 4))
    by_id = {case.id: case for case in comparison.cases}

    for group in cases.grouped(comparison):
        for shown in group.cases:
            assert group.outcome == cases.outcome(comparison, by_id[shown.id])


def test_only_the_metric_that_decides_makes_a_case_right() -> None:
    comparison = sample_comparison(Counts(0, 0, 0, 1))
    case: CaseResult = comparison.cases[0]
    answer = replace(case.answers["tuned"], scores={"json_equal": 0.0, "other": 1.0})

    changed = replace(case, answers={**case.answers, "tuned": answer})

    assert cases.outcome(comparison, changed) == Outcome.BOTH_WRONG


def test_a_system_prompt_that_all_cases_share_stands_once_and_not_in_the_questions() -> None:
    comparison = sample_comparison()

    assert cases.shared_system_prompt(comparison.cases) == SYSTEM
    assert not any(SYSTEM in question(case) for case in all_shown(comparison))


def test_system_prompts_that_differ_stay_with_their_questions() -> None:
    comparison = with_messages(
        (Message(role="system", content="Be brief."), Message(role="user", content="Hello?")),
        (Message(role="system", content="Be kind."), Message(role="user", content="Hello?")),
    )

    assert cases.shared_system_prompt(comparison.cases) == ""
    assert {question(case) for case in all_shown(comparison)} == {
        "system: Be brief.\n\nuser: Hello?",
        "system: Be kind.\n\nuser: Hello?",
    }


def test_a_conversation_of_several_turns_names_who_speaks() -> None:
    turns = (
        Message(role="user", content="Where is it?"),
        Message(role="assistant", tool_calls=({"id": "1", "function": {"name": "track"}},)),
        Message(role="tool", content="In Köln", tool_call_id="1"),
    )

    (shown,) = all_shown(with_messages(turns))

    assert question(shown) == (
        'user: Where is it?\n\nassistant: [{"id": "1", "function": {"name": "track"}}]\n\n'
        "tool: In Köln"
    )


def test_an_answer_in_error_shows_its_error() -> None:
    comparison = sample_comparison(errors=1)

    errors = [case.baseline.error for case in all_shown(comparison) if case.baseline.error]

    assert errors == ["HTTP 503: overloaded"]


def test_short_texts_stand_open_and_long_ones_are_folded() -> None:
    long = "word " * 200
    comparison = sample_comparison(Counts(1, 0, 0, 0), texts={"question": long})

    (case,) = all_shown(comparison)

    assert long[: cases.BEGINNING] == case.question.beginning
    assert (len(long), 0) == (case.question.characters, case.question.cut)
    assert case.expected.beginning == ""


def test_a_tight_budget_cuts_only_the_long_texts_and_says_how_much() -> None:
    comparison = sample_comparison(
        Counts(10, 0, 0, 0), texts={"question": "word " * 1000, "expected": "yes", "answer": "no"}
    )

    for case in all_shown(comparison, budget=10_000):
        assert len(question(case)) + case.question.cut == 5000
        assert case.question.cut > 0
        assert (case.expected.cut, case.baseline.cut) == (0, 0)


@given(st.lists(st.integers(0, 500), max_size=30), st.integers(0, 5000))
def test_a_fair_limit_keeps_within_the_budget_and_wastes_none(
    lengths: list[int], budget: int
) -> None:
    limit = cases.fair_limit(lengths, budget)
    total = sum(min(length, limit) for length in lengths)

    assert limit == cases.SHORTEST_CUT or total <= budget
    assert all(length <= limit for length in lengths) or total + len(lengths) > budget


def test_words_that_differ_are_marked_and_the_rest_is_not() -> None:
    assert marked('{"intent": "late_parcel"}', '{"intent": "wants_refund"}') == (
        Piece("same", '{"intent": "'),
        Piece("missing", "late_parcel"),
        Piece("extra", "wants_refund"),
        Piece("same", '"}'),
    )


def test_a_space_between_two_changes_does_not_tear_them_apart() -> None:
    pieces = marked("send it to Anna Smith today please", "send it to Bert Jones today please")

    assert list(pieces) == [
        Piece("same", "send it to "),
        Piece("missing", "Anna Smith"),
        Piece("extra", "Bert Jones"),
        Piece("same", " today please"),
    ]


def test_texts_with_little_in_common_are_not_interleaved() -> None:
    assert marked('{"intent": "late_parcel"}', "I cannot help with that.") == (
        Piece("extra", "I cannot help with that."),
    )


def test_chinese_is_compared_character_by_character() -> None:
    assert marked("交货延迟、请给出日期", "交货准时、请给出日期") == (
        Piece("same", "交货"),
        Piece("missing", "延迟"),
        Piece("extra", "准时"),
        Piece("same", "、请给出日期"),
    )


@given(ALPHABET, ALPHABET)
def test_marks_lose_nothing_of_the_answer(expected: str, answer: str) -> None:
    pieces = marked(expected, answer)

    assert answer == "".join(piece.text for piece in pieces if piece.kind != "missing")


@given(ALPHABET)
def test_an_equal_answer_has_no_mark(text: str) -> None:
    assert {piece.kind for piece in marked(text, text)} <= {"same"}
