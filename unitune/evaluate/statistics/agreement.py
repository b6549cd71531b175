"""Measure how far reviewers agree beyond chance: Cohen's and Fleiss' kappa, Krippendorff's alpha.

All are functions of sums over the cases, so each has the jackknife interval of `compare_corpus`.

Letters in shapes: N cases, K different values, S sufficient statistics, ... any leading axes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unitune.evaluate.statistics.intervals import FloatArray, Interval, Units, difference_interval
from unitune.evaluate.statistics.paired import LEVEL, jackknife


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of reviewers beyond chance: 1 is perfect, 0 is chance."""

    estimate: float | None  # None if all verdicts are equal, because chance then explains all
    interval: Interval
    cases: int  # with verdicts of at least two reviewers


def cohens_kappa(
    first: Sequence[Hashable], second: Sequence[Hashable], *, level: float = LEVEL
) -> Agreement:
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
        n = _at_least_one(shares.sum((-1, -2)))
        observed = np.trace(shares, axis1=-2, axis2=-1) / n
        expected = (shares.sum(-1) * shares.sum(-2)).sum(-1) / n**2
        return _beyond_chance(1 - observed, 1 - expected)

    return _agreement(table.reshape(len(first), size**2), kappa, size, level)


def fleiss_kappa(verdicts: Sequence[Sequence[Hashable]], *, level: float = LEVEL) -> Agreement:
    """Return the agreement of two or more verdicts per case; each case has equally many.

    Args:
        verdicts: Verdicts of each case, by any reviewers.
        level: Confidence level.

    Raises:
        ValueError: Cases have different numbers of verdicts, or fewer than two.

    Source:
        Fleiss 1971, Psychol Bull 76:378. Interval: jackknife values over cases.
    """
    reviewers = {len(case) for case in verdicts}
    if len(reviewers) > 1 or min(reviewers, default=2) < 2:
        raise ValueError("Fleiss' kappa needs equally many verdicts of each case, at least 2")
    counts = _counts(
        verdicts, list(dict.fromkeys(value for case in verdicts for value in case))
    )  # (N, K)
    each = max(reviewers, default=2)
    equal = (counts * (counts - 1)).sum(-1) / (each * (each - 1))  # (N,)

    def kappa(totals: FloatArray) -> FloatArray:  # (..., 1 + K) to (...)
        given = _at_least_one(totals[..., 1:].sum(-1))
        expected = ((totals[..., 1:] / given[..., None]) ** 2).sum(-1)
        return _beyond_chance(1 - totals[..., 0] * each / given, 1 - expected)

    return _agreement(np.column_stack([equal, counts]), kappa, counts.shape[1], level)


Metric = Literal["nominal", "ordinal", "interval", "ratio"]


def krippendorff_alpha(
    verdicts: Sequence[Sequence[float | None]], metric: Metric = "nominal", *, level: float = LEVEL
) -> Agreement:
    """Return the agreement of any number of reviewers, some of whom may lack cases.

    alpha = 1 - observed / expected disagreement, with the disagreement of two values that the
    metric defines. Cases with fewer than two verdicts do not count.

    Args:
        verdicts: Verdicts of each case as numbers; None where a reviewer gave none.
        metric: Scale of the values. For -1, 0 and 1 of a pair, `ordinal`.
        level: Confidence level.

    Source:
        Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, University of Pennsylvania.
        Interval: jackknife values over cases.
    """
    given = [[value for value in case if value is not None] for case in verdicts]
    given = [case for case in given if len(case) > 1]
    kinds = sorted({value for case in given for value in case})
    counts = _counts(given, kinds)  # (N, K)
    pairs = counts[:, :, None] * counts[:, None, :]  # (N, K, K)
    pairs -= counts[:, :, None] * np.eye(len(kinds))
    pairs /= np.maximum(1, counts.sum(-1) - 1)[:, None, None]

    def alpha(totals: FloatArray) -> FloatArray:  # (..., S) to (...)
        observed = totals.reshape(*totals.shape[:-1], len(kinds), len(kinds))
        values = observed.sum(-1)  # (..., K)
        n = _at_least_one(values.sum(-1))
        distance = _squared_distance(metric, np.array(kinds), values)
        expected = (values[..., :, None] * values[..., None, :] * distance).sum((-1, -2))
        return _beyond_chance((observed * distance).sum((-1, -2)) * np.maximum(1, n - 1), expected)

    return _agreement(pairs.reshape(len(given), len(kinds) ** 2), alpha, len(kinds), level)


def _squared_distance(metric: Metric, kinds: FloatArray, counts: FloatArray) -> FloatArray:
    """Return the squared distance of any two values, (K, K); ordinal (..., K, K)."""
    low, high = kinds[:, None], kinds[None, :]
    if metric == "nominal":
        return (low != high).astype(np.float64)
    if metric == "interval":
        return (low - high) ** 2
    if metric == "ratio":
        total = low + high
        return ((low - high) / np.where(total, total, 1.0)) ** 2
    middle = counts.cumsum(-1) - counts / 2  # (..., K): mean rank of each value
    return (middle[..., :, None] - middle[..., None, :]) ** 2


def _counts(verdicts: Sequence[Sequence[Hashable]], kinds: Sequence[Hashable]) -> FloatArray:
    """Return how often each case was given each value, (N, K)."""
    counts = np.zeros((len(verdicts), len(kinds)))
    numbers = {value: number for number, value in enumerate(kinds)}
    for case, values in enumerate(verdicts):
        for value in values:
            counts[case, numbers[value]] += 1
    return counts


def _at_least_one(count: FloatArray) -> FloatArray:
    return np.maximum(count, 1.0)


def _beyond_chance(observed: FloatArray, expected: FloatArray) -> FloatArray:
    """Return 1 - observed / expected disagreement; 0 if chance leaves no disagreement."""
    possible = expected > 1e-12
    return np.where(possible, 1 - observed / np.where(possible, expected, 1.0), 0.0)


def _agreement(
    statistics: FloatArray,  # (N, S)
    score: Callable[[FloatArray], FloatArray],
    kinds: int,
    level: float,
) -> Agreement:
    """Return a coefficient of totals over cases, with its jackknife interval."""
    n = len(statistics)
    if n < 2 or kinds < 2:
        return Agreement(None, Interval(-1.0, 1.0, level), n)
    values = jackknife(statistics, np.ones(n), score)
    interval = difference_interval(Units(values, np.ones(n), bound=1.0), level)
    low, high = max(-1.0, interval.low), min(1.0, interval.high)
    return Agreement(float(score(statistics.sum(0))), Interval(low, high, level), n)
