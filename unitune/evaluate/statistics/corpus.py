"""Comparing statistics of a whole corpus, which are no mean of cases: BLEU, chrF, macro-F1.

Such a statistic is computed from totals. Each case brings sufficient statistics that add up (its
n-gram matches and lengths, or one count in the confusion matrix), and a function turns their
totals into the score:

    def precision(totals):                 # (..., 2): matches, n-grams
        return totals[..., 0] / totals[..., 1]

    compare_corpus(baseline, candidate, precision)     # each (N, 2)

Leaving out one case, or exchanging its two answers, then costs a subtraction and no rescoring.
The interval is that of a mean, taken of jackknife values: what each case adds to the statistic.
The p-value is that of approximate randomisation. The statistics themselves belong to the scorers.

Letters in shapes: N cases, U units, S sufficient statistics, ... any leading axes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from unitune.evaluate.statistics.intervals import Interval, own_interval
from unitune.evaluate.statistics.paired import LEVEL, PairedResult, judge
from unitune.evaluate.statistics.significance import how_permuted, randomisation_p
from unitune.evaluate.statistics.units import Clusters, FloatArray, Units, numbered

CorpusScore: TypeAlias = Callable[[FloatArray], FloatArray]
"""A statistic of a corpus, from 0 to 1, from many totals at once, (..., S) to (...). Totals are
sums over any of the cases, so it must give a finite number also where a count is 0."""


def compare_corpus(  # noqa: PLR0913 - each has a name and a default
    baseline: FloatArray,  # (N, S)
    candidate: FloatArray,  # (N, S)
    score: CorpusScore,
    *,
    clusters: Clusters | None = None,  # (N,)
    margin: float = 0.05,
    level: float = LEVEL,
) -> PairedResult:
    """Compare a candidate with a baseline by a statistic of the whole corpus.

    Why the jackknife and no bootstrap: in 1,500 simulated corpora of two equally good contenders
    (1,000 resamples each), the 95 % interval left out 0, at n = 50 | 200 | 500, this often:

                                  macro-F1, 5 classes      a ratio of sums
        jackknife, score          0.031  0.041  0.052      0.001  0.045  0.050
        bootstrap, percentile     0.068  0.052  0.055      0.073  0.049  0.059
        bootstrap, BCa            0.090  0.049  0.054      0.088  0.054  0.059

    Raises:
        ValueError: The two are not of the same shape, or there are fewer than two cases
            or clusters.

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
        raise ValueError("a statistic of a corpus needs at least two cases or clusters")
    units = _differences(baseline, candidate, np.ones(len(baseline)), score)
    old, new = baseline, candidate  # (N, S)
    if len(sizes) < len(baseline):
        old, new = _summed(baseline, numbers), _summed(candidate, numbers)  # (U, S)
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
    level: float = LEVEL,
) -> Interval:
    """Interval of one contender's own statistic, from its jackknife values."""
    if len(statistics) < 2:
        return Interval(0.0, 1.0, level)
    values = jackknife(statistics, np.ones(len(statistics)), score)
    return own_interval(Units.of(values, clusters), level)


def _differences(old: FloatArray, new: FloatArray, sizes: FloatArray, score: CorpusScore) -> Units:
    return Units(jackknife(new, sizes, score) - jackknife(old, sizes, score), sizes, bound=1.0)


def _summed(statistics: FloatArray, numbers: npt.NDArray[np.intp]) -> FloatArray:  # (U, S)
    sums = np.zeros((int(numbers.max()) + 1, statistics.shape[1]))
    np.add.at(sums, numbers, statistics)
    return sums


def jackknife(
    statistics: FloatArray,  # (..., U, S)
    sizes: FloatArray,  # (U,)
    score: CorpusScore,
) -> FloatArray:  # (..., U)
    """Return what each unit adds: sums whose mean over the cases is the statistic itself.

    For a mean they are the sums of the units. They are centred on the statistic rather than on
    the jackknife's own estimate, which for unsmooth statistics lies apart.
    """
    totals = statistics.sum(-2, keepdims=True)  # (..., 1, S)
    whole, n = score(totals), sizes.sum()  # (..., 1)
    added = (n - sizes) * (whole - score(totals - statistics))  # (..., U)
    return sizes * (whole - added.sum(-1, keepdims=True) / n) + added
