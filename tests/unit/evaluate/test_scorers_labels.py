"""choice and class_f1: which label a text names, and F1 over classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score
from support.scoring import attempt, dataset, score

from unitune.errors import DataError, JobError
from unitune.evaluate.scoring.scorers import build, check_expected
from unitune.scorers.interface import Setting
from unitune.scorers.labels import Choice, ClassF1, Labelled, Occurrence, find_label

LETTERS = ("A", "B", "C", "D")
INTENTS = ("card", "card arrival", "refund", "refund_status")


@pytest.mark.parametrize(
    ("labels", "text", "take", "expected"),
    [
        (LETTERS, "B", "only", "B"),
        (LETTERS, " b\n", "only", "B"),
        (LETTERS, "The answer is (B).", "only", "B"),
        (LETTERS, "B) because of the bill", "only", "B"),
        (LETTERS, "BAD", "only", None),
        (LETTERS, "A or B", "only", None),
        (LETTERS, "A or B", "first", "A"),
        (LETTERS, "A or B", "last", "B"),
        (LETTERS, "B, and again: B", "only", "B"),
        (LETTERS, "", "only", None),
        (INTENTS, "The intent is Card Arrival.", "only", "card arrival"),
        (INTENTS, "refund_status", "only", "refund_status"),
        (INTENTS, "refund_statuses", "only", None),
        (INTENTS, "card, not card arrival", "last", "card arrival"),
        (("C", "C++"), "I would use C++ here", "only", "C++"),
        (("退款", "取消"), "答案是退款。", "only", "退款"),
    ],
)
def test_a_label_is_found_as_a_whole_word(
    labels: tuple[str, ...], text: str, take: Occurrence, expected: str | None
) -> None:
    assert expected == find_label(text, labels, take=take)


def test_case_counts_where_it_is_wished() -> None:
    assert find_label("it is us", ("US", "UK"), ignore_case=False) is None
    assert find_label("it is the US", ("US", "UK"), ignore_case=False) == "US"


@given(st.sampled_from(INTENTS), st.sampled_from(["", " ", "\n", "."]))
def test_a_label_always_names_itself(label: str, around: str) -> None:
    assert label == find_label(around + label + around, INTENTS)


@given(st.text(), st.sampled_from(LETTERS))
def test_choice_is_right_or_wrong_whatever_is_answered(answer: str, expected: str) -> None:
    assert score(Choice(options=LETTERS), answer, expected).value in (0, 1)


def test_labels_are_those_of_train_where_none_are_given() -> None:
    setting = Setting(labels=INTENTS)
    assert score(Choice(), "a refund", "refund", setting).value == 1
    assert score(Choice(), "a refund, or card", "refund", setting).value == 0


@pytest.mark.parametrize("spec", [Choice(), ClassF1()])
def test_an_expected_answer_that_is_no_label_is_refused(spec: Labelled) -> None:
    assert isinstance(spec, Choice | ClassF1)
    with pytest.raises(
        DataError, match=r"test\.jsonl:2: the expected answer 'cancel' names none of the 4 answers"
    ):
        check_expected([build(spec, Setting(labels=INTENTS))], dataset("refund", "cancel"))


@pytest.mark.parametrize(
    ("spec", "labels", "complaint"),
    [
        (Choice(), (), "train has 0 distinct answers"),
        (Choice(), tuple(map(str, range(1001))), "train has 1001 distinct answers"),
        (Choice(options=("us", "US")), (), "the label 'us' is in the options twice"),
    ],
)
def test_what_are_no_labels_is_refused(
    spec: Choice, labels: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(JobError, match=complaint):
        build(spec, Setting(labels=labels))


pairs = st.lists(
    st.tuples(st.sampled_from(LETTERS), st.sampled_from([*LETTERS, "none of them"])),
    min_size=1,
    max_size=40,
)


def _scored(spec: ClassF1, rows: list[tuple[str, str]]) -> tuple[float, np.ndarray]:
    scorer = build(spec)
    attempts = [attempt(answer, expected) for expected, answer in rows]
    sums = scorer.sums(attempts, [scorer.score(each).value for each in attempts])
    assert scorer.confusion is not None
    found = scorer.confusion(attempts)
    table = [
        [found.counts.get(wanted, {}).get(given_, 0) for given_ in (*LETTERS, "")]
        for wanted in LETTERS
    ]
    return sums.statistic(), np.array(table)


@given(pairs)
def test_class_f1_and_confusion_agree_with_scikit_learn(rows: list[tuple[str, str]]) -> None:
    """Classes neither expected nor answered do not count, as in scikit-learn without `labels`."""
    expected, answered = zip(*rows, strict=True)
    there = sorted({*expected, *answered} & {*LETTERS})
    macro, table = _scored(ClassF1(options=LETTERS), rows)
    micro, _ = _scored(ClassF1(options=LETTERS, average="micro"), rows)

    def oracle(average: str) -> float:
        return f1_score(expected, answered, labels=there, average=average, zero_division=0)

    assert pytest.approx(oracle("macro")) == macro
    assert pytest.approx(oracle("micro")) == micro
    named = [*LETTERS, "none of them"]
    assert confusion_matrix(expected, answered, labels=named)[:-1].tolist() == table.tolist()


@given(pairs, st.data())
def test_any_resample_is_scored_as_if_its_cases_were_the_file(
    rows: list[tuple[str, str]], data: st.DataObject
) -> None:
    picked = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=40))
    scorer = build(ClassF1(options=LETTERS))
    attempts = [attempt(answer, expected) for expected, answer in rows]
    sums = scorer.sums(attempts, [0.0] * len(rows))
    alone, _ = _scored(ClassF1(options=LETTERS), [rows[at] for at in picked])
    counts = np.bincount(picked, minlength=len(rows))
    assert pytest.approx(alone) == sums.formula(counts[None, :] @ sums.rows)[0]


def test_the_score_of_a_case_is_that_of_choice() -> None:
    assert score(ClassF1(options=LETTERS), "It is B.", "B").value == 1
    assert score(ClassF1(options=LETTERS), "It is B or C.", "B").value == 0
