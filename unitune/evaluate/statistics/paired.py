"""Compare a candidate with a baseline on the same cases.

`compare_paired` accepts binary or graded scores, one or several per case, with or without clusters.
Better and worse require both the interval and the test, because with little evidence one alone
claims too much (four of four cases gained give an interval above 0, but p = 0.0625). `against_best`
combines comparisons with several baselines.

`compare_corpus` accepts corpus statistics that are not means of cases: BLEU, chrF, macro-F1. Each
case has sufficient statistics that add up (its n-gram matches and lengths, or one count in the
confusion matrix), and the scorer turns their totals into the score. Leaving out a case or
exchanging its two answers is then a subtraction without rescoring. The interval is that of the mean
of jackknife values, which are what each case adds to the statistic.

Letters in shapes: N cases, K repeats of a case, U units, S sufficient statistics, ... any leading
axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

import numpy as np

from unitune.evaluate.statistics.intervals import (
    Clusters,
    FloatArray,
    Interval,
    Scores,
    Units,
    case_means,
    check_share,
    difference_interval,
    numbered,
    own_interval,
    summed,
)
from unitune.evaluate.statistics.sample_size import cases_needed_for_margin, smallest_detectable
from unitune.evaluate.statistics.significance import (
    how_permuted,
    mcnemar_exact,
    mcnemar_mid_p,
    randomisation_p,
    sign_flip_p,
)

LEVEL = 0.95  # of every interval shown


class Verdict(StrEnum):
    """Claim about the candidate, strongest first."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    NON_INFERIOR = "non-inferior"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class PairedResult:
    """Paired comparison; its figures have the meaning of those of `results.Comparison`."""

    baseline: float
    candidate: float
    n: int
    clusters: int | None
    difference: float
    interval: Interval
    interval90: Interval  # at 90 %, for equivalence
    p_value: float  # two-sided: McNemar mid-p, sign-flip or approximate randomisation
    verdict: Verdict
    margin: float
    cases_needed: int
    smallest_detectable: float
    method: str
    warnings: tuple[str, ...]  # sentences on what weakens the evidence
    design_effect: float = 1.0
    p_exact: float | None = None
    graded: bool = True
    gained: int = 0  # 0 for a corpus statistic, like `lost`
    lost: int = 0


def compare_paired(
    baseline: Scores,  # (N,) or (N, K)
    candidate: Scores,  # (N,) or (N, K); K may differ
    *,
    clusters: Clusters | None = None,  # (N,)
    margin: float = 0.05,
    level: float = LEVEL,
) -> PairedResult:
    """Compare a candidate with a baseline on the same cases.

    Args:
        baseline: Scores of the baseline, from 0 to 1: one per case, or one per case and repeat.
        candidate: Scores of the candidate on the same cases in the same order.
        clusters: Labels; cases with equal labels belong together and count as copies as far as
            their scores agree.
        margin: Difference too small to matter, as a fraction.
        level: Confidence level of the interval that decides better, worse and non-inferior.

    Raises:
        ValueError: The scores are not paired or not from 0 to 1, or margin or level is not between
            0 and 1.
    """
    old, new = case_means("baseline", baseline), case_means("candidate", candidate)
    if len(old) != len(new):
        raise ValueError(
            f"baseline has {len(old)} scores and candidate {len(new)}, but a paired comparison "
            "needs the same cases for both"
        )
    differences = new - old  # (N,)
    units = Units.of(differences, clusters, bound=1.0)
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    graded = not np.isin(np.concatenate([old, new]), (0, 1)).all()
    if units.alone is None and not graded:
        p_value, p_exact = mcnemar_mid_p(gained, lost), mcnemar_exact(gained, lost)
        method = "Tango score interval, McNemar mid-p test"
    else:
        p_value, p_exact = sign_flip_p(units.sums), None
        over = "of graded differences" if units.alone is None else f"over {units.count} clusters"
        method = f"score interval {over}, sign-flip test ({how_permuted(units.sums)})"
    result = judge(
        units,
        baseline=float(old.mean()),
        candidate=float(new.mean()),
        p_value=p_value,
        method=method,
        margin=margin,
        level=level,
    )
    return replace(result, p_exact=p_exact, graded=graded, gained=gained, lost=lost)


