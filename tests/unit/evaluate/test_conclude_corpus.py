"""Metrics that are made of all cases together, from the answers to the verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.told import PAIR, by_number

from unitune.evaluate.statistics.paired import own_corpus, own_score
from unitune.scorers.formulas import mean_of

LABELS = ["yes", "no"]


@by_number
def rule(at: int, *, told: bool) -> str:
    """Zero-shot always says yes; instructed is right in all but every tenth case."""
    return LABELS[(at + (at % 10 == 0)) % 2] if told else "yes"


def test_a_verdict_by_class_f1_is_about_the_score_of_all_cases(compare_by: Any) -> None:
    """Always yes on 30 yes and 30 no: F1 is 2/3 for yes and 0 for no, so macro-F1 is 1/3."""
    scorers = [{"type": "class_f1", "options": LABELS}, "exact"]
    rows = [(f"test {at}", LABELS[at % 2]) for at in range(60)]
    found = compare_by(rule, {"contenders": PAIR, "scorers": scorers}, test=rows)
    baseline, candidate = found.contenders

    assert pytest.approx(1 / 3) == baseline.score
    assert pytest.approx(candidate.score - baseline.score) == found.difference
    assert found.verdict == "better"
    assert "jackknife" in found.method
    assert candidate.interval[0] < candidate.score < candidate.interval[1]
    assert [contrast.name for contrast in found.secondary] == ["exact"]
    assert baseline.confusion["class_f1"].counts == {"yes": {"yes": 30}, "no": {"yes": 30}}
    assert "exact" not in baseline.confusion


@given(st.lists(st.integers(0, 100).map(lambda percent: percent / 100), min_size=2, max_size=40))
def test_the_interval_of_a_mean_is_the_same_by_either_way(scores: list[float]) -> None:
    """The jackknife values of a mean are the values themselves."""
    sums = mean_of(np.array(scores))
    by_jackknife, by_mean = own_corpus(sums.rows, sums.formula), own_score(scores)

    assert pytest.approx((by_mean.low, by_mean.high), abs=1e-6) == (
        by_jackknife.low,
        by_jackknife.high,
    )
