"""BLEU and chrF over all cases, and over any resample, as sacrebleu has them."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scoring import attempt, score

from unitune.evaluate.scoring.scorers import build
from unitune.scorers.formulas import Sums, bleu_of
from unitune.scorers.interface import Attempt, Scorer
from unitune.scorers.overlap import Bleu, Chrf
from unitune.scorers.text import Exact

pytestmark = pytest.mark.heavy

sacrebleu: Any = importlib.import_module("sacrebleu")

ANSWERS = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
EXPECTED = ["The dog bit the man.", "It was not unexpected.", "The man bit him first."]
"""sacrebleu's README: its three sentences with the first of its two references."""


def sums_of(spec: Scorer, pairs: list[tuple[str, str]]) -> Sums:
    scorer = build(spec)
    attempts = [attempt(answer, expected) for answer, expected in pairs]
    return scorer.sums(attempts, [scorer.score(each).value for each in attempts])


def test_bleu_of_sacrebleus_readme_from_its_counts() -> None:
    """Both references: BLEU = 48.53 82.4/50.0/45.5/37.5 (BP = 0.943 hyp_len = 17 ref_len = 18)."""
    counts = np.array([17, 18, 14, 7, 5, 3, 17, 14, 11, 8], dtype=float)
    assert pytest.approx(0.48530827, abs=5e-9) == float(bleu_of(counts))


def test_bleu_and_chrf_of_the_readmes_sentences_with_one_reference() -> None:
    pairs = list(zip(ANSWERS, EXPECTED, strict=True))
    bleu = sacrebleu.corpus_bleu(ANSWERS, [EXPECTED]).score / 100
    chrf = sacrebleu.corpus_chrf(ANSWERS, [EXPECTED]).score / 100
    assert pytest.approx(bleu) == sums_of(Bleu(), pairs).statistic()
    assert pytest.approx(chrf) == sums_of(Chrf(), pairs).statistic()


def test_chrf_of_sacrebleus_own_corpus() -> None:
    """mjpost/sacrebleu, test/test_chrf.py, test_cases_effective_order."""
    assert pytest.approx(0.5) == sums_of(Chrf(), [("a", "a"), ("b", "c")]).statistic()


words = st.lists(
    st.sampled_from(["the", "cat", "sat", "on", "a", "mat", ",", "again", ".", "Übung"]), max_size=9
)
texts = words.map(" ".join) | st.text(max_size=12)
corpora = st.lists(st.tuples(texts, texts), min_size=1, max_size=6)

ORACLES: list[tuple[Scorer, Any]] = [
    (Bleu(), sacrebleu.BLEU(force=True)),
    (Bleu(tokenize="intl"), sacrebleu.BLEU(force=True, tokenize="intl")),
    (Bleu(tokenize="char", ignore_case=True), sacrebleu.BLEU(tokenize="char", lowercase=True)),
    (Chrf(), sacrebleu.CHRF()),
    (Chrf(word_order=2), sacrebleu.CHRF(word_order=2)),
]


@pytest.mark.parametrize(("spec", "oracle"), ORACLES)
@given(pairs=corpora, data=st.data())
def test_scores_of_all_cases_and_of_resamples_are_sacrebleus(
    spec: Scorer, oracle: Any, pairs: list[tuple[str, str]], data: st.DataObject
) -> None:
    picked = data.draw(st.lists(st.integers(0, len(pairs) - 1), min_size=1, max_size=8))
    sums = sums_of(spec, pairs)

    def sacre(chosen: list[tuple[str, str]]) -> float:
        answers, expected = (list(side) for side in zip(*chosen, strict=True))
        return oracle.corpus_score(answers, [expected]).score / 100

    resampled = sacre([pairs[at] for at in picked])
    counts = np.bincount(picked, minlength=len(pairs))
    assert pytest.approx(sacre(pairs), abs=1e-9) == sums.statistic()
    assert pytest.approx(resampled, abs=1e-9) == sums.formula(counts[None, :] @ sums.rows)[0]
    assert 0 <= sums.statistic() <= 1 + 1e-9


@pytest.mark.parametrize("spec", [Bleu(), Chrf()])
def test_a_case_without_an_answer_counts_as_an_empty_one(spec: Scorer) -> None:
    some = sums_of(spec, [("the cat sat on the mat", "the cat sat on the mat"), ("", "a long dog")])
    assert 0 < some.statistic() < 1
    assert sums_of(spec, [("", "a long dog")]).statistic() == 0


@pytest.mark.parametrize("spec", [Bleu(), Chrf()])
def test_the_score_of_a_single_case_is_for_reading(spec: Scorer) -> None:
    assert pytest.approx(1.0) == score(spec, "two words", "two words").value
    assert score(spec, "", "two words").value == 0


def test_other_scorers_have_the_mean_of_their_cases() -> None:
    scorer = build(Exact())
    attempts: list[Attempt] = [attempt("a", "a"), attempt("b", "a")]
    scores = [scorer.score(each).value for each in attempts]
    assert scorer.sums(attempts, scores).statistic() == 0.5
