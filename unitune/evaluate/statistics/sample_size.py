"""How many cases a difference or a margin needs, and what so many cases could show.

Everything starts from the mean square of the cases' differences. For binary scores that is the
discordance: the share of cases that exactly one contender gets right. `Design` says what repeats
and clusters make of it, and `foresight` says it all in a sentence before anything is spent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from unitune.evaluate.statistics.intervals import check_share, two_sided_z

EQUIVALENCE_LEVEL = 0.90
"""Level of the interval that must lie inside the margin: two one-sided tests at 5 % each."""

LIKELY_DISCORDANCE = (0.1, 0.3)
"""Of two good contenders, before any answer is there: an assumption, wide on purpose."""


@dataclass(frozen=True, slots=True)
class Design:
    """How often each case is asked, and how cases hang together.

    Args:
        baseline_repeats: Answers of the baseline to each case.
        candidate_repeats: Answers of the candidate to each case.
        cluster_size: Mean number of cases in a cluster.
        icc: Intraclass correlation of the differences: 0 when cases of a cluster are no more alike
            than others, 1 when they are copies.
    """

    baseline_repeats: int = 1
    candidate_repeats: int = 1
    cluster_size: float = 1.0
    icc: float = 0.0

    @property
    def effect(self) -> float:
        """Design effect of the clusters, 1 + (m - 1) ICC.

        Source:
            Kish 1965, Survey Sampling, section 5.4.
        """
        return 1 + (self.cluster_size - 1) * self.icc

    def variance(
        self, between: float, baseline_noise: float = 0.0, candidate_noise: float = 0.0
    ) -> float:
        """Variance of one case's difference, as far as it counts for the mean.

        Args:
            between: Variance of the true differences between cases.
            baseline_noise: Mean variance of the baseline's repeated answers to one case.
            candidate_noise: Likewise of the candidate's.

        Source:
            Miller 2024, arXiv 2411.00640, power formula.
        """
        resampled = baseline_noise / self.baseline_repeats
        resampled += candidate_noise / self.candidate_repeats
        return (between + resampled) * self.effect


def cases_for(variance: float, effect: float, power: float = 0.8, level: float = 0.95) -> int:
    """Cases with which a true difference would be found, from `Design.variance`.

    Args:
        variance: Of one case's difference.
        effect: True difference, above 0.
        power: Probability of finding it.
        level: Confidence level of the interval that must leave out 0.

    Returns:
        Number of cases, rounded up.

    Raises:
        ValueError: An argument is outside its range.

    Source:
        Miller 2024, arXiv 2411.00640, power formula: n = k · variance / effect², k the squared
        sum of the quantiles of level and power.
    """
    if not (effect > 0 and variance >= 0):
        raise ValueError(
            f"effect must be above 0 and variance not below 0, not {effect} and {variance}"
        )
    return _whole_cases(_power_factor(power, level) * variance / effect**2)


def cases_needed(discordance: float, effect: float, power: float = 0.8, level: float = 0.95) -> int:
    """Cases with which a true difference of binary scores would be found.

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
        As `cases_for`; the variance of a case's difference is discordance - effect².
    """
    if not 0 <= discordance <= 1:
        raise ValueError(f"discordance must be a share from 0 to 1, not {discordance}")
    check_share("effect", effect)
    return cases_for(max(discordance, effect) - effect**2, effect, power, level)


def smallest_detectable(
    n: int, mean_square: float, *, reach: float = 1.0, power: float = 0.8, level: float = 0.95
) -> float:
    """Smallest true difference that so many cases would find: `cases_needed` solved for effect.

    Args:
        n: Number of cases.
        mean_square: Of the differences. Where too few cases differ to show the answer, it is taken
            to be what a true difference of that size needs.
        reach: The largest difference of a case.
        power: Probability of finding the difference.
        level: Confidence level of the interval that must leave out 0.

    Returns:
        The difference, above 0 and below the reach.

    Raises:
        ValueError: An argument is outside its range.

    Source:
        Miller 2024, arXiv 2411.00640: n δ² = k (mean square - δ²), k as in `cases_for`.
    """
    _check_mean_square(mean_square)
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    factor = _power_factor(power, level)
    return max(math.sqrt(factor * mean_square / (n + factor)), reach * factor / (n + factor))


def cases_needed_for_margin(
    mean_square: float,
    margin: float,
    *,
    reach: float = 1.0,
    power: float = 0.8,
    level: float = EQUIVALENCE_LEVEL,
) -> int:
    """Cases with which two equally good contenders would be found equivalent.

    Not `cases_needed` with the margin as effect: at a true difference of 0 the variance is the
    whole mean square, and both ends of the interval must lie inside the margin, so each may miss
    it with half the error only.

    Args:
        mean_square: Of the differences; with clusters times their design effect.
        margin: Difference too small to matter.
        reach: The largest difference of a case.
        power: Probability of the verdict equivalent.
        level: Confidence level of the interval that must lie inside the margin.

    Returns:
        Number of cases, rounded up; at least as many as bring the score interval inside the
        margin when no two answers differ at all (then it reaches to z² / (n + z²)).

    Raises:
        ValueError: An argument is outside its range.

    Source:
        Chow, Shao and Wang 2008, Sample Size Calculations in Clinical Research, 2nd ed., one-sample
        equivalence, n = (z[5 %] + z[(1 - power)/2])² · variance / margin². Variance as in Miller
        2024, arXiv 2411.00640. For paired binary data: Liu et al. 2002, Stat Med 21:231.
    """
    _check_mean_square(mean_square)
    check_share("margin", margin)
    check_share("power", power)
    z = two_sided_z(level)
    both_ends = (z + two_sided_z(power)) ** 2 * mean_square / margin**2
    return _whole_cases(max(both_ends, z**2 * (reach - margin) / margin))


def foresight(n: int, margin: float) -> str:
    """Say in one sentence what so many cases can show, before anything is spent.

    Args:
        n: Test cases.
        margin: Difference too small to matter, as a proportion.

    Returns:
        The smallest difference found with 80 % power, and the cases that find one as large as the
        margin, for a range of discordance. Clusters and graded scores are not counted in.
    """
    low, high = LIKELY_DISCORDANCE
    visible = [100 * smallest_detectable(n, discordance) for discordance in (low, high)]
    needed = [cases_needed(discordance, margin) for discordance in (low, high)]
    return (
        f"{n:,} test cases find a true difference of {visible[0]:.1f} to {visible[1]:.1f} points "
        f"in four of five such tests, if the contenders disagree on {low:.0%} to {high:.0%} of "
        f"them; finding one of {100 * margin:g} points so often takes {needed[0]:,} to "
        f"{needed[1]:,} cases."
    )


def _power_factor(power: float, level: float) -> float:
    """Squared sum of the quantiles of level and power: 7.85 for 95 % and 80 %."""
    check_share("power", power)
    return (two_sided_z(level) + NormalDist().inv_cdf(power)) ** 2


def _whole_cases(cases: float) -> int:
    """Round up, but let rounding noise of a millionth add no case."""
    return max(1, math.ceil(cases - 1e-6))


def _check_mean_square(mean_square: float) -> None:
    if not mean_square >= 0:
        raise ValueError(f"mean square must not be below 0, not {mean_square}")
