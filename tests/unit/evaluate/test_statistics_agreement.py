"""Agreement of reviewers against Krippendorff's table, statsmodels and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats import inter_rater

from unitune.evaluate.statistics.judgements import (
    Metric,
    cohens_kappa,
    fleiss_kappa,
    krippendorff_alpha,
)

# Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section E: 4 observers, 12 units
TABLE = """\
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 ."""


def cases_of(table: str) -> list[tuple[float | None, ...]]:
    rows = [
        [None if each == "." else float(each) for each in row.split()] for row in table.split("\n")
    ]
    return list(zip(*rows, strict=True))


def verdicts_of(table: list[list[int]]) -> tuple[list[int], list[int]]:
    """Return both reviewers' verdicts of a table of counts."""
    cells = [(i, j) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]
    return [i for i, _ in cells], [j for _, j in cells]


@pytest.mark.parametrize(("metric", "expected"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_krippendorffs_table(metric: Metric, expected: float) -> None:
    result = krippendorff_alpha(cases_of(TABLE), metric)
    assert result.estimate == pytest.approx(expected, abs=5e-4)
    assert result.cases == 11
    assert result.interval.low < expected < result.interval.high


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([[20, 5], [10, 15]], 0.4),
        ([[45, 15], [25, 15]], 0.1304348),
        ([[25, 35], [5, 35]], 0.2592593),
    ],
)
def test_cohens_kappa_of_printed_tables(table: list[list[int]], expected: float) -> None:
    result = cohens_kappa(*verdicts_of(table))
    assert result.estimate == pytest.approx(expected, abs=5e-8)


@pytest.mark.parametrize("seed", range(5))
def test_cohens_kappa_is_that_of_scikit_learn_and_its_interval_near_statsmodels(seed: int) -> None:
    random = np.random.default_rng(seed)
    first = random.integers(-1, 2, 300)
    second = np.where(random.random(300) < 0.7, first, random.integers(-1, 2, 300))
    result = cohens_kappa(first.tolist(), second.tolist())
    assert result.estimate == pytest.approx(cohen_kappa_score(first, second))
    table = np.histogram2d(first, second, bins=3)[0]
    oracle = inter_rater.cohens_kappa(table)
    expected = (oracle.kappa_low, oracle.kappa_upp)
    assert result.interval.ends == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_fleiss_kappa_is_that_of_statsmodels(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(0, 3, 80)
    verdicts = np.where(
        random.random((80, 4)) < 0.6, truth[:, None], random.integers(0, 3, (80, 4))
    )
    table, _ = inter_rater.aggregate_raters(verdicts)
    result = fleiss_kappa(verdicts.tolist())
    assert result.estimate == pytest.approx(inter_rater.fleiss_kappa(table))


def test_alpha_of_two_reviewers_nears_cohens_kappa() -> None:
    random = np.random.default_rng(1)
    first = random.integers(0, 2, 5_000)
    second = np.where(random.random(5_000) < 0.8, first, 1 - first)
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    alpha, kappa = krippendorff_alpha(pairs), cohens_kappa(first.tolist(), second.tolist())
    assert alpha.estimate == pytest.approx(kappa.estimate, abs=1e-3)


def test_perfect_agreement_is_1_and_its_interval_has_a_width() -> None:
    result = cohens_kappa(["win", "loss"] * 20, ["win", "loss"] * 20)
    assert result.estimate == 1.0
    assert 0.7 < result.interval.low < 0.95


def test_equal_verdicts_everywhere_show_no_agreement_beyond_chance() -> None:
    for result in (
        cohens_kappa(["win"] * 9, ["win"] * 9),
        fleiss_kappa([["win", "win"]] * 9),
        krippendorff_alpha([[1.0, 1.0]] * 9),
        krippendorff_alpha([[1.0, None]] * 9),
    ):
        assert result.estimate is None
        assert result.interval.ends == (-1.0, 1.0)


@pytest.mark.parametrize("verdicts", [[["a"]], [["a", "b"], ["a"]]])
def test_fleiss_kappa_needs_equally_many_verdicts(verdicts: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="equally many verdicts of each case, at least 2"):
        fleiss_kappa(verdicts)


def test_reviewers_of_different_cases_are_refused() -> None:
    with pytest.raises(ValueError, match="the reviewers have 2 and 1 verdicts"):
        cohens_kappa(["win", "tie"], ["win"])


@pytest.mark.slow
def test_the_interval_of_kappa_covers_it() -> None:
    """Two reviewers who agree in 70 % and else guess: kappa 0.7, 40 cases."""
    random, hits, draws = np.random.default_rng(2), 0, 2_000
    for _ in range(draws):
        first = random.integers(0, 3, 40)
        second = np.where(random.random(40) < 0.7, first, random.integers(0, 3, 40))
        interval = cohens_kappa(first.tolist(), second.tolist()).interval
        hits += interval.low <= 0.7 <= interval.high
    assert hits / draws >= 0.93
