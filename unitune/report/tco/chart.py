"""The plot of cost against requests a month, as inline SVG: both axes in powers of ten.

A month costs what is fixed plus what each request costs, so on these axes a line is flat where the
fixed part rules and rises evenly where requests do. Places are percentages, as in
`unitune.report.charts`: type and lines keep their size on any width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from markupsafe import Markup

from unitune.cost.spread import Spread
from unitune.report.charts import LABEL_GAP
from unitune.report.tco import words
from unitune.tco.columns import Role
from unitune.tco.documents import BreakEven, Column, TotalCost

POINTS = 61
"""Points of a line: on such axes it bends once, and gently."""
LABEL_ROOM = 20.0
"""Percent of the width that a label on the left needs, on a phone."""
LEAST_VOLUME, MOST_VOLUME = 1, 10**9
"""A crossing beyond is not drawn; nobody asks so seldom or so often."""


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


def cost_chart(found: TotalCost, number: int = 1) -> Markup:
    """Draw the cost of a month, all in, against requests a month.

    Args:
        found: What is drawn.
        number: Of the chart on its page, from 1.

    Returns:
        The chart; empty where no way of answering has a known price above 0.
    """
    x = LogAxis.around(_volumes(found))
    curves = tuple(curve for one in found.columns if (curve := _curve(found, one, x)))
    if not curves:
        return Markup()
    y = LogAxis.around(
        end for curve in curves for _, usd in curve.points for end in (usd.low, usd.high)
    )
    return Markup(
        '<svg class="costs" role="img" aria-labelledby="p-title-{} p-text-{}">'
        '<title id="p-title-{}">Cost of a month against requests a month</title>'
        '<desc id="p-text-{}">{}</desc>{}{}'
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">'
        "{}{}</svg>"
        "{}{}{}</svg>"
    ).format(
        *[number] * 4,
        told(found),
        _horizontal_grid(y),
        _vertical_grid(x),
        _joined(_band(curve, x, y) for curve in curves),
        _joined(_line(curve, x, y) for curve in curves),
        _planned(found, x),
        _joined(
            # Crossovers lie close together: the first is labelled away from those that follow.
            _crossing(one, x, y, before=at == 0 and x.place(one.requests_month) > LABEL_ROOM)
            for at, one in enumerate(_drawn(found))
        ),
        _names(curves, y),
    )


def told(found: TotalCost) -> str:
    """Describe the plot for those who do not see it."""
    said = [
        f"{words.NAMES[one.role].capitalize()}: {words.usd(cost.expected)} at "
        f"{found.requests_month:,} requests a month."
        for one in found.columns
        for cost in [at.usd_month for at in one.costs if at.requests_month == found.requests_month]
        if cost is not None
    ]
    said += [
        f"{words.NAMES[one.first].capitalize()} and {words.NAMES[one.second]} cost the same at "
        f"{one.requests_month:,.0f}."
        for one in _drawn(found)
    ]
    return " ".join(said)


def _drawn(found: TotalCost) -> tuple[BreakEven, ...]:
    return tuple(one for one in found.meetings if LEAST_VOLUME <= one.requests_month <= MOST_VOLUME)


def _volumes(found: TotalCost) -> Iterator[Decimal]:
    yield from (Decimal(at.requests_month) for at in found.columns[0].costs)
    yield from (one.requests_month for one in _drawn(found))


def _curve(found: TotalCost, column: Column, x: LogAxis) -> Curve | None:
    months = found.horizon.months
    costs = [
        (volume, usd)
        for volume in x.values(POINTS)
        if (usd := column.cost.monthly(volume, months)) is not None and usd.low > 0
    ]
    return Curve(column.role, tuple(costs)) if costs else None


def _line(curve: Curve, x: LogAxis, y: LogAxis) -> Markup:
    path = " ".join(_at(volume, usd.expected, x, y) for volume, usd in curve.points)
    return Markup('<polyline class="{}" points="{}"/>').format(curve.role, path)


def _band(curve: Curve, x: LogAxis, y: LogAxis) -> Markup:
    """Shade what lies between low and high; nothing where they are the same."""
    if all(usd.exact for _, usd in curve.points):
        return Markup()
    there = [_at(volume, usd.high, x, y) for volume, usd in curve.points]
    back = [_at(volume, usd.low, x, y) for volume, usd in reversed(curve.points)]
    return Markup('<polygon class="{}" points="{}"/>').format(curve.role, " ".join(there + back))


def _at(volume: Decimal, usd: Decimal, x: LogAxis, y: LogAxis) -> str:
    return f"{x.place(volume):g},{round(100 - y.place(usd), 2):g}"


def _planned(found: TotalCost, x: LogAxis) -> Markup:
    """Mark the planned volume."""
    place = x.place(Decimal(found.requests_month))
    return Markup(
        '<line class="planned" x1="{}%" x2="{}%" y1="0" y2="100%"/>'
        '<text class="planned" x="{}%" y="0" dy="-8">planned {}</text>'
    ).format(place, place, place, _short(Decimal(found.requests_month)))


def _crossing(one: BreakEven, x: LogAxis, y: LogAxis, *, before: bool) -> Markup:
    """Mark where two lines cross, with the volume above it on the left, or below on the right."""
    place, height = x.place(one.requests_month), round(100 - y.place(one.usd_month), 2)
    return Markup(
        '<circle class="crossing" cx="{}%" cy="{}%" r="4.5"/>'
        '<text class="crossing {}" x="{}%" y="{}%" dx="{}" dy="{}">{}</text>'
    ).format(
        place,
        height,
        "before" if before else "after",
        place,
        height,
        -9 if before else 9,
        -9 if before else 18,
        _short(one.requests_month),
    )


def _names(curves: Iterable[Curve], y: LogAxis) -> Markup:
    """Name each line at its end, the labels far enough apart to be read."""
    labels: list[Markup] = []
    lowest = -math.inf
    for curve in sorted(curves, key=_last, reverse=True):
        wanted, role = 100 - y.place(_last(curve)), curve.role
        lowest = max(wanted, lowest + LABEL_GAP)
        labels.append(
            Markup('<text class="end {}" x="100%" y="{:.2f}%" dx="10" dy="4">{}</text>').format(
                role, lowest, words.NAMES[role]
            )
        )
    return _joined(labels)


def _last(curve: Curve) -> Decimal:
    return curve.points[-1][1].expected


def _horizontal_grid(axis: LogAxis) -> Markup:
    return _joined(
        Markup(
            '<line class="grid" x1="0" x2="100%" y1="{}%" y2="{}%"/>'
            '<text class="y" x="0" y="{}%" dx="-8" dy="4">${}</text>'
        ).format(place, place, place, _short(tick))
        for tick, place in ((tick, round(100 - axis.place(tick), 2)) for tick in axis.ticks)
    )


def _vertical_grid(axis: LogAxis) -> Markup:
    return _joined(
        Markup(
            '<line class="grid" x1="{}%" x2="{}%" y1="0" y2="100%"/>'
            '<text x="{}%" y="100%" dy="20">{}</text>'
        ).format(place, place, place, _short(tick))
        for tick, place in ((tick, axis.place(tick)) for tick in axis.ticks)
    )


def _short(number: Decimal) -> str:
    """Return a number with a unit for its thousands: 1.8M, 50k, 0.10."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (1000, "k")):
        if number >= size:
            return f"{float(number / size):.3g}{unit}"
    return f"{number:.2f}" if Decimal("0.01") <= number < 1 else f"{float(number):.3g}"


def _joined(marks: Iterable[Markup]) -> Markup:
    return Markup("").join(marks)
