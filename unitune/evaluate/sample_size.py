"""How many cases a difference or a margin needs, and what so many cases could show.

All for binary scores of two contenders on the same cases, from the share of cases that exactly one
of them gets right (the discordance).
"""

from __future__ import annotations

import math
from statistics import NormalDist

from unitune.evaluate.intervals import check_share, two_sided_z

EQUIVALENCE_LEVEL = 0.90
"""Level of the interval that must lie inside the margin: two one-sided tests at 5 % each."""


def cases_needed(discordance: float, effect: float, power: float = 0.8, level: float = 0.95) -> int:
    """Cases with which a true difference would be found.

    Args:
        discordance: Share of cases that exactly one contender gets right; raised to the effect
            where it is lower, since a difference needs as many discordant cases.
        effect: True difference, above 0, as a proportion.
        power: Probability of finding it.
        level: Confidence level of the interval that must leave out 0.

    Returns:
        Number of cases, rounded up.

    Raises:
        ValueError: An argument is outside its range.

    Source:
        Miller 2024, arXiv 2411.00640, power formula without resampling noise; for binary pairs
        the variance of a case's difference is discordance - effect².
    """
    _check_discordance(discordance)
    check_share("effect", effect)
    variance = max(discordance, effect) - effect**2
    return _whole_cases(_power_factor(power, level) * variance / effect**2)


def smallest_detectable(
    n: int, discordance: float, power: float = 0.8, level: float = 0.95
) -> float:
    """Smallest true difference that so many cases would find: `cases_needed` solved for effect.

    Args:
        n: Number of cases.
        discordance: Share of cases that exactly one contender gets right; where it is lower than
            the answer it is taken to be equal to it, since a difference needs as many.
        power: Probability of finding the difference.
        level: Confidence level of the interval that must leave out 0.

    Returns:
        The difference as a proportion, above 0 and below 1.

    Raises:
        ValueError: An argument is outside its range.

    Source:
        Miller 2024, arXiv 2411.00640: n δ² = k (discordance - δ²), k the squared sum of quantiles.
    """
    _check_discordance(discordance)
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    factor = _power_factor(power, level)
    return max(math.sqrt(factor * discordance / (n + factor)), factor / (n + factor))


def cases_needed_for_margin(
    discordance: float, margin: float, power: float = 0.8, level: float = EQUIVALENCE_LEVEL
) -> int:
    """Cases with which two equally good contenders would be found equivalent.

    Not `cases_needed` with the margin as effect: at a true difference of 0 the variance is the
    whole discordance, and both ends of the interval must lie inside the margin, so each may miss
    it with half the error only.

    Args:
        discordance: Share of cases that exactly one contender gets right.
        margin: Difference too small to matter, as a proportion.
        power: Probability of the verdict equivalent.
        level: Confidence level of the interval that must lie inside the margin.

    Returns:
        Number of cases, rounded up; at least as many as bring the score interval inside the
        margin when no case at all is discordant (then it reaches to z² / (n + z²)).

    Raises:
        ValueError: An argument is outside its range.

    Source:
        Chow, Shao and Wang 2008, Sample Size Calculations in Clinical Research, 2nd ed., one-sample
        equivalence, n = (z[5 %] + z[(1 - power)/2])² · variance / margin². Variance as in Miller
        2024, arXiv 2411.00640. For paired binary data: Liu et al. 2002, Stat Med 21:231.
    """
    _check_discordance(discordance)
    check_share("margin", margin)
    check_share("power", power)
    z = two_sided_z(level)
    both_ends = (z + two_sided_z(power)) ** 2 * discordance / margin**2
    return _whole_cases(max(both_ends, z**2 * (1 - margin) / margin))


def _power_factor(power: float, level: float) -> float:
    """Squared sum of the quantiles of level and power: 7.85 for 95 % and 80 %."""
    check_share("power", power)
    return (two_sided_z(level) + NormalDist().inv_cdf(power)) ** 2


def _whole_cases(cases: float) -> int:
    """Round up, but let rounding noise of a millionth add no case."""
    return max(1, math.ceil(cases - 1e-6))


def _check_discordance(discordance: float) -> None:
    if not 0 <= discordance <= 1:
        raise ValueError(f"discordance must be a share from 0 to 1, not {discordance}")
