"""Intervals of means: the difference of two contenders on the same cases, and a contender's own.

A piece of evidence is a unit: a case, or a cluster of cases that go right or wrong together, as
those of one customer or one document do. `Units` holds the sum of a value over each unit and the
number of its cases; intervals and permutation tests see nothing else.

One method serves binary and graded scores, repeats, clusters, statistics of a whole corpus (through
their jackknife values, `unitune.evaluate.statistics.paired`) and money: the score interval. A true
mean is refuted when the data, reweighted by maximum likelihood to have that mean, would still
scatter too little to explain the mean that was seen. For scores 0 and 1 it is Wilson's interval,
for differences of two of them Tango's. Other values get the same likelihood over the units that
were seen (empirical likelihood) and one more that was not, at the end of the scale: a rare loss of
everything may be missing from any sample, and the fewer its units, the more of them may be such. So
no interval has width zero.

Exchanging the contenders flips the sign of both ends bit for bit. No random numbers.

Letters in shapes: N cases, K repeats of a case, U units, ... any leading axes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
# One score a case (N,), or K answers of each case (N, K)
Scores: TypeAlias = Sequence[float] | Sequence[Sequence[float]] | FloatArray

# One label a case (N,); cases with equal labels belong together
Clusters: TypeAlias = Sequence[Hashable]


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


def summed(statistics: FloatArray, numbers: npt.NDArray[np.intp]) -> FloatArray:  # (U, S)
    """Return the sum of each unit's cases: statistics (N, S) by the number of their unit (N,)."""
    sums = np.zeros((int(numbers.max()) + 1, statistics.shape[1]))
    np.add.at(sums, numbers, statistics)
    return sums


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


HALVINGS = 60  # of the range in which an end is searched: to a float's precision


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float
    level: float

    @property
    def ends(self) -> tuple[float, float]:
        """Lower and upper end."""
        return self.low, self.high


def difference_interval(differences: Units, level: float = 0.95) -> Interval:
    """Interval of the mean of paired differences, of any scale.

    For clusters it is the wider of the one over clusters and what the cases would give if each
    stood alone, end by end.

    Why no other: of samples without a difference, the 95 % interval lay wholly above 0 in these
    shares, where 2.5 % are promised (`benchmarks/false_claims.py` runs these cells and more):

                                                       this    unseen value as    t
                                                               far as those seen
        gain .0625 in 80 %, lose all in 5 %, n = 20    0.000   0.36               0.36
        gain .04 in 50 %, lose all in 2 %, n = 50      0.000   0.36               0.36
        one of 7 clusters collapses, 10 clusters       0.000   0.22               0.22
        the same, 50 clusters of uneven size           0.018   0.018              0.12

    (t of clusters: robust variance, G - 1 degrees of freedom.)

    For binary scores complete enumeration at n = 300, 500 and 1,000 (discordance 0.005 to 0.3,
    differences 0 to 0.2) gave a least coverage of 0.936, 0.947 and 0.947; with a t interval from
    300 cases on it was 0.936, 0.943 and 0.942. Newcombe's method 10 had 0.925 at n = 50, where
    this one had 0.947.

    Raises:
        ValueError: The level is not between 0 and 1.

    Source:
        Tango 1998, Stat Med 17:891. Empirical likelihood: Owen 1988, Biometrika 75:237; with added
        values: Chen, Variyath and Abraham 2008, J Comput Graph Stat 17:426.
    """
    far = differences.reach
    return _score_interval(differences, (-far, far), level)


def own_interval(scores: Units, level: float = 0.95) -> Interval:
    """Interval of one contender's mean score, within 0 and 1; Wilson's for scores 0 and 1.

    Raises:
        ValueError: The level is not between 0 and 1.

    Source:
        Wilson 1927, JASA 22:209; method 3 of Newcombe 1998, Stat Med 17:857.
    """
    interval = _score_interval(scores, (0.0, 1.0), level)
    return Interval(max(0.0, interval.low), min(1.0, interval.high), level)


def _score_interval(units: Units, scale: tuple[float, float], level: float) -> Interval:
    """Interval of a mean whose values reach from one end of a scale to the other."""
    z, (least, most) = two_sided_z(level), scale
    low = 0.0 - _upper_end(replace(units, sums=-units.sums), -least, z)
    interval = Interval(low, _upper_end(units, most, z), level)
    if units.alone is None:
        return interval
    alone = _score_interval(units.alone, scale, level)
    return Interval(min(interval.low, alone.low), max(interval.high, alone.high), level)


def refuted(
    sums: FloatArray,  # (..., U)
    sizes: FloatArray,  # (..., U)
    farthest: FloatArray | float,  # (...)
    mean: FloatArray | float,  # (...)
    z: float,
) -> npt.NDArray[np.bool_]:  # (...)
    """Whether the values of cases refute a true mean that lies above theirs.

    With x = sum - mean · size of each unit, the weights of greatest likelihood that make the mean
    of x zero are 1 / (U (1 + l x)), and the variance of x under them is its plain mean divided by
    l. So the score statistic U · mean² / variance exceeds z² exactly where l is beyond z² / Σx,
    which is where Σ x / (1 + l x) has not come down to zero yet. No weight may be negative: beyond
    the l that leaves all remaining weight to the farthest unit, the mean is not refuted.

    A unit that was not seen is taken to be as large as the unit that a case lies in on average,
    Σ size² / Σ size: clusters of uneven size may hide a large one.
    """
    mean = np.asarray(mean)
    x = sums - mean[..., None] * sizes  # (..., U)
    total = x.sum(-1)
    unseen = (farthest - mean) * (sizes**2).sum(-1) / sizes.sum(-1)
    largest = np.maximum(x.max(-1), unseen)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        slope = z**2 / -total
        remainder = (x / (1 - slope[..., None] * x)).sum(-1)
        return (total < 0) & (slope * largest < 1) & (remainder < 0)


def _upper_end(units: Units, farthest: float, z: float) -> float:
    """Largest mean that is not refuted, by halving the range from the one seen to the farthest."""
    low = units.mean
    # The mean of equal values may be a rounding above each of them.
    high = max(low, float((units.sums / units.sizes).max()), farthest)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if refuted(units.sums, units.sizes, farthest, middle, z):
            high = middle
        else:
            low = middle
    return high


def two_sided_z(level: float) -> float:
    """Return the standard normal quantile that a two-sided interval of this level reaches to."""
    check_share("level", level)
    return NormalDist().inv_cdf((1 + level) / 2)


def check_share(name: str, value: float) -> None:
    """Raise ValueError unless a value lies strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must be above 0 and below 1, not {value} (0.05 is 5 %)")
