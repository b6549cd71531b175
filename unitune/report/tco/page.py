"""Total cost as one self-contained page with its plot, as inline SVG: `render` gives all of it.

The page loads nothing and holds no script. Both axes of the plot are in powers of ten. A month
costs what is fixed plus what each request costs, so on these axes a line is flat where the fixed
part rules and rises evenly where requests do. Places are percentages, as in
`unitune.report.charts`: type and lines keep their size on any width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from markupsafe import Markup

from unitune.cost.spread import Spread
from unitune.report import html, typography
from unitune.report.charts import LABEL_GAP
from unitune.report.tco import words
from unitune.tco.documents import BreakEven, Role, TotalCost, TotalCostList

POINTS = 61
"""Points of a line: on such axes it bends once, and gently."""
LABEL_SPACE = 20.0
"""Percent of the width that a label on the left needs, on a phone."""
LEAST_VOLUME, MOST_VOLUME = 1, 10**9
"""A break-even beyond is not drawn; no model gets so few or so many requests."""


def render(costs: TotalCostList) -> str:
    """Return the total cost on each backend as one HTML page that needs no other file.

    Args:
        costs: Of at least one backend.
    """
    style = html.resource("style.css") + html.resource("tco/page.css")
    template = html.environment().get_template("tco/page.html.j2")
    return template.render(
        backends=costs.backends,
        left_out=costs.left_out,
        words=words,
        cost_chart=cost_chart,
        typography=typography,
        style=Markup(style),  # noqa: S704 - our own files
        policy=html.policy(style),
    )


@dataclass(frozen=True, slots=True)
class LogAxis:
    """Powers of ten.

    Args:
        first: Exponent at the beginning.
        last: Exponent at the end.
    """

    first: int
    last: int

    @classmethod
    def around(cls, values: Iterable[Decimal]) -> LogAxis:
        """Return the shortest axis that holds all values, which are above 0."""
        logs = [math.log10(value) for value in values]
        # A hair's breadth is a rounding error and no reason for a power more.
        first, last = math.floor(min(logs) + 1e-9), math.ceil(max(logs) - 1e-9)
        return cls(first, max(last, first + 1))

    @property
    def ticks(self) -> tuple[Decimal, ...]:
        """Every power of ten."""
        return tuple(Decimal(10) ** power for power in range(self.first, self.last + 1))

    def place(self, value: Decimal) -> float:
        """Return where a value stands, in percent from the beginning."""
        return round(100 * (math.log10(value) - self.first) / (self.last - self.first), 2)

    def values(self, count: int) -> Iterator[Decimal]:
        """Yield so many values, evenly spread over the axis."""
        for at in range(count):
            yield Decimal(10 ** (self.first + (self.last - self.first) * at / (count - 1)))


@dataclass(frozen=True, slots=True)
class Curve:
    """What a way of answering costs a month, volume by volume."""

    role: Role
    points: tuple[tuple[Decimal, Spread], ...]


def cost_chart(cost: TotalCost, number: int = 1) -> Markup:
    """Draw the cost of a month, all in, against requests a month.

    Args:
        cost: What is drawn.
        number: Of the chart on its page, from 1.

    Returns:
        The chart; empty where no way of answering has a known price above 0.
    """
    crossings = _drawn(cost)
    volumes = [Decimal(at.requests_month) for at in cost.columns[0].costs]
    x = LogAxis.around([*volumes, *(one.requests_month for one in crossings)])
    curves = tuple(_curves(cost, x))
    if not curves:
        return Markup()
    y = LogAxis.around(
        end for curve in curves for _, usd in curve.points for end in (usd.low, usd.high)
    )
    shapes = [_shape(curve, x, y, band=band) for band in (True, False) for curve in curves]
    return Markup(
        '<svg class="costs" role="img" aria-labelledby="p-title-{} p-text-{}">'
        '<title id="p-title-{}">Cost of a month against requests a month</title>'
        '<desc id="p-text-{}">{}</desc>{}'
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">{}</svg>'
        "{}{}{}</svg>"
    ).format(
        *[number] * 4,
        description(cost),
        _joined((*_horizontal_grid(y), *_vertical_grid(x))),
        _joined(shapes),
        _planned(Decimal(cost.requests_month), x),
        _joined(
            # Break-evens lie close together: the first is labelled away from those that follow.
            _crossing(one, x, y, before=at == 0 and x.place(one.requests_month) > LABEL_SPACE)
            for at, one in enumerate(crossings)
        ),
        _names(curves, y),
    )


def description(cost: TotalCost) -> str:
    """Describe the plot for those who do not see it."""
    volume = cost.requests_month
    planned = [
        f"{words.NAMES[column.role].capitalize()}: {words.usd(at.usd_month.expected)} at "
        f"{volume:,} requests a month."
        for column in cost.columns
        for at in column.costs
        if at.requests_month == volume and at.usd_month is not None
    ]
    crossings = [
        f"{words.NAMES[one.first].capitalize()} and {words.NAMES[one.second]} cost the same at "
        f"{one.requests_month:,.0f}."
        for one in _drawn(cost)
    ]
    return " ".join([*planned, *crossings])


def _drawn(cost: TotalCost) -> list[BreakEven]:
    return [one for one in cost.break_evens if LEAST_VOLUME <= one.requests_month <= MOST_VOLUME]


def _curves(cost: TotalCost, x: LogAxis) -> Iterator[Curve]:
    for column in cost.columns:
        points = [
            (volume, usd)
            for volume in x.values(POINTS)
            if (usd := column.cost.monthly(volume, cost.horizon.months)) and usd.low > 0
        ]
        if points:
            yield Curve(column.role, tuple(points))


def _shape(curve: Curve, x: LogAxis, y: LogAxis, *, band: bool) -> Markup:
    """Draw a line, or shade what lies between low and high, if that is not the same."""

    def point(volume: Decimal, usd: Decimal) -> str:
        return f"{x.place(volume):g},{round(100 - y.place(usd), 2):g}"

    if not band:
        line = " ".join(point(volume, usd.expected) for volume, usd in curve.points)
        return Markup('<polyline class="{}" points="{}"/>').format(curve.role, line)
    if all(usd.exact for _, usd in curve.points):
        return Markup()
    there = [point(volume, usd.high) for volume, usd in curve.points]
    back = [point(volume, usd.low) for volume, usd in reversed(curve.points)]
    return Markup('<polygon class="{}" points="{}"/>').format(curve.role, " ".join(there + back))


def _planned(volume: Decimal, x: LogAxis) -> Markup:
    place = x.place(volume)
    return Markup(
        '<line class="planned" x1="{}%" x2="{}%" y1="0" y2="100%"/>'
        '<text class="planned" x="{}%" y="0" dy="-8">planned {}</text>'
    ).format(place, place, place, _short(volume))


def _crossing(one: BreakEven, x: LogAxis, y: LogAxis, *, before: bool) -> Markup:
    """Mark where two lines cross, with the volume above it on the left, or below on the right."""
    place, height = x.place(one.requests_month), round(100 - y.place(one.usd_month), 2)
    side, dx, dy = ("before", -9, -9) if before else ("after", 9, 18)
    return Markup(
        '<circle class="crossing" cx="{}%" cy="{}%" r="4.5"/>'
        '<text class="crossing {}" x="{}%" y="{}%" dx="{}" dy="{}">{}</text>'
    ).format(place, height, side, place, height, dx, dy, _short(one.requests_month))


def _names(curves: Iterable[Curve], y: LogAxis) -> Markup:
    """Name each line at its end, the labels far enough apart to be read."""
    labels: list[Markup] = []
    lowest = -math.inf
    for curve in sorted(curves, key=lambda curve: curve.points[-1][1].expected, reverse=True):
        lowest = max(100 - y.place(curve.points[-1][1].expected), lowest + LABEL_GAP)
        labels.append(
            Markup('<text class="end {}" x="100%" y="{:.2f}%" dx="10" dy="4">{}</text>').format(
                curve.role, lowest, words.NAMES[curve.role]
            )
        )
    return _joined(labels)


def _horizontal_grid(axis: LogAxis) -> Iterator[Markup]:
    for tick in axis.ticks:
        place = round(100 - axis.place(tick), 2)
        yield Markup(
            '<line class="grid" x1="0" x2="100%" y1="{}%" y2="{}%"/>'
            '<text class="y" x="0" y="{}%" dx="-8" dy="4">${}</text>'
        ).format(place, place, place, _short(tick))


def _vertical_grid(axis: LogAxis) -> Iterator[Markup]:
    for tick in axis.ticks:
        place = axis.place(tick)
        yield Markup(
            '<line class="grid" x1="{}%" x2="{}%" y1="0" y2="100%"/>'
            '<text x="{}%" y="100%" dy="20">{}</text>'
        ).format(place, place, place, _short(tick))


def _short(number: Decimal) -> str:
    """Return a number with a unit for its thousands: 1.8M, 50k, 0.10."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (1000, "k")):
        if number >= size:
            return f"{float(number / size):.3g}{unit}"
    return f"{number:.2f}" if Decimal("0.01") <= number < 1 else f"{float(number):.3g}"


def _joined(marks: Iterable[Markup]) -> Markup:
    return Markup("").join(marks)