def judge(  # noqa: PLR0913 - each has a name
    units: Units,
    *,
    baseline: float,
    candidate: float,
    p_value: float,
    method: str,
    margin: float,
    level: float,
) -> PairedResult:
    """Return the result of paired differences, given the scores and the test of the two sides."""
    interval, interval90 = _intervals(units, level)
    claim = verdict(interval, interval90, margin, p_value)
    size = units.usual_size
    mean_square, graded = units.scatter / size + units.mean**2, not units.is_binary
    return PairedResult(
        baseline=baseline,
        candidate=candidate,
        n=units.n,
        clusters=None if units.alone is None else units.count,
        difference=units.mean,
        interval=interval,
        interval90=interval90,
        p_value=p_value,
        verdict=claim,
        margin=margin,
        cases_needed=math.ceil(size * cases_needed_for_margin(mean_square, margin, graded=graded)),
        smallest_detectable=smallest_detectable(
            units.n / size, mean_square, graded=graded, level=level
        ),
        method=method,
        warnings=tuple(_warnings(units, claim, margin, interval, p_value)),
        design_effect=units.design_effect,
    )


def own_score(
    scores: Scores,  # (N,) or (N, K)
    *,
    clusters: Clusters | None = None,  # (N,)
) -> Interval:
    """Return the interval of one contender's mean score. Raises ValueError like `case_means`."""
    return own_interval(Units.of(case_means("contender", scores), clusters))


def verdict(interval: Interval, interval90: Interval, margin: float, p_value: float) -> Verdict:
    """Return the first claim that the evidence on candidate minus baseline supports.

    Returns:
        better (interval above 0) and worse (interval below 0) if the test also rejects at the
        interval's level; equivalent (90 % interval inside the margin); non-inferior (above minus
        the margin); else inconclusive.

    Raises:
        ValueError: The margin is not between 0 and 1.

    Source:
        Equivalence by two one-sided tests: Schuirmann 1987, J Pharmacokinet Biopharm 15:657.
    """
    check_share("margin", margin)
    rejected = p_value <= 1 - interval.level
    if interval.low > 0 and rejected:
        return Verdict.BETTER
    if interval.high < 0 and rejected:
        return Verdict.WORSE
    if -margin < interval90.low and interval90.high < margin:
        return Verdict.EQUIVALENT
    if interval.low > -margin:
        return Verdict.NON_INFERIOR
    return Verdict.INCONCLUSIVE


def _intervals(units: Units, level: float) -> tuple[Interval, Interval]:
    """Return the intervals of the difference at the requested level and for equivalence.

    Two one-sided tests have twice the error of the requested level: 90 % for 95 %.
    """
    levels = level, round(2 * level - 1, 12)
    wide, narrow = (
        Interval(max(-1.0, interval.low), min(1.0, interval.high), interval.level)
        for interval in (difference_interval(units, each) for each in levels)
    )
    return wide, narrow


def _warnings(
    units: Units, claim: Verdict, margin: float, interval: Interval, p_value: float
) -> Iterator[str]:
    """Yield what keeps the verdict weak although the observed difference is large."""
    kind = "cases" if units.alone is None else "clusters"
    if interval.low * interval.high > 0 and claim not in (Verdict.BETTER, Verdict.WORSE):
        yield (
            f"The interval excludes zero, but the test does not (p = {p_value:.2g}): "
            f"{units.count:,} {kind} are too few to show a difference."
        )
    if units.is_binary:
        return
    seen = replace(units, bound=0.0, alone=units.alone and replace(units.alone, bound=0.0))
    stronger = verdict(*_intervals(seen, interval.level), margin, p_value)
    if stronger is claim:
        return
    unseen = 1 - ((1 - interval.level) / 2) ** (1 / units.count)
    few = "cases" if units.alone is None else f"clusters (of {units.n:,} cases)"
    yield (
        f"{units.count:,} {few} are few. Up to {100 * unseen:.1f} % of all {kind} could be total "
        "losses of one side without any in this sample, so the interval allows for them. From the "
        f"observed scores alone the verdict would be {stronger}."
    )


@dataclass(frozen=True, slots=True)
class AgainstBest:
    """Candidate compared with the best of several baselines: see `against_best`."""

    hardest: str
    interval: Interval
    verdict: Verdict


def against_best(pairs: Mapping[str, PairedResult], chosen: str) -> AgainstBest:
    """Combine comparisons of a candidate with several baselines, whichever is truly the best.

    Dev rows are few and may name the wrong baseline (`chosen`) as the best. The interval is
    therefore that of candidate minus the truly best baseline:

        lower end    the lowest of the lower ends against the baselines. It is above the truth
                     only if the interval against the truly best one is. Each test keeps its own
                     level, so no correction for their number is needed (an intersection-union
                     test).
        upper end    that against the baseline chosen on dev rows, or against the hardest one if
                     that is higher. The best baseline is at least as good as any that was named
                     without the test. The lowest of several ends would be below the truth more
                     often, the more baselines there are.

    Source:
        Berger 1982, Technometrics 24:295; Berger and Hsu 1996, Stat Sci 11:283.
    """
    hardest = min(pairs, key=lambda name: (pairs[name].interval.low, name != chosen))
    upper = (pairs[hardest], pairs[chosen])
    interval = _spanned((p.interval for p in pairs.values()), (p.interval for p in upper))
    interval90 = _spanned((p.interval90 for p in pairs.values()), (p.interval90 for p in upper))
    # Better needs the test against each baseline, worse against those with the upper end.
    deciding = pairs.values() if interval.low > 0 else upper
    p_value = max(p.p_value for p in deciding)
    claim = verdict(interval, interval90, pairs[chosen].margin, p_value)
    return AgainstBest(hardest, interval, claim)


