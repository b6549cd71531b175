"""Compute scores over many cases as formulas over sums, so that resampling is cheap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Formula: TypeAlias = Callable[[Floats], Floats]  # from sums (…, k) to scores (…)

ORDERS = 4  # BLEU's longest n-gram. Source: Papineni et al. 2002, P02-1040.
BETA = 2  # chrF weighs recall twice. Source: Popović 2016, W16-2341.


def ratio(over: Floats, under: Floats) -> Floats:
    """Return a quotient, or 0 if the divisor is 0."""
    return np.divide(over, under, out=np.zeros(np.broadcast(over, under).shape), where=under != 0)


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Summands of a score over cases, (n, k), and the formula over their sums."""

    rows: Floats
    formula: Formula

    def __len__(self) -> int:
        return len(self.rows)

    def statistic(self) -> float:
        """Return the score of all cases."""
        return float(self.formula(self.rows.sum(axis=0)))


def mean_of(scores: Sequence[float]) -> Sums:
    """Return the summands of a mean of scores."""
    values = np.asarray(scores, dtype=np.float64)
    return Sums(np.stack([values, np.ones_like(values)], axis=1), mean)


def mean(sums: Floats) -> Floats:  # (…, 2) -> (…)
    """Return the mean."""
    return ratio(sums[..., 0], sums[..., 1])


def class_counts(pairs: Sequence[tuple[int, int | None]], classes: int) -> Floats:  # (n, 3 k)
    """Return, per case and class, hits, expected cases and answered cases."""
    rows = np.zeros((len(pairs), 3, classes))
    for row, (expected, answered) in zip(rows, pairs, strict=True):
        row[1, expected] = 1
        if answered is not None:
            row[2, answered] = 1
            row[0, answered] = expected == answered
    return rows.reshape(len(pairs), -1)


def macro_f1(sums: Floats) -> Floats:  # (…, 3 k), as `class_counts` has them
    """Return the mean F1 of the classes that were expected or answered."""
    hits, expected, answered = np.split(sums, 3, axis=-1)
    there = (expected + answered > 0).sum(axis=-1)
    return ratio(ratio(2 * hits, expected + answered).sum(axis=-1), there)


def micro_f1(sums: Floats) -> Floats:
    """Return F1 over all hits; it equals accuracy if every answer names a label."""
    hits, expected, answered = (part.sum(axis=-1) for part in np.split(sums, 3, axis=-1))
    return ratio(2 * hits, expected + answered)


def bleu_of(sums: Floats) -> Floats:
    """Return corpus BLEU, smoothed as sacrebleu's `exp`.

    Args:
        sums: Answer length, reference length, matching n-grams and answer n-grams for n from 1 to
            4, (…, 10).

    Source:
        Papineni et al. 2002, P02-1040; smoothing: NIST's mteval-v13a, method 3 of Chen and Cherry
        2014, W14-3346, as in sacrebleu 2.
    """
    length, reference = sums[..., 0], sums[..., 1]
    correct, total = sums[..., 2 : 2 + ORDERS], sums[..., 2 + ORDERS :]
    missing = (correct == 0) & (total > 0)
    halved = 0.5 ** np.cumsum(missing, axis=-1)
    precision = ratio(np.where(missing, halved, correct), total)
    with np.errstate(divide="ignore"):  # an order without n-grams makes the score 0
        mean = np.exp(np.log(precision).mean(axis=-1))
        brevity = np.exp(np.minimum(0.0, 1 - ratio(reference, length)))
    matched = (correct > 0).any(axis=-1) & (length > 0)
    return np.where(matched, mean * brevity, 0.0)


def chrf_of(sums: Floats) -> Floats:
    """Return corpus chrF: F2 of precision and recall, each averaged over n-gram orders.

    Args:
        sums: N-grams of answers, of references and shared ones per order, (…, 3 k).

    Source:
        Popović 2015, W15-3049; orders missing on either side are skipped, as in sacrebleu 2.
    """
    given, wanted, common = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    there = (given > 0) & (wanted > 0)
    orders = there.sum(axis=-1)
    precision = ratio((ratio(common, given) * there).sum(axis=-1), orders)
    recall = ratio((ratio(common, wanted) * there).sum(axis=-1), orders)
    return ratio((1 + BETA**2) * precision * recall, BETA**2 * precision + recall)
