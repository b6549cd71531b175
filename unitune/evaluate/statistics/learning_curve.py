"""A learning curve: how good a model is by the number of rows, and how good with more of them.

The error falls with the rows n as ``floor + scale * n ** -exponent``, a power law that comes down
to a floor (Viering and Loog 2021, arXiv 2103.10948, review such curves). It is fitted to the mean
scores of subsets by weighted least squares. The range of whatever it says is that of fits to
resamples: each draws the cases anew, by whole clusters, and of each subset the trainings. Of k
trainings a resample draws k - 1, so that its means scatter as much as means of k do (Rao and Wu
1988, JASA 83:231); trainings of two sizes are drawn apart, as chance is another in each.

A fit says something only while the curve is seen to rise and is such a curve: see `Doubt`.

Letters in shapes: P sizes, R resamples, B exponents, U units, K summands of a score.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from unitune.evaluate.statistics.intervals import Clusters, FloatArray, numbered, summed
from unitune.scorers.formulas import Sums

LEVEL = 0.8
"""Of all ranges: one in five curves lies outside, half of them above."""
RESAMPLES = 2_000
EXPONENTS = np.linspace(0.01, 2.0, 200)  # (B,)
FLAT = 0.02
"""An exponent this near to 0 says that twice the rows take less than 2 % off the error."""
MISFIT = 0.01
"""Of curves of this form, so many lie as far off their fit by chance."""
AT_ONCE = 4_000_000
"""Numbers of a resample's draws in memory."""


class Doubt(Enum):
    """Why measured scores do not say what more rows would bring."""

    NO_GAIN = "no gain"
    """The last doubling of the rows has not been seen to gain anything."""
    FLAT = "flat"
    """The exponent may be next to 0."""
    MISFIT = "misfit"
    """No such curve goes through the scores: they rise late, or fall."""


