"""Measure how far reviewers agree, and compare contenders by people's and judges' verdicts.

Kappa by Cohen and Fleiss and Krippendorff's alpha are functions of sums over the cases, so each has
the jackknife interval of `compare_corpus`.

Letters in shapes: N cases, K different values, S sufficient statistics, ... any leading axes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from unitune.evaluate.statistics.intervals import (
    Clusters,
    FloatArray,
    Interval,
    Scores,
    Units,
    case_means,
    difference_interval,
)
from unitune.evaluate.statistics.labels import labels_needed, prediction_powered
from unitune.evaluate.statistics.paired import (
    LEVEL,
    PairedResult,
    compare_paired,
    jackknife,
    verdict,
)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of reviewers beyond chance: 1 is perfect, 0 is chance."""

    estimate: float | None  # None if all verdicts are equal, because chance then explains all
    interval: Interval
    cases: int  # with verdicts of at least two reviewers

    @property
    def figures(self) -> dict[str, Any]:
        """Figures of a judge's result; the interval is known only with an estimate."""
        ends = None if self.estimate is None else self.interval.ends
        return {"agreement": self.estimate, "agreement_interval": ends}


def sign(value: float) -> int:
    """Return 1, 0 or -1, as the value of a verdict."""
    return (value > 0) - (value < 0)


def cohens_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> Agreement:
    """Return the agreement of two reviewers on the same cases.

    kappa = (observed - expected) / (1 - expected), where the expected share of equal verdicts is
    that of reviewers who give their own verdicts at random.

    Raises:
        ValueError: The reviewers have different numbers of cases.

    Source:
        Cohen 1960, Educ Psychol Meas 20:37. Interval: jackknife values over cases, as in
        `compare_corpus`.
    """
    if len(first) != len(second):
        raise ValueError(f"the reviewers have {len(first)} and {len(second)} verdicts")
    kinds = {value: number for number, value in enumerate(dict.fromkeys([*first, *second]))}
    size = len(kinds)
    table = np.zeros((len(first), size, size))  # (N, K, K)
    for case, (one, two) in enumerate(zip(first, second, strict=True)):
        table[case, kinds[one], kinds[two]] = 1

    def kappa(totals: FloatArray) -> FloatArray:  # (..., S) to (...)
        shares = totals.reshape(*totals.shape[:-1], size, size)
        n = np.maximum(shares.sum((-1, -2)), 1)
        observed = np.trace(shares, axis1=-2, axis2=-1) / n
        expected = (shares.sum(-1) * shares.sum(-2)).sum(-1) / n**2
        return _beyond_chance(1 - observed, 1 - expected)

    return _agreement(table.reshape(len(first), size**2), kappa, size)


def fleiss_kappa(verdicts: Sequence[Sequence[Hashable]]) -> Agreement:
    """Return the agreement of two or more verdicts per case, by any reviewers.

    Raises:
        ValueError: Cases have different numbers of verdicts, or fewer than two.

    Source:
        Fleiss 1971, Psychol Bull 76:378. Interval: jackknife values over cases.
    """
    reviewers = {len(case) for case in verdicts}
    if len(reviewers) > 1 or min(reviewers, default=2) < 2:
        raise ValueError("Fleiss' kappa needs equally many verdicts of each case, at least 2")
    kinds = dict.fromkeys(value for case in verdicts for value in case)
    numbers = {value: float(number) for number, value in enumerate(kinds)}
    return _alpha([[numbers[value] for value in case] for case in verdicts], "nominal", 0)


Metric = Literal["nominal", "ordinal"]


def krippendorff_alpha(
    verdicts: Sequence[Sequence[float | None]], metric: Metric = "nominal"
) -> Agreement:
    """Return the agreement of any number of reviewers; some may lack cases.

    alpha = 1 - observed / expected disagreement, with the disagreement of two values that the
    metric defines. Cases with fewer than two verdicts do not count.

    Args:
        verdicts: Verdicts of each case as numbers; None where a reviewer gave none.
        metric: Scale of the values. For -1, 0 and 1 of a pair, `ordinal`.

    Source:
        Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, University of Pennsylvania.
        Interval: jackknife values over cases.
    """
    given = [[value for value in case if value is not None] for case in verdicts]
    return _alpha([case for case in given if len(case) > 1], metric, 1)


def _alpha(given: Sequence[Sequence[float]], metric: Metric, correction: int) -> Agreement:
    """Return Krippendorff's alpha or, without the correction for few verdicts, Fleiss' kappa."""
    kinds = sorted({value for case in given for value in case})
    numbers = {value: number for number, value in enumerate(kinds)}
    counts = np.zeros((len(given), len(kinds)))  # (N, K)
    for case, values in enumerate(given):
        for value in values:
            counts[case, numbers[value]] += 1
    pairs = counts[:, :, None] * counts[:, None, :]  # (N, K, K)
    pairs -= counts[:, :, None] * np.eye(len(kinds))
    pairs /= np.maximum(1, counts.sum(-1) - 1)[:, None, None]

    def alpha(totals: FloatArray) -> FloatArray:  # (..., S) to (...)
        observed = totals.reshape(*totals.shape[:-1], len(kinds), len(kinds))
        values = observed.sum(-1)  # (..., K)
        n = np.maximum(values.sum(-1), 1) - correction
        distance = 1 - np.eye(len(kinds))  # squared, of any two values
        if metric == "ordinal":
            rank = values.cumsum(-1) - values / 2  # (..., K): mean rank of each value
            distance = (rank[..., :, None] - rank[..., None, :]) ** 2
        expected = (values[..., :, None] * values[..., None, :] * distance).sum((-1, -2))
        return _beyond_chance((observed * distance).sum((-1, -2)) * np.maximum(1, n), expected)

    return _agreement(pairs.reshape(len(given), len(kinds) ** 2), alpha, len(kinds))


