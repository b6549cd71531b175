"""Lay out charts: curves by step or rows, an interval with its margin, a strip of cases."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from unitune.run.curves import Curve

MAX_POINTS = 300  # maximum points of a drawn line, about one per two pixels
LABEL_GAP = 8.0  # minimum distance of two labels at the ends of lines, in percent of the height
LOWEST_LABEL = 94.0  # percent from the top; the step numbers are below


@dataclass(frozen=True, slots=True)
class Axis:
    """Axis of numbers with ticks at round values, ascending."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def around(cls, values: Iterable[float], max_ticks: int = 6) -> Axis:
        """Return the shortest axis with round ends that includes all values."""
        numbers = list(values)
        low, high = min(numbers), max(numbers)
        step = _round_step(_span(low, high) / (max_ticks - 2))
        # Tolerates rounding errors (0.3 / 0.1 is below 3), which would add a tick.
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        last = max(last, first + 1)
        ticks = tuple(float(f"{multiple * step:.10g}") for multiple in range(first, last + 1))
        return cls(ticks[0], ticks[-1], ticks)

    def position(self, value: float) -> float:
        """Return the position of a value, in percent from the beginning."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)


@dataclass(frozen=True, slots=True)
class LogAxis(Axis):
    """Axis on which equal ratios of positive numbers are equally far apart."""

    def position(self, value: float) -> float:
        """Return the position of a value, in percent from the beginning."""
        return round(100 * math.log(value / self.low) / math.log(self.high / self.low), 2)


def _span(low: float, high: float) -> float:
    """Return the distance of two values, or their magnitude if the distance is negligible."""
    size = max(abs(low), abs(high))
    if high - low > 1e-6 * size + 1e-30:
        return high - low
    return size if size > 1e-30 else 1.0


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 2.5 and 5 times a power of ten that is at least a number."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10, 20) if power * factor >= least)


def short_number(value: float, digits: int = 6) -> str:
    """Return a short form of a number: 0.5, 1500, 2.5e-4."""
    if not 0 < abs(value) < 0.01:
        return f"{value:.{digits}g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


class Point(NamedTuple):
    """Value at a step; after thinning, both are means over several steps."""

    step: float
    value: float


class Label(NamedTuple):
    """Name of a line at its end, with the line's last value."""

    name: str
    y: float  # percent from the top
    value: float


class Span(NamedTuple):
    """Range of a value at a step."""

    step: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class DrawnCurve:
    """Figure over a training, or by number of rows, ready to be drawn."""

    figure: str  # loss, reward, learning rate or score
    lines: Mapping[str, tuple[Point, ...]]  # by name; only lines with points
    x: Axis
    y: Axis
    kept: Point | None = None  # point of the validation line at the step whose adapter is the model
    marked: str = "validation"  # line whose points are marked
    unit: str = "steps"  # unit of the x axis
    spans: tuple[Span, ...] = ()

    def positions(self, line: Sequence[Point]) -> list[tuple[float, float]]:
        """Return the positions of points, in percent from the left and from the top."""
        return [(self.x.position(p.step), round(100 - self.y.position(p.value), 2)) for p in line]

    @property
    def description(self) -> str:
        """Description of the lines in words."""
        sentences = [
            f"The {name} {self.figure} goes from {line[0].value:.3g} at {self._at(line[0])} "
            f"to {line[-1].value:.3g} at {self._at(line[-1])}."
            for name, line in self.lines.items()
        ]
        if self.kept is not None:
            value = f"whose validation {self.figure} is {self.kept.value:.3g}"
            sentences.append(f"The model is that of step {self.kept.step:.0f}, {value}.")
        return " ".join(sentences)

    def _at(self, point: Point) -> str:
        step = f"{point.step:.0f}"
        return f"step {step}" if self.unit == "steps" else f"{step} {self.unit}"

    @property
    def labels(self) -> list[Label]:
        """Names of the lines, far enough apart to be readable."""
        ends = sorted(
            (100 - self.y.position(line[-1].value), name, line[-1].value)
            for name, line in self.lines.items()
        )
        labels: list[Label] = []
        lowest = -math.inf
        for left, (y, name, value) in zip(reversed(range(len(ends))), ends, strict=True):
            room = LOWEST_LABEL - LABEL_GAP * left
            lowest = max(min(y, room), lowest + LABEL_GAP)
            labels.append(Label(name, lowest, value))
        return labels


def drawn_curve(curve: Curve) -> DrawnCurve | None:
    """Return the drawing of a training; None if no value is a finite number."""
    validation = _finite(curve.validation_steps, curve.validation_values)
    kept = next((point for point in validation if point.step == curve.kept_step), None)
    training = thinned(_finite(curve.steps, curve.values))
    return _drawn(curve.figure, {"training": training, "validation": validation}, kept)


def drawn_rates(curve: Curve) -> DrawnCurve | None:
    """Return the drawing of a training's learning rates; None if they are unknown."""
    if not curve.learning_rates:
        return None
    rates = thinned(_finite(curve.steps, curve.learning_rates))
    return _drawn("learning rate", {"training": rates})


def _drawn(
    figure: str, lines: Mapping[str, tuple[Point, ...]], kept: Point | None = None
) -> DrawnCurve | None:
    points = [point for line in lines.values() for point in line]
    if not points:
        return None
    last = max(point.step for point in points)
    ticks = tuple(tick for tick in Axis.around([0.0, last]).ticks if tick <= last)
    x = Axis(0.0, last or 1.0, ticks)  # it ends with the lines, where their labels are
    y = Axis.around([0.0, *(point.value for point in points)])
    return DrawnCurve(figure, {name: line for name, line in lines.items() if line}, x, y, kept)


def _finite(steps: Sequence[int], values: Sequence[float]) -> tuple[Point, ...]:
    pairs = zip(steps, values, strict=True)
    return tuple(Point(step, value) for step, value in pairs if math.isfinite(value))


def thinned(points: Sequence[Point], limit: int = MAX_POINTS) -> tuple[Point, ...]:
    """Average runs of equal length until a line has few enough points."""
    size = max(1, math.ceil(len(points) / limit))
    runs = [points[start : start + size] for start in range(0, len(points), size)]
    return tuple(
        Point(fmean(point.step for point in run), fmean(point.value for point in run))
        for run in runs
    )


@dataclass(frozen=True, slots=True)
class IntervalChart:
    """Difference with its interval, and the zone of negligible differences."""

    axis: Axis
    value: float
    low: float
    high: float
    margin: float
    title: str
    description: str


class Stroke(NamedTuple):
    """Stroke of a strip: position among the cases, number of its cases, length from 0 to 1."""

    at: float
    cases: int
    length: float


class CaseStrip(NamedTuple):
    """Cases gained and lost, in order; a stroke represents `step` cases."""

    cases: int
    step: int
    gained: tuple[Stroke, ...]
    lost: tuple[Stroke, ...]
