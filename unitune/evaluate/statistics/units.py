"""What counts as one piece of evidence: a case, or all cases of a cluster.

Cases of one customer or one document tend to go right or wrong together, so that many of them say
little more than one. `Units` holds the sum of a value over each unit and the number of its cases;
intervals and permutation tests see nothing else.

In shapes: N cases, K repeats of a case, U units.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
Scores: TypeAlias = Sequence[float] | Sequence[Sequence[float]] | FloatArray
"""One score a case (N,), or K answers of each case (N, K)."""

Clusters: TypeAlias = Sequence[Hashable]
"""One label a case (N,); cases with equal labels belong together."""


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """Sums of a value over the units, with their sizes.

    Args:
        sums: Sum of the value over each unit's cases.
        sizes: Number of cases of each unit.
        alone: The same value with every case a unit of its own; None when that is so already.
        bound: The largest value that a case may have, whatever its sign; 0 where none is known.
    """

    sums: FloatArray  # (U,)
    sizes: FloatArray  # (U,)
    alone: Units | None = None
    bound: float = 0.0

    @classmethod
    def of(cls, values: FloatArray, clusters: Clusters | None, bound: float = 0.0) -> Self:
        """Sum a value of each case over its cluster; without clusters each case is a unit.

        Raises:
            ValueError: There are not as many labels as values.
        """
        cases = cls(values, np.ones_like(values), bound=bound)
        if clusters is None:
            return cases
        numbers = numbered(clusters, len(values))
        sizes = np.bincount(numbers).astype(np.float64)
        if len(sizes) == len(values):
            return cases
        return cls(np.bincount(numbers, weights=values).astype(np.float64), sizes, cases, bound)

    @property
    def count(self) -> int:
        """Number of units."""
        return len(self.sums)

    @property
    def n(self) -> int:
        """Number of cases."""
        return int(self.sizes.sum())

    @property
    def mean(self) -> float:
        """Mean of the value over all cases."""
        return float(self.sums.sum() / self.sizes.sum())

    @property
    def reach(self) -> float:
        """The largest mean that a unit may have, whatever its sign.

        It is the bound, or that of a unit where one lies beyond (jackknife values may); without
        bound the largest seen, and 1 when all are 0.
        """
        return max(float(np.abs(self.sums / self.sizes).max()), self.bound) or 1.0

    @property
    def usual_size(self) -> float:
        """Mean size of the unit that a case lies in; 1 where each case stands alone."""
        return float((self.sizes**2).sum() / self.sizes.sum())

    @property
    def is_binary(self) -> bool:
        """Whether each case stands alone, with a value of -1, 0 or 1."""
        return self.alone is None and bool(np.isin(self.sums, (-1, 0, 1)).all())

    @property
    def scatter(self) -> float:
        """Variance of the mean over all cases, times their number.

        Without clusters that is the variance of the value. Not corrected for small samples.
        """
        residuals = self.sums - self.mean * self.sizes  # (U,)
        return float((residuals**2).sum() / self.sizes.sum())

    @property
    def design_effect(self) -> float:
        """Variance of the mean relative to that of cases that stand alone."""
        if self.alone is None or not self.alone.scatter:
            return 1.0
        return self.scatter / self.alone.scatter


def numbered(clusters: Clusters, n: int) -> npt.NDArray[np.intp]:  # (N,)
    """Return the number of each case's cluster, in the order in which they are met first.

    Raises:
        ValueError: There are not as many labels as cases.
    """
    if len(clusters) != n:
        raise ValueError(f"{len(clusters)} cluster labels for {n} cases")
    numbers = {label: number for number, label in enumerate(dict.fromkeys(clusters))}
    return np.array([numbers[label] for label in clusters], dtype=np.intp)


def case_means(contender: str, scores: Scores) -> FloatArray:
    """Return the mean score of each case over its repeats.

    Returns:
        One mean a case, (N,).

    Raises:
        ValueError: There is no score, one lies outside 0 to 1, or cases have different repeats.
    """
    try:
        table = np.asarray(scores, dtype=np.float64)  # (N,) or (N, K)
    except ValueError as error:
        raise ValueError(f"{contender}: every case needs the same number of repeats") from error
    if table.size == 0:
        raise ValueError("no cases to compare: give each contender a score for at least one")
    if table.ndim > 2:
        raise ValueError(f"{contender}: scores are (cases,) or (cases, repeats), not {table.shape}")
    wrong = np.argwhere(~((table >= 0) & (table <= 1)))
    if len(wrong):
        position = tuple(wrong[0].tolist())
        place = position[0] if table.ndim == 1 else position
        raise ValueError(
            f"{contender} has the score {table[position]:g} at position {place}: "
            "scores go from 0 to 1"
        )
    return table if table.ndim == 1 else table.mean(axis=1)