class Range(NamedTuple):
    """A figure with its range at `LEVEL`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PowerLaws:
    """Power laws of the error; of one law the three are single numbers."""

    floor: FloatArray  # (...)
    scale: FloatArray  # (...)
    exponent: FloatArray  # (...), 0 where the error does not fall

    def score(self, rows: float) -> FloatArray:
        """Return the score with so many rows."""
        return 1 - self.floor - self.scale * rows**-self.exponent

    def rows(self, score: float) -> FloatArray:
        """Return how many rows the score takes; infinity where no number of rows reaches it."""
        left = 1 - score - self.floor
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            needed = (self.scale / left) ** (1 / self.exponent)
        flat = np.where(self.scale <= left, 0.0, math.inf)
        return np.where(self.exponent == 0, flat, np.where(left > 0, needed, math.inf))


def fit(
    sizes: Sequence[float],  # (P,), ascending
    errors: FloatArray,  # (P,), or (R, P) of several curves
    weights: FloatArray,  # (P,)
) -> PowerLaws:
    """Fit ``floor + scale * n ** -exponent`` to errors by weighted least squares.

    With floor and scale not below 0 and an exponent of `EXPONENTS`. For each exponent the fit is
    linear, so that the best one is found by trying all.

    Args:
        sizes: Numbers of rows (P,), ascending.
        errors: Of one curve (P,), or of several (R, P).
        weights: Of the sizes (P,).
    """
    n, w = np.asarray(sizes, np.float64), weights / weights.sum()
    y: FloatArray = errors[..., None, :]  # (..., 1, P)
    x: FloatArray = (n / n[0]) ** -EXPONENTS[:, None]  # (B, P)
    x_mean: FloatArray = (w * x).sum(-1)  # (B,)
    y_mean: FloatArray = (w * y).sum(-1)  # (..., 1)
    apart = x - x_mean[:, None]
    slope: FloatArray = (w * apart * y).sum(-1) / (w * apart**2).sum(-1)  # (..., B)
    floor = y_mean - slope * x_mean
    through_zero: FloatArray = (w * x * y).sum(-1) / (w * x**2).sum(-1)
    slope = np.where(floor < 0, through_zero, slope)
    floor = np.where(slope < 0, y_mean, np.maximum(floor, 0))
    slope = np.maximum(slope, 0)
    residuals: FloatArray = y - floor[..., None] - slope[..., None] * x  # (..., B, P)
    best = (w * residuals**2).sum(-1).argmin(-1)
    floor, slope = _at(floor, best), _at(slope, best)
    exponent = np.where(slope > 0, EXPONENTS[best], 0.0)
    return PowerLaws(floor, slope * n[0] ** exponent, exponent)


def _at(values: FloatArray, positions: npt.NDArray[np.intp]) -> FloatArray:
    return np.take_along_axis(values, positions[..., None], axis=-1)[..., 0]


@dataclass(frozen=True, eq=False)
class FittedCurve:
    """Scores by the number of rows, with the power law through them."""

    sizes: tuple[int, ...]
    """Numbers of rows, ascending."""
    scores: FloatArray  # (P,)
    """Mean of the trainings of each size."""
    resampled: FloatArray  # (R, P)
    """The same of each resample."""

    @classmethod
    def of(
        cls,
        sizes: Sequence[int],
        trainings: Sequence[Sequence[Sums]],
        clusters: Clusters | None = None,
    ) -> FittedCurve:
        """Resample the scores of trainings: of each size, what each training's score is made of."""
        draw = np.random.default_rng(0)
        means = [fmean(each.statistic() for each in size) for size in trainings]
        summed = [[_by_unit(each, clusters) for each in size] for size in trainings]
        resampled = [
            np.stack([_drawn_mean(size, cases, draw) for size in summed], axis=-1)
            for cases in _drawn_units(len(summed[0][0]), draw)
        ]
        return cls(tuple(sizes), np.array(means), np.concatenate(resampled))

    @cached_property
    def weights(self) -> FloatArray:  # (P,)
        """How much each size counts in a fit: one over the variance of its mean."""
        least = (0.1 / len(self.resampled)) ** 2
        return 1 / np.maximum(self.resampled.var(axis=0), least)

    @cached_property
    def law(self) -> PowerLaws:
        """The power law through the scores."""
        return fit(self.sizes, 1 - self.scores, self.weights)

    @cached_property
    def laws(self) -> PowerLaws:
        """Those through the scores of each resample."""
        return fit(self.sizes, 1 - self.resampled, self.weights)

    @property
    def before_last(self) -> FittedCurve:
        """The same without the largest size."""
        return FittedCurve(self.sizes[:-1], self.scores[:-1], self.resampled[:, :-1])

    def measured(self, at: int) -> Range:
        """Return the mean score of a size, by its position."""
        return _range(self.scores[at], self.resampled[:, at])

    def score(self, rows: float) -> Range:
        """Return the score with so many rows, by the power law."""
        return _range(self.law.score(rows), self.laws.score(rows))

    def gain(self, rows: float) -> Range:
        """Return what so many rows score beyond the largest size, both by the power law."""
        last = self.sizes[-1]
        gains = self.laws.score(rows) - self.laws.score(last)
        return _range(self.law.score(rows) - self.law.score(last), gains)

    def rows(self, score: float) -> Range:
        """Return how many rows a score takes; infinity where no number reaches it."""
        return _range(self.law.rows(score), self.laws.rows(score))

    @property
    def last_gain(self) -> Range:
        """What the largest size scores beyond the one before."""
        gains = self.resampled[:, -1] - self.resampled[:, -2]
        return _range(self.scores[-1] - self.scores[-2], gains)

    @property
    def exponent(self) -> Range:
        """The exponent of the power law."""
        return _range(self.law.exponent, self.laws.exponent)

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Why nothing can be said of more rows; none where it can."""
        held = {
            Doubt.NO_GAIN: self.last_gain.low <= 0,
            Doubt.FLAT: self.exponent.low <= FLAT,
            Doubt.MISFIT: self._misfit < MISFIT,
        }
        return tuple(doubt for doubt, is_held in held.items() if is_held)

    @property
    def _misfit(self) -> float:
        """How likely scores of such a curve are so far off their fit; 1 where three are fitted."""
        from scipy.stats import chi2  # noqa: PLC0415 - slow to import

        if (spare := len(self.sizes) - 3) < 1:
            return 1.0
        residuals = self.scores - np.array([self.law.score(size) for size in self.sizes])
        return float(chi2.sf(float((self.weights * residuals**2).sum()), spare))


def _by_unit(sums: Sums, clusters: Clusters | None) -> Sums:
    """Return what a score is made of by unit: a cluster of cases, or a case."""
    if clusters is None:
        return sums
    return Sums(summed(sums.rows, numbered(clusters, len(sums))), sums.formula)


def _drawn_units(units: int, draw: np.random.Generator) -> Iterator[FloatArray]:  # (R, U)
    """Yield how often each unit stands in a resample, for some resamples at a time."""
    most = max(1, AT_ONCE // units)
    for start in range(0, RESAMPLES, most):
        resamples = min(most, RESAMPLES - start)
        yield draw.multinomial(units, np.full(units, 1 / units), resamples).astype(np.float64)


def _drawn_mean(
    size: Sequence[Sums], cases: FloatArray, draw: np.random.Generator
) -> FloatArray:  # (R,)
    scores = np.stack([each.formula(cases @ each.rows) for each in size], axis=-1)  # (R, k)
    drawn = draw.integers(len(size), size=(len(cases), max(1, len(size) - 1)))
    return np.take_along_axis(scores, drawn, axis=-1).mean(axis=-1)


def _range(value: FloatArray | float, resampled: FloatArray) -> Range:
    ordered: list[float] = np.sort(resampled).tolist()
    outside = round((1 - LEVEL) / 2 * len(ordered))
    return Range(float(value), ordered[outside], ordered[-1 - outside])
