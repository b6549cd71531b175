"""edit_distance, token_f1, rouge and sentence chrF against published values and other programs."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scoring import dataset, score

from unitune.errors import DataError
from unitune.evaluate.scoring.scorers import build, check_expected
from unitune.scorers.interface import Scorer
from unitune.scorers.overlap import (
    Rouge,
    SentenceChrf,
    TokenF1,
    gleu,
    rouge_l,
    rouge_n,
    squad_tokens,
)
from unitune.scorers.text import Contains, EditDistance


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("`Needs\tA_LOT of the 'normalization'.\"\u2018", "needs alot of normalization\u2018"),
        ("needs no normalization", "needs no normalization"),
    ],
)
def test_squad_words_are_those_of_t5s_test(text: str, tokens: str) -> None:
    """google-research/text-to-text-transfer-transformer, t5/evaluation/qa_utils_test.py."""
    assert tokens == " ".join(squad_tokens(text))


@pytest.mark.parametrize(
    ("answer", "expected", "f1"),
    [
        # IBM/unitxt, tests of its Squad metric, which is the official script's.
        ("1976", "1976", 1),
        ("Beyonce", "Beyoncé and Bruno Mars", 0),
        ("climate change", "climate change", 1),
        # A test of SQuAD's F1 for Japanese (JSQuAD) on torchmetrics: 2 of 4 words, 2 of 2.
        ("2 時間 21 分", "2 時間", 2 / 3),
        # UKGovernmentBEIS/inspect_ai, tests/scorer/test_classification.py.
        ("Paris", "Paris, Texas", 2 / 3),
        ("The answer is 3.14.", "3.14", 0.5),
        ("U.S.", "US", 1),
        # Where a side has no words, both must have none: SQuAD 2.0's script, compute_f1.
        ("the", "", 1),
        ("", "Denver", 0),
    ],
)
def test_token_f1_of_known_pairs(answer: str, expected: str, f1: float) -> None:
    assert pytest.approx(f1) == score(TokenF1(), answer, expected).value


words = st.lists(
    st.sampled_from(["a", "The", "cat,", "cat", "sat", "on", "mat.", "Ünited", "U.S.", "-", "42"]),
    max_size=8,
).map(" ".join)


def test_rouge_of_rouge_scores_own_example() -> None:
    """google-research/rouge, README; the stemmer changes nothing here."""
    expected = "The quick brown fox jumps over the lazy dog"
    answer = "The quick brown dog jumps on the log."
    assert pytest.approx(0.705882, abs=1e-6) == rouge_n(answer, expected, 1)
    assert pytest.approx(0.588235, abs=1e-6) == rouge_l(answer, expected)


def test_rouge_of_rouge_scores_own_test() -> None:
    """google-research/rouge, rouge_scorer_test.py: precision 1 and recall 1/3."""
    assert rouge_n("testing", "testing one two", 1) == 0.5
    assert rouge_n("testing", "testing one two", 2) == 0.0
    assert rouge_l("testing", "testing one two") == 0.5


@given(words | st.text(), words | st.text())
def test_rouge_is_that_of_rouge_score(answer: str, expected: str) -> None:
    scorer: Any = importlib.import_module("rouge_score.rouge_scorer")
    oracle = scorer.RougeScorer(["rouge1", "rouge2", "rougeL"]).score(expected, answer)
    for variant in ("rouge1", "rouge2", "rougeL"):
        found = score(Rouge(variant=variant), answer, expected).value
        assert pytest.approx(oracle[variant].fmeasure) == found


@pytest.mark.parametrize("variant", ["rouge1", "rouge2", "rougeL"])
def test_an_expected_answer_in_which_rouge_reads_nothing_is_refused(variant: Any) -> None:
    with pytest.raises(
        DataError, match=r"test\.jsonl:2: the expected answer '退款' has fewer than"
    ):
        check_expected([build(Rouge(variant=variant))], dataset("two words", "退款"))


@pytest.mark.parametrize(
    ("answer", "expected", "similarity"),
    [
        # The textbook pair: k to s, e to i, g added. Levenshtein distance 3.
        ("kitten", "sitting", 1 - 3 / 7),
        ("saturday", "sunday", 1 - 3 / 8),
        ("", "", 1),
        ("", "abc", 0),
        (" abc\n", "abc", 1),
        ("ABC", "abc", 0),
    ],
)
def test_edit_similarity_of_known_pairs(answer: str, expected: str, similarity: float) -> None:
    assert pytest.approx(similarity) == score(EditDistance(), answer, expected).value


def test_edit_similarity_may_ignore_case() -> None:
    assert score(EditDistance(ignore_case=True), "ABC", "abc").value == 1


@pytest.mark.parametrize(
    ("answer", "expected", "chrf"),
    [
        ("a", "a", 1),
        ("", "reference", 0),
        ("a b c", "a b c", 1),
        ("a b c", "abc", 1),
        ("", "c", 0),
        ("aa", "ab", 0.25),
    ],
)
def test_sentence_chrf_of_sacrebleus_own_test(answer: str, expected: str, chrf: float) -> None:
    """mjpost/sacrebleu, test/test_chrf.py, test_cases_effective_order."""
    assert pytest.approx(chrf) == score(SentenceChrf(), answer, expected).value


@given(words | st.text(), words | st.text())
def test_sentence_chrf_is_that_of_sacrebleu(answer: str, expected: str) -> None:
    oracle: Any = importlib.import_module("sacrebleu")
    found = oracle.sentence_chrf(answer, [expected]).score / 100
    assert pytest.approx(found) == score(SentenceChrf(), answer, expected).value


def test_gleu_of_the_papers_definition() -> None:
    """Four words of five, three pairs of four, two triples of three, one of two: 10 of 14."""
    assert pytest.approx(10 / 14) == gleu("a b c d x", "a b c d y")
    assert pytest.approx(3 / 10) == gleu("a b", "a b c d")


PROMISED: list[tuple[Scorer, bool]] = [
    (TokenF1(), True),
    (Rouge(variant="rouge1"), True),
    (Rouge(variant="rouge2"), True),
    (Rouge(variant="rougeL"), True),
    (EditDistance(), True),
    (SentenceChrf(), False),
    (Contains(), False),
]
"""Scorers, and whether the order of answer and expected answer is promised not to matter."""


@pytest.mark.parametrize(("spec", "symmetric"), PROMISED)
@given(one=words | st.text(), other=words | st.text())
def test_overlap_is_a_share_and_symmetric_where_promised(
    spec: Scorer,
    symmetric: bool,  # noqa: FBT001 - a parameter of the test
    one: str,
    other: str,
) -> None:
    found = score(spec, one, other).value
    assert 0 <= found <= 1
    if symmetric:
        assert pytest.approx(found) == score(spec, other, one).value


@pytest.mark.parametrize("spec", [spec for spec, _ in PROMISED])
@given(text=st.text(alphabet="abcdefgh ", min_size=1).map(lambda text: f"x y {text}"))
def test_a_text_is_identical_to_itself(spec: Scorer, text: str) -> None:
    assert pytest.approx(1.0) == score(spec, text, text).value


@given(st.text(), st.text())
def test_case_is_the_only_thing_that_ignore_case_forgives(one: str, other: str) -> None:
    assert score(EditDistance(), one, other).value <= 1
    same = score(EditDistance(ignore_case=True), one.upper(), one.upper().casefold())
    assert same.value == 1
