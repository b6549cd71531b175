"""Fit a learning curve: scores by the number of training rows, extrapolated to more rows.

How the error falls with the rows is unknown, so three forms are fitted to the mean scores of
subsets by weighted least squares: a power law, an exponential approach and a logarithm (reviewed by
Viering and Loog 2021, arXiv 2103.10948). The range of a figure is the union of the ranges of the
forms that fit, since each covers only curves of its own form. A form's range comes from fits to
resamples, which draw the cases (by whole clusters) and the trainings of each subset. Of k trainings
a resample draws k - 1, so that its means vary as much as means of k do (Rao and Wu 1988, JASA
83:231). Trainings are drawn separately for each size, because their noise is independent.

A fit is used only if the curve rises and fits one of the forms: see `Doubt`.

Letters in shapes: P sizes, R resamples, B shapes, U units, K summands of a score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from unitune.evaluate.statistics.intervals import Clusters, FloatArray, numbered, summed
from unitune.scorers.formulas import Sums

LEVEL = 0.8  # of all ranges: one in five curves is outside, half of them above
RESAMPLES = 2_000
EXPONENTS = np.linspace(0.01, 2.0, 200)  # (B,)
# Number of rates tried for an exponential approach, and the slowest that counts as one, times the
# largest size. In simulations 1.5 keeps curves of 2.0 and rules out nearly all that rise late.
RATES, SLOWEST = 100, 1.5
# With a power law's exponent this close to 0, twice the rows reduce the error by less than 2 %
FLAT = 0.02
MISFIT = 0.01  # fraction of curves of a form that are as far off their fit by chance
AT_ONCE = 4_000_000  # maximum numbers of a resample's draws in memory


class Doubt(Enum):
    """Reason why the measured scores do not allow a prediction."""

    NO_GAIN = "no gain"
    """The last doubling of the rows has no measurable gain."""
    FLAT = "flat"
    """The exponent of the power law may be close to 0."""
    MISFIT = "misfit"
    """No form fits the scores: they rise late, or fall."""


class Range(NamedTuple):
    """Figure with its range at `LEVEL`."""

    value: float
    low: float
    high: float


class Form(StrEnum):
    """Form of the error as a function of the rows n; of several that fit, the first is drawn."""

    POWER = "power"
    """floor + scale · n ^ -shape"""
    EXPONENTIAL = "exponential"
    """floor + scale · e ^ (-shape · n)"""
    LOGARITHMIC = "logarithmic"
    """floor - scale · ln n; without a shape"""

    def fall(self, rows: float | FloatArray, shape: float | FloatArray) -> FloatArray:
        """Return the factor of `scale` for this many rows."""
        n, shape = np.asarray(rows, np.float64), np.asarray(shape, np.float64)
        if self is Form.POWER:
            return n**-shape
        return np.exp(-shape * n) if self is Form.EXPONENTIAL else -np.log(n) + 0 * shape

    def shapes(self, sizes: FloatArray) -> FloatArray:  # (B,)
        """Return the shapes that are tried."""
        if self is Form.POWER:
            return EXPONENTS
        if self is Form.LOGARITHMIC:
            return np.ones(1)
        slowest, fastest = -math.log(sizes[-1]), math.log(3 / sizes[0])
        return np.exp(np.linspace(slowest, fastest, RATES))


@dataclass(frozen=True, slots=True)
class Laws:
    """Laws of the error, all of one form. For one law the three are single numbers."""

    form: Form
    floor: FloatArray  # (...)
    scale: FloatArray  # (...), 0 if the error does not fall
    shape: FloatArray  # (...), 0 if the error does not fall

    def score(self, rows: float) -> FloatArray:
        """Return the score with this many rows."""
        return np.minimum(1.0, 1 - self.floor - self.scale * self.form.fall(rows, self.shape))

    def rows(self, score: float) -> FloatArray:
        """Return the rows that the score requires; infinity if no number of rows reaches it."""
        left = 1 - score - self.floor
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = self.scale / left
            if self.form is Form.POWER:
                needed = ratio ** (1 / self.shape)
            elif self.form is Form.EXPONENTIAL:
                needed = np.log(ratio) / self.shape
            else:
                needed = np.exp(-1 / ratio)
        reached = (left > 0) | (self.form is Form.LOGARITHMIC)
        flat = np.where(left >= 0, 0.0, math.inf)
        return np.where(self.scale == 0, flat, np.where(reached, needed, math.inf))


def fit(
    sizes: Sequence[float],  # (P,), ascending
    errors: FloatArray,  # (P,), or (R, P) of several curves
    weights: FloatArray,  # (P,)
    form: Form = Form.POWER,
) -> Laws:
    """Fit laws of a form to errors by weighted least squares.

    Floor and scale are not negative, and the shape is one of `Form.shapes`. For each shape the fit
    is linear, so the best one is found by trying all.
    """
    n, w = np.asarray(sizes, np.float64), weights / weights.sum()
    shapes = form.shapes(n)
    y: FloatArray = errors[..., None, :]  # (..., 1, P)
    x = form.fall(n, shapes[:, None])  # (B, P)
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
    return Laws(form, floor, slope, np.where(slope > 0, shapes[best], 0.0))


def _at(values: FloatArray, positions: npt.NDArray[np.intp]) -> FloatArray:
    return np.take_along_axis(values, positions[..., None], axis=-1)[..., 0]


@dataclass(frozen=True, eq=False)
class FittedCurve:
    """Scores by the number of rows, with the laws fitted to them."""

    sizes: tuple[int, ...]  # numbers of rows, ascending
    # Mean score of the trainings of each size
    scores: FloatArray  # (P,)
    # Mean scores in each resample
    resampled: FloatArray  # (R, P)

    @classmethod
    def of(
        cls,
        sizes: Sequence[int],
        trainings: Sequence[Sequence[Sums]],
        clusters: Clusters | None = None,
    ) -> FittedCurve:
        """Resample the scores of trainings, given the sufficient statistics of each by size."""
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
        """Weight of each size in a fit: one over the variance of its mean."""
        least = (0.1 / len(self.resampled)) ** 2
        return 1 / np.maximum(self.resampled.var(axis=0), least)

    @cached_property
    def laws(self) -> dict[Form, Laws]:
        """Law of each form fitted to the scores."""
        return {form: fit(self.sizes, 1 - self.scores, self.weights, form) for form in Form}

    @cached_property
    def resampled_laws(self) -> dict[Form, Laws]:
        """Laws of each form fitted to the scores of each resample."""
        return {form: fit(self.sizes, 1 - self.resampled, self.weights, form) for form in Form}

    @cached_property
    def fitting(self) -> tuple[Form, ...]:
        """Forms that fit the scores within chance.

        A slow exponential approach is nearly a straight line. It also fits scores that rise faster
        and faster, and does not predict where they end.
        """
        straight = self.laws[Form.EXPONENTIAL].shape <= SLOWEST / self.sizes[-1]
        forms = (each for each in Form if not (each is Form.EXPONENTIAL and straight))
        return tuple(form for form in forms if self._chance(self.laws[form]) >= MISFIT)

    @property
    def forms(self) -> tuple[Form, ...]:
        """Forms used for figures: those that fit, or the first if none does."""
        return self.fitting or (Form.POWER,)

    @property
    def law(self) -> Laws:
        """Law whose figures are given, within the ranges of all that fit."""
        return self.laws[self.forms[0]]

    @property
    def before_last(self) -> FittedCurve:
        """Curve without the largest size."""
        return FittedCurve(self.sizes[:-1], self.scores[:-1], self.resampled[:, :-1])

    def measured(self, at: int) -> Range:
        """Return the mean score of a size, by its position."""
        return _range(self.scores[at], self.resampled[:, at])

    def score(self, rows: float) -> Range:
        """Return the score with this many rows."""
        return self._union(lambda law: law.score(rows))

    def gain(self, rows: float) -> Range:
        """Return the gain of this many rows over the largest size, both by the same law."""
        last = self.sizes[-1]
        return self._union(lambda law: law.score(rows) - law.score(last))

    def rows(self, score: float) -> Range:
        """Return the rows that a score requires; infinity if no number reaches it."""
        return self._union(lambda law: law.rows(score))

    def _union(self, figure: Callable[[Laws], FloatArray]) -> Range:
        laws = (self.resampled_laws[form] for form in self.forms)
        ranges = [_range(figure(self.law), figure(each)) for each in laws]
        low, high = min(each.low for each in ranges), max(each.high for each in ranges)
        return Range(ranges[0].value, low, high)

    @property
    def last_gain(self) -> Range:
        """Gain of the largest size over the second largest."""
        gains = self.resampled[:, -1] - self.resampled[:, -2]
        return _range(self.scores[-1] - self.scores[-2], gains)

    def shape(self, form: Form) -> Range:
        """Return the shape of the law of a form."""
        return _range(self.laws[form].shape, self.resampled_laws[form].shape)

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Reasons why more rows cannot be predicted; empty if they can."""
        held = {
            Doubt.NO_GAIN: self.last_gain.low <= 0,
            Doubt.FLAT: self.shape(Form.POWER).low <= FLAT,
            Doubt.MISFIT: not self.fitting,
        }
        return tuple(doubt for doubt, is_held in held.items() if is_held)

    def _chance(self, law: Laws) -> float:
        """Return the probability of scores at least this far off a law; 1 if it fits any scores."""
        from scipy.stats import chi2  # noqa: PLC0415 - slow to import

        # A logarithm is nearly a power law with the smallest exponent, and is tested as strictly.
        if (spare := max(len(self.sizes) - 3, law.form is Form.LOGARITHMIC)) < 1:
            return 1.0
        residuals = self.scores - np.array([law.score(size) for size in self.sizes])
        return float(chi2.sf(float((self.weights * residuals**2).sum()), spare))


def _by_unit(sums: Sums, clusters: Clusters | None) -> Sums:
    """Return the sufficient statistics of a score by unit: a cluster of cases, or a case."""
    if clusters is None:
        return sums
    return Sums(summed(sums.rows, numbered(clusters, len(sums))), sums.formula)


def _drawn_units(units: int, draw: np.random.Generator) -> Iterator[FloatArray]:  # (R, U)
    """Yield the count of each unit in a resample, for several resamples at a time."""
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
