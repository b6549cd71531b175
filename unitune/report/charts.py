"""Build the charts of comparisons that `unitune.render` draws."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from unitune.evaluate.documents.results import Comparison
from unitune.render.charts import Axis, CaseStrip, IntervalChart, Stroke
from unitune.render.typography import interval, points
from unitune.report.cases import Outcome
from unitune.report.words import level

# Scores are drawn from 0 to 100 %, so that distances are not exaggerated.
PERCENT = Axis(0, 100, (0, 25, 50, 75, 100))
MOST_STROKES = 1000  # maximum strokes of a strip of cases that readers can distinguish


def difference_chart(comparison: Comparison) -> IntervalChart:
    """Return the paired difference with its interval and the margin, in points."""
    beyond = 1.25 * comparison.margin  # so that both ends of the zone of equivalence are visible
    low, high = comparison.interval
    ends = interval(comparison.interval)
    margins = interval((-comparison.margin, comparison.margin))
    return IntervalChart(
        Axis.around(100 * value for value in (low, high, -beyond, beyond)),
        100 * comparison.difference,
        100 * low,
        100 * high,
        100 * comparison.margin,
        f"Difference of {comparison.candidate} and {comparison.baseline}, in points",
        f"{points(comparison.difference, sign=True)}, {level(comparison)} interval from {ends}, "
        f"margin from {margins}.",
    )


def case_strip(outcomes: Sequence[str]) -> CaseStrip | None:
    """Return the strip of cases in order; None if no case was gained or lost.

    Beyond `MOST_STROKES` cases, a stroke represents several, and its length shows how many of them
    were gained or lost. One stroke per case would result in a solid bar.
    """
    step = math.ceil(len(outcomes) / MOST_STROKES)
    gained, lost = (
        Counter(at // step for at, outcome in enumerate(outcomes) if outcome == kind)
        for kind in (Outcome.GAINED, Outcome.LOST)
    )
    if not gained and not lost:
        return None
    most = max(*gained.values(), *lost.values(), 0)
    strokes = (
        tuple(Stroke((at + 0.5) * step, count, count / most) for at, count in sorted(kind.items()))
        for kind in (gained, lost)
    )
    return CaseStrip(len(outcomes), step, *strokes)