def _beyond_chance(observed: FloatArray, expected: FloatArray) -> FloatArray:
    """Return 1 - observed / expected disagreement; 0 if chance leaves no disagreement."""
    possible = expected > 1e-12
    return np.where(possible, 1 - observed / np.where(possible, expected, 1.0), 0.0)


def _agreement(
    statistics: FloatArray,  # (N, S)
    score: Callable[[FloatArray], FloatArray],
    kinds: int,
) -> Agreement:
    """Return a coefficient of totals over cases, with its jackknife interval."""
    n = len(statistics)
    if n < 2 or kinds < 2:
        return Agreement(None, Interval(-1.0, 1.0, LEVEL), n)
    values = jackknife(statistics, np.ones(n), score)
    interval = difference_interval(Units(values, np.ones(n), bound=1.0), LEVEL)
    low, high = max(-1.0, interval.low), min(1.0, interval.high)
    return Agreement(float(score(statistics.sum(0))), Interval(low, high, LEVEL), n)


def compare_labelled(  # noqa: PLR0913 - each has a name and a default
    baseline: Scores,  # (N,)
    candidate: Scores,  # (N,)
    labels: Mapping[int, float],
    unknown: AbstractSet[int] = frozenset(),
    *,
    clusters: Clusters | None = None,  # (N,)
    margin: float = 0.05,
    level: float = LEVEL,
) -> PairedResult:
    """Compare a candidate with a baseline by prediction-powered inference.

    Scores, gains and losses are the judge's. Difference, interval, p-value and verdict are
    estimates of the mean of people's verdicts, whatever the judge's bias. `cases_needed` is the
    number of labels, if the cases suffice for them.

    Args:
        baseline: Judge's scores of the baseline, from 0 to 1.
        candidate: Judge's scores of the candidate on the same cases.
        labels: People's verdicts by position of the case: 1 if the candidate is better, -1 if the
            baseline is, 0 for a tie.
        unknown: Positions of cases without a known score of both sides. They keep the difference of
            their given scores, and their labels do not count.
        clusters: Labels of clusters, as in `compare_paired`.
        margin: Difference too small to matter, as a fraction.
        level: Confidence level of the interval.

    Raises:
        ValueError: There are fewer than two labels (with clusters, two clusters with labels).

    Source:
        `unitune.evaluate.statistics.labels.prediction_powered`.
    """
    judged = compare_paired(baseline, candidate, clusters=clusters, margin=margin, level=level)
    values = case_means("candidate", candidate) - case_means("baseline", baseline)
    known = [at for at in range(len(values)) if at not in unknown]
    labelled = [at for at in known if at in labels]
    rest = [at for at in known if at not in labels]
    groups = None
    if clusters is not None:
        groups = [clusters[at] for at in labelled], [clusters[at] for at in rest]
    share, fixed = len(known) / len(values), sum(values[at] for at in unknown) / len(values)

    samples = (
        [labels[at] for at in labelled],
        [float(values[at]) for at in labelled],
        [float(values[at]) for at in rest],
    )

    def estimated(at_level: float) -> tuple[Interval, float, float]:
        found = prediction_powered(*samples, clusters=groups, level=at_level)
        low, high = (fixed + share * end for end in (found.low, found.high))
        interval = Interval(max(-1.0, low), min(1.0, high), at_level)
        return interval, fixed + share * found.estimate, found.p_value

    interval, difference, p_value = estimated(level)
    interval90, _, _ = estimated(round(2 * level - 1, 12))
    if unknown:  # an interval that excludes 0 is the test
        excluded = interval.low > 0 or interval.high < 0
        p_value = 1 - level if excluded else max(p_value, 2 * (1 - level))
    return replace(
        judged,
        difference=difference,
        interval=interval,
        interval90=interval90,
        p_value=p_value,
        verdict=verdict(interval, interval90, margin, p_value),
        cases_needed=labels_needed(*samples, margin) or judged.cases_needed,
        method=f"prediction-powered inference (PPI++) from {len(labelled):,} labels of people",
        warnings=(),
        p_exact=None,
    )


RIDGE = 0.01  # keeps the fit finite if a side wins every pair
STEPS = 50  # Newton's method converges in about ten


def length_controlled(values: Sequence[float], lengths: Sequence[float]) -> float:
    """Return the candidate's share of wins at equal lengths, from 0 to 1; ties are half a win.

    A logistic regression explains the preference by a constant and tanh(difference / its standard
    deviation). The result is its prediction with the length term set to 0.

    Args:
        values: 1 if the candidate is preferred, -1 if the other side is, else 0.
        lengths: Candidate's length minus the other's, of the same pairs.

    Source:
        Dubois et al. 2024, arXiv 2404.04475; `length_controlled_minimal` of AlpacaEval 2, here with
        a small ridge instead of cross-validated L1.
    """
    longer = np.asarray(lengths, dtype=np.float64)
    spread = float(longer.std())
    term = np.tanh(longer / spread) if spread else np.zeros_like(longer)
    inputs = np.stack([np.ones_like(term), term], axis=1)  # (N, 2)
    wins, weights = (1 + np.asarray(values, dtype=np.float64)) / 2, np.zeros(2)
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-inputs @ weights))  # (N,)
        slope = inputs.T @ (wins - chance) - RIDGE * weights
        curve = (inputs * (chance * (1 - chance))[:, None]).T @ inputs + RIDGE * np.eye(2)
        weights += np.linalg.solve(curve, slope)
    return float(1 / (1 + np.exp(-weights[0])))