def _spanned(lows: Iterable[Interval], highs: Iterable[Interval]) -> Interval:
    highest = max(highs, key=lambda interval: interval.high)
    return Interval(min(interval.low for interval in lows), highest.high, highest.level)


# Corpus statistic from 0 to 1, computed from many totals at once, (..., S) to (...). Totals are
# sums over any subset of the cases, so it must be finite if a count is 0.
CorpusScore: TypeAlias = Callable[[FloatArray], FloatArray]


def compare_corpus(  # noqa: PLR0913 - each has a name and a default
    baseline: FloatArray,  # (N, S)
    candidate: FloatArray,  # (N, S)
    score: CorpusScore,
    *,
    clusters: Clusters | None = None,  # (N,)
    margin: float = 0.05,
    level: float = LEVEL,
) -> PairedResult:
    """Compare a candidate with a baseline by a corpus statistic.

    Why the jackknife and not the bootstrap: in 1,500 simulated corpora of two equally good
    contenders (1,000 resamples each), the 95 % interval excluded 0 at n = 50 | 200 | 500 this
    often:

                                  macro-F1, 5 classes      a ratio of sums
        jackknife, score          0.031  0.041  0.052      0.001  0.045  0.050
        bootstrap, percentile     0.068  0.052  0.055      0.073  0.049  0.059
        bootstrap, BCa            0.090  0.049  0.054      0.088  0.054  0.059

    Raises:
        ValueError: The shapes differ, or there are fewer than two cases or clusters.

    Source:
        Jackknife values: Tukey 1958, Ann Math Stat 29:614; Efron and Tibshirani 1993, chapter 11.
    """
    if baseline.shape != candidate.shape or baseline.ndim != 2:
        raise ValueError(
            f"baseline and candidate must both be (cases, statistics), not {baseline.shape} "
            f"and {candidate.shape}"
        )
    numbers = numbered(clusters or range(len(baseline)), len(baseline))
    sizes = np.bincount(numbers).astype(np.float64)
    if len(sizes) < 2:
        raise ValueError("a corpus statistic needs at least two cases or clusters")
    units = _differences(baseline, candidate, np.ones(len(baseline)), score)
    old, new = baseline, candidate  # (N, S)
    if len(sizes) < len(baseline):
        old, new = summed(baseline, numbers), summed(candidate, numbers)  # (U, S)
        units = replace(_differences(old, new, sizes, score), alone=units)
    ends = score(np.stack([old.sum(0), new.sum(0)]))  # (2,)
    return judge(
        units,
        baseline=float(ends[0]),
        candidate=float(ends[1]),
        p_value=randomisation_p(old, new, score),
        method=f"jackknife score interval, approximate randomisation ({how_permuted(new)})",
        margin=margin,
        level=level,
    )


def own_corpus(
    statistics: FloatArray,  # (N, S)
    score: CorpusScore,
    *,
    clusters: Clusters | None = None,  # (N,)
) -> Interval:
    """Return the interval of one contender's corpus statistic, from its jackknife values."""
    if len(statistics) < 2:
        return Interval(0.0, 1.0, LEVEL)
    values = jackknife(statistics, np.ones(len(statistics)), score)
    return own_interval(Units.of(values, clusters))


def _differences(old: FloatArray, new: FloatArray, sizes: FloatArray, score: CorpusScore) -> Units:
    return Units(jackknife(new, sizes, score) - jackknife(old, sizes, score), sizes, bound=1.0)


def jackknife(
    statistics: FloatArray,  # (..., U, S)
    sizes: FloatArray,  # (U,)
    score: CorpusScore,
) -> FloatArray:  # (..., U)
    """Return what each unit adds: sums whose mean over the cases is the statistic itself.

    For a mean they are the sums of the units. They are centred on the statistic, not on the
    jackknife's own estimate, which differs for non-smooth statistics.
    """
    totals = statistics.sum(-2, keepdims=True)  # (..., 1, S)
    whole, n = score(totals), sizes.sum()  # (..., 1)
    added = (n - sizes) * (whole - score(totals - statistics))  # (..., U)
    return sizes * (whole - added.sum(-1, keepdims=True) / n) + added
