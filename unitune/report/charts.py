"""Charts as inline SVG, drawn from a comparison's numbers.

Places are percentages of the drawing, never of a fixed canvas: a chart fills the width it is given
while its type and lines keep their size, on a phone as on paper. Colours and fonts are the page's
(`style.css`); the classes here only say what a mark is. A chart that stands alone carries a title
and a description for those who do not see it; marks in a table row are hidden from them, because
the same numbers stand in the next cell.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from unitune.evaluate.results import Comparison, ContenderResult, Contrast, Curve
from unitune.report import facts, typography

MOST_POINTS = 300
"""Points of a drawn line: one for every two pixels or so; longer lines are averaged in runs."""

LABEL_GAP = 8.0
"""Percent of the height that two labels at a line's end keep between them."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A line of numbers with ticks at round values.

    Args:
        low: Value at the beginning.
        high: Value at the end.
        ticks: Values that are marked, ascending.
    """

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def around(cls, values: Iterable[float], most_ticks: int = 6) -> Axis:
        """Return the shortest axis with round ends that holds all values.

        Args:
            values: At least one finite number.
            most_ticks: No more ticks than these.
        """
        found = list(values)
        low, high = min(found), max(found)
        step = _round_step(_span(low, high) / (most_ticks - 2))
        # A hair's breadth is a rounding error (0.3 / 0.1 is below 3) and no reason for a tick more.
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        last = max(last, first + 1)
        ticks = tuple(float(f"{place * step:.10g}") for place in range(first, last + 1))
        return cls(ticks[0], ticks[-1], ticks)

    def place(self, value: float) -> float:
        """Return where a value stands, in percent from the beginning."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)


SHARES = Axis(0, 1, (0, 0.25, 0.5, 0.75, 1))
"""Scores are drawn from 0 to 100 %, so that their distances can be trusted."""


def score_axis() -> Markup:
    """Draw the labels of the axis that all scores share."""
    labels = _joined(
        Markup('<text x="{}%" y="100%" dy="-4">{:.0f}</text>').format(
            SHARES.place(tick), 100 * tick
        )
        for tick in SHARES.ticks
    )
    return Markup('<svg class="scale" aria-hidden="true">{}</svg>').format(labels)


def score(result: ContenderResult, *, highlight: bool) -> Markup:
    """Draw one contender's score with its interval on the axis that all share.

    Args:
        result: Whose score.
        highlight: Draw it in the accent colour.
    """
    return Markup('<svg class="interval{}" aria-hidden="true">{}{}</svg>').format(
        " candidate" if highlight else "",
        _vertical_grid(SHARES),
        _interval_mark(SHARES, result.score, result.interval),
    )


def difference(comparison: Comparison) -> Markup:
    """Draw the paired difference with its interval over the zone that does not matter."""
    margin = comparison.margin
    beyond = 1.25 * margin  # so that the zone's ends are seen to be ends
    axis = Axis.around(100 * value for value in (*comparison.interval, -beyond, beyond))
    left, right = axis.place(-100 * margin), axis.place(100 * margin)
    low, high = comparison.interval
    return Markup(
        '<svg class="difference" role="img" aria-labelledby="d-title d-text">'
        '<title id="d-title">Difference of {} and {}, in points</title>'
        '<desc id="d-text">{}, {} interval from {} to {}, margin from {} to {}.</desc>'
        '<rect class="zone" x="{}%" y="0" width="{}%" height="100%"/>'
        '{}<line class="zero" x1="{}%" x2="{}%" y1="0" y2="100%"/>{}{}'
        '<text class="side" x="0" y="0" dy="-8">\u2190 behind</text>'
        '<text class="side ahead" x="100%" y="0" dy="-8">ahead \u2192</text></svg>'
    ).format(
        comparison.candidate,
        comparison.baseline,
        typography.points(comparison.difference, sign=True),
        facts.level(comparison),
        typography.decimal(100 * low),
        typography.decimal(100 * high),
        typography.decimal(-100 * margin),
        typography.decimal(100 * margin),
        left,
        round(right - left, 2),
        _vertical_grid(axis),
        axis.place(0),
        axis.place(0),
        _interval_mark(axis, 100 * comparison.difference, (100 * low, 100 * high)),
        _joined(
            Markup('<text x="{}%" y="100%" dy="18">{}</text>').format(axis.place(tick), _sign(tick))
            for tick in axis.ticks
        ),
    )


def difference_axis(results: Sequence[Contrast]) -> Axis:
    """Return the axis in points on which several differences are drawn."""
    ends = [100 * end for result in results for end in result.interval]
    return Axis.around([0.0, *ends], most_ticks=4)


def small_difference(axis: Axis, result: Contrast) -> Markup:
    """Draw one of several differences, for a row of a table."""
    return Markup(
        '<svg class="interval" aria-hidden="true">{}'
        '<line class="zero" x1="{}%" x2="{}%" y1="0" y2="100%"/>{}</svg>'
    ).format(
        _vertical_grid(axis),
        axis.place(0),
        axis.place(0),
        _interval_mark(
            axis, 100 * result.difference, (100 * result.interval[0], 100 * result.interval[1])
        ),
    )


