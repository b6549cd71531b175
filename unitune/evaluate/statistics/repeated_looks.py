"""Compute confidence levels that stay valid when one test is used more than once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist

import numpy as np

from unitune.evaluate.statistics.intervals import HALVINGS, FloatArray
from unitune.evaluate.statistics.paired import LEVEL

ALPHA = round(1 - LEVEL, 12)
# Bounds are cut off here: the error beyond is 3e-12, and the level stays below 1
HIGHEST_BOUND = 7.0
GRID = 1_001  # Points of Simpson's rule. With half of them, known bounds change by less than 1e-6.


def holm_divisor(p_value: float, others: Iterable[float], alpha: float = ALPHA) -> int:
    """Return the number by which Holm's procedure divides alpha for one of several candidates.

    It is the number of candidates without those that have no greater (two-sided) p-value and are
    rejected. An interval at 1 - alpha / divisor excludes zero if Holm's test rejects. It agrees
    with that test but does not cover all true differences simultaneously.

    Source:
        Holm 1979, Scand J Stat 6:65. Intervals: Guilbaud 2008, Biometrical J 50:678.
    """
    rivals = sorted(others)
    divisor = len(rivals) + 1
    for rival in rivals:
        if rival > p_value or rival * divisor > alpha:
            break
        divisor -= 1
    return divisor


def spent(fraction: float, alpha: float = ALPHA) -> float:
    """Return the two-sided error that may be spent up to a fraction of the planned looks.

    Source:
        Lan and DeMets 1983, Biometrika 70:659: the function similar to O'Brien and Fleming's
        bounds, 2 - 2 Phi(z / sqrt(fraction)), for each side with half of alpha.
    """
    from scipy.special import ndtr, ndtri  # noqa: PLC0415 - slow to import

    return float(4 * ndtr(ndtri(alpha / 4) / math.sqrt(min(1.0, fraction))))


def look_level(sizes: Sequence[int], planned: int, alpha: float = ALPHA) -> float:
    """Return the level of the interval at the latest look at a growing test.

    Looks may be at any sizes; each spends what the plan of equally spaced looks allows of alpha,
    the two-sided probability of a false claim over all planned looks. Bounds come from the joint
    normal distribution of the sums, whose increments are independent.

    Raises:
        ValueError: There were more looks than planned.

    Source:
        Lan and DeMets 1983, Biometrika 70:659; the recursion: Armitage, McPherson and Rowe 1969, J
        R Stat Soc A 132:235; Jennison and Turnbull 2000, chapters 7 and 19.
    """
    if len(sizes) > planned:
        raise ValueError(f"{len(sizes)} looks exceed the {planned} planned looks")
    used, bound, information = 0.0, 0.0, 0.0
    points, density = np.zeros(1), np.ones(1)  # (P,) of the previous look's sum, inside bounds
    for look, size in enumerate(sizes, start=1):
        grown = max(1.0, size - information)  # a test that did not grow counts as grown by one case
        information += grown
        scale, root = math.sqrt(grown), math.sqrt(information)
        budget = spent(look / planned, alpha) - used
        used += budget
        bound = _bound(points / scale, density, root / scale, budget)
        inside = np.linspace(-bound * root, bound * root, GRID)  # (GRID,)
        weights = np.full(GRID, 2.0)  # of Simpson's rule
        weights[1::2], weights[[0, -1]] = 4, 1
        steps = (inside[:, None] - points) / scale  # (GRID, P)
        arriving = (np.exp(-(steps**2) / 2) * density).sum(1) / (scale * math.sqrt(2 * math.pi))
        points, density = inside, arriving * weights * (inside[1] - inside[0]) / 3
    return 1 - 2 * NormalDist().cdf(-bound)


def _bound(points: FloatArray, density: FloatArray, root: float, budget: float) -> float:
    """Return the z that the next sum exceeds with the probability of the budget."""
    from scipy.special import ndtr  # noqa: PLC0415 - slow to import

    low, high = 0.0, HIGHEST_BOUND
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        beyond = ndtr(points - middle * root) + ndtr(-points - middle * root)
        low, high = (middle, high) if (density * beyond).sum() > budget else (low, middle)
    return high
