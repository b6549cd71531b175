"""A score over many cases, in the form that makes resampling cheap: `Sums`.

Every score here, from a mean to BLEU, is a formula over sums that run over cases. So a row of
summands is computed once for each case, and a bootstrap over cases only adds rows up again: it
never looks at a text twice.

    sums.statistic()                the score of all cases
    sums.statistic(indices)         of these cases, each as often as its index stands there
    sums.statistics(counts)         of many resamples at once, each given by a count for each case

Two contenders that were asked the same cases in the same order have rows that belong together; to
exchange them case by case, mix their rows (``np.where(swap[:, None], b.rows, a.rows)``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.intp]

Formula: TypeAlias = Callable[[Floats], Floats]
"""From sums (…, k) to scores (…)."""


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What a score over cases is made of.

    Args:
        rows: Summands, one row a case, (n, k).
        formula: Makes scores out of sums.
    """

    rows: Floats
    formula: Formula

    def __len__(self) -> int:
        return len(self.rows)

    def statistic(self, indices: Indices | None = None) -> float:
        """Return the score of some cases.

        Args:
            indices: Which, (m,), each as often as it stands there; all cases by default.
        """
        rows = self.rows if indices is None else self.rows[indices]
        return float(self.formula(rows.sum(axis=0)))

    def statistics(self, counts: NDArray[np.integer | np.floating]) -> Floats:
        """Return the scores of many resamples.

        Args:
            counts: How often each case stands in each resample, (r, n).

        Returns:
            Scores, (r,).
        """
        return self.formula(counts @ self.rows)


def mean_of(scores: Floats) -> Sums:
    """Return the mean of scores as `Sums`.

    Args:
        scores: One a case, (n,).
    """
    return Sums(np.stack([scores, np.ones_like(scores)], axis=1), _mean)


def ratio(over: Floats, under: Floats) -> Floats:
    """Return a quotient that is 0 where the divisor is 0."""
    return np.divide(over, under, out=np.zeros(np.broadcast(over, under).shape), where=under != 0)


def _mean(sums: Floats) -> Floats:  # (…, 2) -> (…)
    return ratio(sums[..., 0], sums[..., 1])