def scale(axis: Axis) -> Markup:
    """Draw the labels of an axis that the rows of a table share."""
    labels = _joined(
        Markup('<text x="{}%" y="100%" dy="-4">{}</text>').format(axis.place(tick), _sign(tick))
        for tick in axis.ticks
    )
    return Markup('<svg class="scale" aria-hidden="true">{}</svg>').format(labels)


def training_curve(curve: Curve) -> Markup:
    """Draw a figure of training rows as a thin line, of validation rows as one with its points.

    Values that are no finite numbers are left out.

    Returns:
        The chart; empty when there is nothing to draw.
    """
    training = thinned(_finite(curve.steps, curve.values))
    validation = _finite(curve.validation_steps, curve.validation_values)
    if not training and not validation:
        return Markup()
    x = Axis.around([0.0, *(point.step for point in (*training, *validation))])
    y = Axis.around([0.0, *(point.value for point in (*training, *validation))])
    return Markup(
        '<svg class="curve" role="img" aria-labelledby="c-title c-text">'
        '<title id="c-title">{} over the training</title><desc id="c-text">{}</desc>'
        '{}{}<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">'
        "{}{}</svg>{}{}</svg>"
    ).format(
        curve.figure.capitalize(),
        " ".join(
            _told(f"{name} {curve.figure}", line) for name, line in _named(training, validation)
        ),
        _horizontal_grid(y),
        _step_labels(x),
        _line("training", training, x, y),
        _line("validation", validation, x, y),
        _points(validation, x, y),
        _end_labels(training, validation, y),
    )


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a step; after thinning, both are means over a run of steps."""

    step: float
    value: float


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """Average a long line in runs of equal length until it has few enough points.

    Args:
        points: In their order.
        most: No more points than these.
    """
    size = max(1, math.ceil(len(points) / most))
    runs = [points[start : start + size] for start in range(0, len(points), size)]
    return tuple(
        Point(
            sum(point.step for point in run) / len(run),
            sum(point.value for point in run) / len(run),
        )
        for run in runs
    )


def _finite(steps: Sequence[int], values: Sequence[float]) -> tuple[Point, ...]:
    pairs = zip(steps, values, strict=True)
    return tuple(Point(step, value) for step, value in pairs if math.isfinite(value))


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


def _interval_mark(axis: Axis, value: float, ends: tuple[float, float]) -> Markup:
    low, high = axis.place(ends[0]), axis.place(ends[1])
    return Markup(
        '<line class="span" x1="{}%" x2="{}%" y1="50%" y2="50%"/>'
        '<circle cx="{}%" cy="50%" r="4.5"/>'
    ).format(low, high, axis.place(value))


def _vertical_grid(axis: Axis) -> Markup:
    return _joined(
        Markup('<line class="grid" x1="{}%" x2="{}%" y1="0" y2="100%"/>').format(place, place)
        for place in map(axis.place, axis.ticks)
    )


def _horizontal_grid(axis: Axis) -> Markup:
    return _joined(
        Markup(
            '<line class="grid" x1="0" x2="100%" y1="{}%" y2="{}%"/>'
            '<text class="y" x="0" y="{}%" dx="-8" dy="4">{:g}</text>'
        ).format(place, place, place, tick)
        for tick, place in ((tick, 100 - axis.place(tick)) for tick in axis.ticks)
    )


def _step_labels(axis: Axis) -> Markup:
    return _joined(
        Markup('<text x="{}%" y="100%" dy="20">{:,g}</text>').format(axis.place(tick), tick)
        for tick in axis.ticks
    )


def _line(name: str, points: Sequence[Point], x: Axis, y: Axis) -> Markup:
    path = " ".join(f"{x.place(p.step):g},{round(100 - y.place(p.value), 2):g}" for p in points)
    return Markup('<polyline class="{}" points="{}"/>').format(name, path)


def _points(points: Sequence[Point], x: Axis, y: Axis) -> Markup:
    return _joined(
        Markup('<circle cx="{}%" cy="{}%" r="3"/>').format(
            x.place(point.step), round(100 - y.place(point.value), 2)
        )
        for point in points
    )


def _end_labels(training: Sequence[Point], validation: Sequence[Point], y: Axis) -> Markup:
    """Name each line at its end, the labels far enough apart to be read."""
    ends = [
        (100 - y.place(line[-1].value), name, line[-1])
        for name, line in _named(training, validation)
    ]
    labels: list[Markup] = []
    lowest = -math.inf
    for wanted, name, end in sorted(ends):
        lowest = max(wanted, lowest + LABEL_GAP)
        labels.append(
            Markup(
                '<text class="end {}" x="100%" y="{:.2f}%" dx="10" dy="4">{} {:.3g}</text>'
            ).format(name, lowest, name, end.value)
        )
    return _joined(labels)


def _named(
    training: Sequence[Point], validation: Sequence[Point]
) -> tuple[tuple[str, Sequence[Point]], ...]:
    lines = (("training", training), ("validation", validation))
    return tuple((name, line) for name, line in lines if line)


def _told(name: str, line: Sequence[Point]) -> str:
    first, last = line[0], line[-1]
    return (
        f"The {name} goes from {first.value:.3g} at step {first.step:.0f} "
        f"to {last.value:.3g} at step {last.step:.0f}."
    )


def _sign(tick: float) -> str:
    return typography.typeset(f"{tick:+g}") if tick else "0"


def _joined(marks: Iterable[Markup]) -> Markup:
    return Markup("").join(marks)
