"""Intervals of means: the difference of two contenders on the same cases, and a contender's own.

One method serves binary and graded scores, repeats, statistics of a whole corpus (through their
jackknife values, `unitune.evaluate.statistics.corpus`) and money: the score interval. A true mean
is refuted when the data, reweighted by maximum likelihood to have that mean, would still scatter
too little to explain the mean that was seen. For scores 0 and 1 it is Wilson's interval, for
differences of two of them Tango's. Graded values get the same likelihood over the values that were
seen (empirical likelihood) and, on both sides, one as far out as the farthest of them; so no
interval has width zero. Clusters have a score interval of their own, from robust variances.

Exchanging the contenders flips the sign of both ends bit for bit. No random numbers.

Not here: tests (`unitune.evaluate.statistics.significance`) and verdicts
(`unitune.evaluate.statistics.paired`). Letters in shapes: N cases, U units
(`unitune.evaluate.statistics.units`), ... any leading axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from unitune.evaluate.statistics.units import FloatArray, Units

FEWEST_CLUSTERS = 10
"""Below as many clusters the interval is that of the sign-flip test.

Miller 2024 and Cameron, Gelbach and Miller 2008 (Rev Econ Stat 90:414) warn of variances from so
few; the sign-flip interval needs none.
"""

HALVINGS = 60
"""Of the range in which an end is looked for: to a float's precision."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval.

    Args:
        low: Lower end.
        high: Upper end.
        level: Confidence level, such as 0.95.
    """

    low: float
    high: float
    level: float


def difference_interval(differences: Units, level: float = 0.95) -> Interval:
    """Interval of the mean of paired differences, of any scale.

    For clusters it is the wider of `robust_ends` and what the cases would give if each stood
    alone, end by end; with fewer than `FEWEST_CLUSTERS` that of the sign-flip test.

    Why no other: of samples without a difference, at n = 50 and 200, the 95 % interval left out 0
    in these shares (`benchmarks/simulated_tests.py` runs the cells, and has more of them):

                                             this             t                BCa bootstrap
        graded, half of them ties            0.049  0.050     0.048  0.049     0.065
        gains small and often, losses big    0.049  0.051     0.074  0.057
        20 clusters of uneven size           0.040  0.040     0.060  0.074

    (clusters: t with the cluster-robust standard error of Miller 2024 and G - 1 degrees of
    freedom). No interval is right where a big loss is so rare that a sample may hold none.

    For binary scores complete enumeration at n = 300, 500 and 1,000 (discordance 0.005 to 0.3,
    differences 0 to 0.2) gave a least coverage of 0.936, 0.947 and 0.947; with a t interval from
    300 cases on it was 0.936, 0.943 and 0.942. Newcombe's method 10 had 0.925 at n = 50, where
    this one had 0.947.

    Args:
        differences: Candidate minus baseline.
        level: Confidence level.

    Returns:
        The interval, around the observed mean.

    Raises:
        ValueError: The level is not between 0 and 1.

    Source:
        Tango 1998, Stat Med 17:891. Empirical likelihood: Owen 1988, Biometrika 75:237.
    """
    z = two_sided_z(level)
    if differences.alone is None:
        values, farthest = differences.sums, differences.reach
        low, high = -_upper_end(-values, farthest, z), _upper_end(values, farthest, z)
        return Interval(low, high, level)
    return _wider(difference_interval(differences.alone, level), _of_clusters(differences, level))


NO_SCATTER = 1e-9
"""Below, values differ by rounding alone: the mean of three scores of 0.1 is none of them."""


def own_interval(scores: Units, level: float = 0.95) -> Interval:
    """Interval of one contender's mean score, within 0 and 1; Wilson's for scores 0 and 1.

    Args:
        scores: From 0 to 1.
        level: Confidence level.

    Raises:
        ValueError: The level is not between 0 and 1.

    Source:
        Wilson 1927, JASA 22:209; method 3 of Newcombe 1998, Stat Med 17:857.
    """
    z = two_sided_z(level)
    if scores.alone is not None:
        wider = _wider(own_interval(scores.alone, level), _of_clusters(scores, level))
        return Interval(max(0.0, wider.low), min(1.0, wider.high), level)
    values, mean = scores.sums, scores.mean
    farthest = float(np.abs(values - mean).max())
    if farthest < NO_SCATTER:
        farthest = 1.0
    low = -_upper_end(-values, -max(0.0, mean - farthest), z)
    high = _upper_end(values, min(1.0, mean + farthest), z)
    return Interval(low + 0.0, high, level)  # adding zero turns -0.0 into 0.0


def refuted(
    values: FloatArray,  # (..., N)
    farthest: FloatArray | float,  # (...)
    mean: FloatArray | float,  # (...)
    z: float,
) -> npt.NDArray[np.bool_]:  # (...)
    """Whether the values of cases refute a true mean that lies above theirs.

    With x = value - mean, the weights of greatest likelihood that make the mean of x zero are
    1 / (N (1 + l x)), and the variance of x under them is its plain mean divided by l. So the
    score statistic N · mean² / variance exceeds z² exactly where l is beyond z² / Σx, which is
    where Σ x / (1 + l x) has not come down to zero yet. No weight may be negative: beyond the l
    that leaves all remaining weight to the farthest value, the mean is not refuted.

    Args:
        values: One a case.
        farthest: A value that might have been seen as well.
        mean: The true mean in question.
        z: Standard normal quantile of the interval's level.
    """
    mean = np.asarray(mean)
    x = values - mean[..., None]  # (..., N)
    total = x.sum(-1)
    largest = np.maximum(x.max(-1), farthest - mean)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        slope = z**2 / -total
        remainder = (x / (1 - slope[..., None] * x)).sum(-1)
        return (total < 0) & (slope * largest < 1) & (remainder < 0)


def robust_ends(
    sums: FloatArray,  # (..., U)
    sizes: FloatArray,  # (..., U)
    z: float,
) -> tuple[FloatArray, FloatArray]:  # (...), (...)
    """Return the ends of the score interval of clusters, from the cluster-robust variance.

    It holds every mean for which the total of x = sum - mean · size of each cluster is at most z
    times the root of Σx²: the robust variance at the mean in question, not at the one seen. That
    is the normal form of the sign-flip test, and keeps its level when sizes are uneven, where t
    intervals are too narrow. Both ends are roots of one quadratic; where a single cluster
    outweighs all others there are none, and the interval is the whole line.

    Args:
        sums: Of the value over each cluster.
        sizes: Of the clusters.
        z: Standard normal quantile of the interval's level.

    Source:
        Imposing the null on the variance: Cameron, Gelbach and Miller 2008, Rev Econ Stat 90:414.
        Robust variance: Liang and Zeger 1986, Biometrika 73:13; Miller 2024, arXiv 2411.00640.
    """
    total, n = sums.sum(-1), sizes.sum(-1)
    square = n**2 - z**2 * (sizes**2).sum(-1)
    linear = total * n - z**2 * (sums * sizes).sum(-1)
    constant = total**2 - z**2 * (sums**2).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(np.maximum(0, linear**2 - square * constant))
        ends = ((linear - root) / square, (linear + root) / square)
    bounded = square > 0
    return np.where(bounded, ends[0], -np.inf), np.where(bounded, ends[1], np.inf)


def _upper_end(values: FloatArray, farthest: float, z: float) -> float:
    """Largest mean that is not refuted, by halving the range from the one seen to the farthest."""
    low, high = float(values.mean()), max(float(values.max()), farthest)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if refuted(values, farthest, middle, z):
            high = middle
        else:
            low = middle
    return high


def _of_clusters(units: Units, level: float) -> Interval:
    if units.count < FEWEST_CLUSTERS:
        return _sign_flip_interval(units, level)
    low, high = robust_ends(units.sums, units.sizes, two_sided_z(level))
    return Interval(float(low), float(high), level)


def _wider(one: Interval, other: Interval) -> Interval:
    return Interval(min(one.low, other.low), max(one.high, other.high), one.level)


def _sign_flip_interval(units: Units, level: float) -> Interval:
    """All means that the sign-flip test does not reject; at 95 %, any at all below 6 clusters.

    The means of all 2^U - 1 sets of units cut the line into pieces that hold the true mean with
    equal probability, when each unit is as likely to lie above it as below.

    Source:
        Hartigan 1969, JASA 64:1303 (typical values).
    """
    sets = np.array(list(product((0.0, 1.0), repeat=units.count)))[1:]  # (2^U - 1, U)
    means = np.sort((sets @ units.sums) / (sets @ units.sizes))
    outside = int((1 - level) / 2 * 2**units.count + 1e-9)
    if outside == 0:
        return Interval(-math.inf, math.inf, level)
    return Interval(float(means[outside - 1]), float(means[-outside]), level)


def two_sided_z(level: float) -> float:
    """Return the standard normal quantile that a two-sided interval of this level reaches to."""
    check_share("level", level)
    return NormalDist().inv_cdf((1 + level) / 2)


def check_share(name: str, value: float) -> None:
    """Raise ValueError unless a value lies strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must be above 0 and below 1, not {value} (0.05 is 5 %)")
