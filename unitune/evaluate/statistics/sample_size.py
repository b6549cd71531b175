"""Compute how many cases a difference or a margin needs, and what a number of cases can detect.

All formulas use the mean square of the cases' differences. For binary scores it is the discordance:
the fraction of cases that exactly one contender gets right. The formulas' numbers of cases are
raised until the exact power, over all outcomes of binary scores, is reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from unitune.evaluate.statistics.intervals import FloatArray, check_share, two_sided_z

# Level of the interval that must be inside the margin: two one-sided tests at 5 % each
EQUIVALENCE_LEVEL = 0.90
POWER = 0.8  # probability of detecting a true difference
# Of two good contenders, before any answer: an assumption, wide on purpose
LIKELY_DISCORDANCE = (0.1, 0.3)
# Assumed root mean square difference of two graded scores of a case, also wide on purpose
LIKELY_SPREAD = (0.2, 0.4)
# Cases up to which all outcomes are enumerated, in less than half a second; beyond, the formulas
# have the power to the third decimal
MOST_ENUMERATED = 50_000
MOST_DEVIATIONS = 7.5  # outcomes farther from the expectation are ignored: 1e-12 of them


def cases_needed(discordance: float, effect: float, power: float = POWER) -> int:
    """Return the cases needed to detect a true difference of binary scores.

    Args:
        discordance: Fraction of cases that exactly one contender gets right; at least the effect is
            used, since a difference needs as many discordant cases.
        effect: True difference, above 0, as a fraction.
        power: Probability that the 95 % interval excludes 0.

    Raises:
        ValueError: An argument is outside its range.

    Source:
        Connor 1987, Biometrics 43:207: the test uses the variance without a difference, the
        discordance, and the observations vary by discordance - effect².
    """
    if not 0 <= discordance <= 1:
        raise ValueError(f"discordance must be a fraction from 0 to 1, not {discordance}")
    check_share("effect", effect)
    n = _to_find(discordance, effect, power, graded=False)
    discordance = max(discordance, effect)
    return _raised(n, power, lambda cases: power_to_find(cases, discordance, effect))


def smallest_detectable(
    n: float, mean_square: float, *, graded: bool = False, level: float = 0.95
) -> float:
    """Return the smallest true difference that n cases detect: `cases_needed` solved for effect.

    Args:
        n: Number of cases; for clusters, the number of independent cases they are worth, which may
            be fractional.
        mean_square: Mean square of the differences. If too few cases differ, the value that a true
            difference of that size requires is used.
        graded: True if cases may differ by less than a whole score.
        level: Confidence level of the interval that must exclude 0.

    Returns:
        The difference, above 0; 1 if n cases cannot detect any.

    Raises:
        ValueError: An argument is outside its range.
    """
    _check_mean_square(mean_square)
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if _to_find(mean_square, middle, POWER, level, graded=graded) > n:
            low = middle
        else:
            high = middle
    if graded or n > MOST_ENUMERATED:
        return high
    while high < 1 and power_to_find(int(n), max(mean_square, high), high, level) < POWER:
        high = min(1.0, high * 1.005)
    return high


def cases_needed_for_margin(
    mean_square: float, margin: float, *, graded: bool = False, power: float = POWER
) -> int:
    """Return the cases needed to show that two equally good contenders are equivalent.

    This is not `cases_needed` with the margin as effect: at a true difference of 0 the variance is
    the whole mean square, and both ends of the interval must be inside the margin, so each may miss
    it with only half the error. The interval uses the variance for a difference of the size of the
    margin, which is larger if fewer cases differ.

    Raises:
        ValueError: An argument is outside its range.

    Source:
        Two variances in one sample size: Lachin 1981, Control Clin Trials 2:93. Tango 1998, Stat
        Med 17:891; Liu et al. 2002, Stat Med 21:231.
    """
    _check_mean_square(mean_square)
    check_share("margin", margin)
    check_share("power", power)
    lost = mean_square - 2 * margin
    lost += math.sqrt(lost**2 + 4 * mean_square * margin * (1 - margin))
    at_margin = lost / 2 + margin * (1 - margin)
    ends = two_sided_z(EQUIVALENCE_LEVEL) * math.sqrt(at_margin)
    ends += two_sided_z(power) * math.sqrt(mean_square)
    n = (ends / margin) ** 2
    if graded or mean_square > 1:
        return _whole_cases(n)
    return _raised(n, power, lambda cases: power_to_equal(cases, mean_square, margin))


def power_to_find(n: int, discordance: float, effect: float, level: float = 0.95) -> float:
    """Return the probability that the interval of n binary scores is above 0, over all outcomes."""
    outcomes = _outcomes(n, (discordance + effect) / 2, (discordance - effect) / 2)
    return float(outcomes.shares[_tango(n, outcomes, 0.0) > two_sided_z(level)].sum())


def power_to_equal(n: int, discordance: float, margin: float) -> float:
    """Return the probability that the interval of n binary scores of equals is inside a margin."""
    outcomes, z = _outcomes(n, discordance / 2, discordance / 2), two_sided_z(EQUIVALENCE_LEVEL)
    inside = (_tango(n, outcomes, -margin) > z) & (_tango(n, outcomes, margin) < -z)
    return float(outcomes.shares[inside].sum())


class _Outcomes(NamedTuple):
    """Numbers of gained and lost cases with their probabilities; B gained, C lost."""

    gained: FloatArray  # (B, 1)
    lost: FloatArray  # (1, C)
    shares: FloatArray  # (B, C)


def _outcomes(n: int, gain: float, loss: float) -> _Outcomes:
    """Enumerate the outcomes of n cases with these probabilities of a gain and of a loss."""
    gained, lost = _around(n, gain)[:, None], _around(n, loss)[None, :]
    tied = n - gained - lost
    counts, chances = (gained, lost, np.maximum(tied, 0)), (gain, loss, max(0.0, 1 - gain - loss))
    log_factorials = np.append(0.0, np.log(np.arange(1, n + 1)).cumsum())  # (n + 1,)
    logs = log_factorials[n] - sum(log_factorials[count.astype(int)] for count in counts)
    logs += sum(
        np.where(count > 0, count * math.log(chance or math.ulp(0.0)), 0.0)
        for count, chance in zip(counts, chances, strict=True)
    )
    return _Outcomes(gained, lost, np.where(tied >= 0, np.exp(logs), 0.0))


def _around(n: int, chance: float) -> FloatArray:
    """Return the plausible numbers of cases if each has this probability."""
    reach = MOST_DEVIATIONS * math.sqrt(n * chance * (1 - chance)) + MOST_DEVIATIONS
    low, high = max(0, math.floor(n * chance - reach)), min(n, math.ceil(n * chance + reach))
    return np.arange(low, high + 1, dtype=np.float64)


def _tango(n: int, outcomes: _Outcomes, difference: float) -> FloatArray:  # (B, C)
    """Return Tango's statistic of each outcome for a true difference; 0 if nothing differs.

    Source:
        Tango 1998, Stat Med 17:891, closed form of the restricted estimate.
    """
    gained, lost, _ = outcomes
    b = (2 * n - gained + lost) * difference - gained - lost
    root = np.sqrt(np.maximum(0, b**2 + 8 * n * lost * difference * (1 - difference)))
    lost_share = (root - b) / (4 * n)
    variance = n * (2 * lost_share + difference * (1 - difference))
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = (gained - lost - n * difference) / np.sqrt(np.maximum(0, variance))
    return np.nan_to_num(statistic, nan=0.0)


def _raised(cases: float, power: float, reached: Callable[[int], float]) -> int:
    """Return a formula's cases as a whole number, raised until the exact power is reached."""
    if cases > MOST_ENUMERATED:
        return _whole_cases(cases)
    n = max(1, round(cases))
    while reached(n) < power:
        n += max(1, n // 200)
    return n


def _to_find(
    mean_square: float, effect: float, power: float, level: float = 0.95, *, graded: bool
) -> float:
    """Return the cases that detect a difference, by Connor's formula.

    Without a difference, the score interval uses the mean square as variance, but at least what one
    case with a whole score would add.
    """
    check_share("power", power)
    without = max(mean_square, effect)
    seen = (mean_square if graded else without) - effect**2
    ends = two_sided_z(level) * math.sqrt(without)
    ends += NormalDist().inv_cdf(power) * math.sqrt(max(0.0, seen))
    return (ends / effect) ** 2


def foresight(n: int, margin: float, *, graded: bool = False) -> str:
    """Return one sentence on what a number of cases can detect, before anything is spent.

    It has the smallest difference detected with 80 % power, and the cases that detect the margin,
    for a range of assumptions on how much cases differ. Clusters are ignored.
    """
    likely = LIKELY_SPREAD if graded else LIKELY_DISCORDANCE
    squares = [share**2 if graded else share for share in likely]
    visible = [smallest_detectable(n, square, graded=graded) for square in squares]
    if visible[1] >= 1:
        return f"{n:,} test cases are too few to detect any difference, however large."
    if graded:
        needed = [_whole_cases(_to_find(s, margin, POWER, graded=True)) for s in squares]
        low, high = (100 * spread for spread in likely)
        differ = f"case scores that differ by {low:g} to {high:g} points (root mean square)"
    else:
        needed = [cases_needed(square, margin) for square in squares]
        differ = f"{100 * likely[0]:.0f} % to {100 * likely[1]:.0f} % discordant pairs"
    return (
        f"Minimum detectable difference with {n:,} test cases: "
        f"{_range([f'{100 * each:.1f}' for each in visible])} points (80 % power, {differ}). "
        f"Detecting {100 * margin:g} points takes {_range([f'{each:,}' for each in needed])} "
        "cases."
    )


def _range(ends: list[str]) -> str:
    return " to ".join(dict.fromkeys(ends))


def _whole_cases(cases: float) -> int:
    """Round up, ignoring rounding noise of a millionth."""
    return max(1, math.ceil(cases - 1e-6))


def _check_mean_square(mean_square: float) -> None:
    if not mean_square >= 0:
        raise ValueError(f"mean square must be at least 0, not {mean_square}")
