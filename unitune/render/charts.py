"""Charts as values: curves by step or rows, an interval with its margin, a strip of cases."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from unitune.run.curves import Curve

MAX_POINTS = 300  # of a drawn line, one for every two pixels or so
LABEL_GAP = 8.0  # percent of the height that two labels at a line's end keep between them
LOWEST_LABEL = 94.0  # percent from the top; below stand the numbers of the steps


@dataclass(frozen=True, slots=True)
class Axis:
    """A line of numbers with ticks at round values, ascending."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def around(cls, values: Iterable[float], max_ticks: int = 6) -> Axis:
        """Return the shortest axis with round ends that holds all values."""
        numbers = list(values)
        low, high = min(numbers), max(numbers)
        step = _round_step(_span(low, high) / (max_ticks - 2))
        # A hair's breadth is a rounding error (0.3 / 0.1 is below 3) and no reason for a tick more.
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        last = max(last, first + 1)
        ticks = tuple(float(f"{multiple * step:.10g}") for multiple in range(first, last + 1))
        return cls(ticks[0], ticks[-1], ticks)

    def position(self, value: float) -> float:
        """Return where a value stands, in percent from the beginning."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)


@dataclass(frozen=True, slots=True)
class LogAxis(Axis):
    """An axis on which equal ratios of positive numbers are equally far apart."""

    def position(self, value: float) -> float:
        """Return where a value stands, in percent from the beginning."""
        return round(100 * math.log(value / self.low) / math.log(self.high / self.low), 2)


def _span(low: float, high: float) -> float:
    """Return the distance of two values; where it is nothing next to them, their own size."""
    size = max(abs(low), abs(high))
    if high - low > 1e-6 * size + 1e-30:
        return high - low
    return size if size > 1e-30 else 1.0


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 2.5, 5 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10, 20) if power * factor >= least)


def short_number(value: float, digits: int = 6) -> str:
    """Return a number of an axis or a line: 0.5, 1500, 2.5e-4."""
    if not 0 < abs(value) < 0.01:
        return f"{value:.{digits}g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


class Point(NamedTuple):
    """A value at a step; after thinning, both are means over a run of steps."""

    step: float
    value: float


class Label(NamedTuple):
    """The name of a line at its end, with the line's last value."""

    name: str
    y: float  # in percent from the top
    value: float


class Span(NamedTuple):
    """The range of a value at a step."""

    step: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class DrawnCurve:
    """A figure over a training, or over the number of rows, ready to be drawn."""

    figure: str  # loss, reward, learning rate or score
    lines: Mapping[str, tuple[Point, ...]]  # by name; only those that have points
    x: Axis  # steps
    y: Axis
    kept: Point | None = None  # on the validation's line: the step whose adapter is the model
    marked: str = "validation"  # name of the line whose points are marked
    unit: str = "steps"  # of the x axis
    spans: tuple[Span, ...] = ()

    def positions(self, line: Sequence[Point]) -> list[tuple[float, float]]:
        """Return where points are drawn, in percent from the left and from the top."""
        return [(self.x.position(p.step), round(100 - self.y.position(p.value), 2)) for p in line]

    @property
    def description(self) -> str:
        """The lines in words."""
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
        """The names of the lines, far enough apart to be read."""
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
    """Return what to draw of a training; None where no value is a finite number."""
    validation = _finite(curve.validation_steps, curve.validation_values)
    kept = next((point for point in validation if point.step == curve.kept_step), None)
    training = thinned(_finite(curve.steps, curve.values))
    return _drawn(curve.figure, {"training": training, "validation": validation}, kept)


def drawn_rates(curve: Curve) -> DrawnCurve | None:
    """Return what to draw of a training's learning rates; None where they are not known."""
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
    x = Axis(0.0, last or 1.0, ticks)  # it ends where the lines do, and their labels stand there
    y = Axis.around([0.0, *(point.value for point in points)])
    return DrawnCurve(figure, {name: line for name, line in lines.items() if line}, x, y, kept)


def _finite(steps: Sequence[int], values: Sequence[float]) -> tuple[Point, ...]:
    pairs = zip(steps, values, strict=True)
    return tuple(Point(step, value) for step, value in pairs if math.isfinite(value))


def thinned(points: Sequence[Point], limit: int = MAX_POINTS) -> tuple[Point, ...]:
    """Average a long line in runs of equal length until it has few enough points."""
    size = max(1, math.ceil(len(points) / limit))
    runs = [points[start : start + size] for start in range(0, len(points), size)]
    return tuple(
        Point(fmean(point.step for point in run), fmean(point.value for point in run))
        for run in runs
    )


@dataclass(frozen=True, slots=True)
class IntervalChart:
    """A difference with its interval, over the zone of differences that do not matter."""

    axis: Axis
    value: float
    low: float
    high: float
    margin: float
    title: str
    description: str


class Stroke(NamedTuple):
    """A line of the strip: its place among the cases, how many it stands for, its length to 1."""

    at: float
    cases: int
    length: float


class CaseStrip(NamedTuple):
    """Cases gained and lost, in their order; a stroke stands for `step` cases."""

    cases: int
    step: int
    gained: tuple[Stroke, ...]
    lost: tuple[Stroke, ...]
