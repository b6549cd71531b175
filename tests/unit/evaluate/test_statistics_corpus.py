"""Statistics of a whole corpus: means as the known case, printed jackknife figures, symmetry."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from unitune.evaluate.statistics.intervals import Units
from unitune.evaluate.statistics.paired import Verdict, compare_corpus, compare_paired, jackknife

LAW_SCHOOLS = [
    (576, 3.39), (635, 3.30), (558, 2.81), (578, 3.03), (666, 3.44), (580, 3.07), (555, 3.00),
    (661, 3.43), (651, 3.36), (605, 3.13), (653, 3.12), (575, 2.74), (545, 2.76), (572, 2.88),
    (594, 2.96),
]  # fmt: skip


def mean(totals: np.ndarray) -> np.ndarray:
    return totals[..., 0] / totals[..., 1]


def counted(scores: np.ndarray) -> np.ndarray:
    """Sufficient statistics of a mean: score and count."""
    return np.stack([scores, np.ones_like(scores)], axis=1)


def macro_f1(totals: np.ndarray) -> np.ndarray:
    right, said, wanted = np.split(totals, 3, axis=-1)
    return (2 * right / np.maximum(said + wanted, 1)).mean(-1)


def confusion(wanted: np.ndarray, said: np.ndarray) -> np.ndarray:
    one_hot = np.eye(3)
    right = one_hot[wanted] * (wanted == said)[:, None]
    return np.concatenate([right, one_hot[said], one_hot[wanted]], axis=1)


def labelled(seed: int, n: int, noise: float) -> np.ndarray:
    random = np.random.default_rng(seed)
    wanted = np.random.default_rng(0).integers(0, 3, n)
    said = np.where(random.random(n) < noise, random.integers(0, 3, n), wanted)
    return confusion(wanted, said)


def test_the_jackknife_gives_the_known_standard_error_of_a_correlation() -> None:
    """Efron and Tibshirani 1993, the 15 law schools: correlation 0.7764, standard error 0.1425.

    To seven digits as R prints them for bootstrap::law, sqrt(var(pseudovalues) / n).
    """
    x, y = np.array(LAW_SCHOOLS).T

    def correlation(totals: np.ndarray) -> np.ndarray:
        n, sx, sy, sxx, syy, sxy = np.moveaxis(totals, -1, 0)
        covariance = n * sxy - sx * sy
        return covariance / np.sqrt((n * sxx - sx**2) * (n * syy - sy**2))

    statistics = np.stack([np.ones(15), x, y, x * x, y * y, x * y], axis=1)
    units = Units(jackknife(statistics, np.ones(15), correlation), np.ones(15))
    assert pytest.approx(0.7763745, abs=5e-8) == units.mean
    assert pytest.approx(0.1425186, abs=5e-8) == math.sqrt(units.scatter / 14)


@given(st.integers(13, 40), st.integers(0, 1000), st.sampled_from([None, 2, 12]))
def test_for_a_mean_it_says_what_the_comparison_of_scores_says(
    n: int, seed: int, groups: int | None
) -> None:
    random = np.random.default_rng(seed)
    old, new = random.random((2, n))
    clusters = None if groups is None else [place % groups for place in range(n)]
    expected = compare_paired(old, new, clusters=clusters)
    actual = compare_corpus(counted(old), counted(new), mean, clusters=clusters)
    assert pytest.approx(expected.difference) == actual.difference
    assert pytest.approx((expected.interval.low, expected.interval.high), rel=1e-6, abs=1e-9) == (
        actual.interval.low,
        actual.interval.high,
    )
    assert expected.clusters == actual.clusters


def test_macro_f1_is_that_of_scikit_learn_and_is_told_apart() -> None:
    wanted = np.random.default_rng(0).integers(0, 3, 400)
    worse, better = labelled(1, 400, noise=0.6), labelled(2, 400, noise=0.2)
    actual = compare_corpus(worse, better, macro_f1)
    said = better[:, 3:6].argmax(1)
    assert pytest.approx(f1_score(wanted, said, average="macro")) == actual.candidate
    assert pytest.approx(actual.candidate - actual.baseline) == actual.difference
    assert actual.verdict == Verdict.BETTER
    assert pytest.approx(1 / 10_001) == actual.p_value
    assert (
        actual.method
        == "jackknife score interval, approximate randomisation (10,000 draws, seed 0)"
    )


@pytest.mark.parametrize("clusters", [None, [place % 20 for place in range(90)]])
def test_exchanging_the_contenders_flips_every_sign(clusters: list[int] | None) -> None:
    old, new = labelled(1, 90, noise=0.4), labelled(2, 90, noise=0.3)
    there = compare_corpus(old, new, macro_f1, clusters=clusters)
    back = compare_corpus(new, old, macro_f1, clusters=clusters)
    assert -there.difference == back.difference
    assert (-there.interval.high, -there.interval.low) == (back.interval.low, back.interval.high)
    assert there.p_value == back.p_value


def test_what_is_not_paired_is_refused() -> None:
    with pytest.raises(ValueError, match="must both be"):
        compare_corpus(np.ones((4, 2)), np.ones((5, 2)), mean)
    with pytest.raises(ValueError, match="at least two cases"):
        compare_corpus(np.ones((1, 2)), np.ones((1, 2)), mean)
    with pytest.raises(ValueError, match="at least two cases or clusters"):
        compare_corpus(np.ones((4, 2)), np.ones((4, 2)), mean, clusters=["a"] * 4)
