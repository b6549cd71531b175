"""What the charts of a comparison are drawn from: axes of scores and differences, and cases.

The drawings themselves are in ``charts.html.j2``; a training is in
`unitune.report.curves`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from unitune.evaluate.results import Comparison, Contrast
from unitune.report.cases import Outcome
from unitune.report.curves import Axis

# Scores are drawn from 0 to 100 %, so that their distances can be trusted.
PERCENT = Axis(0, 100, (0, 25, 50, 75, 100))


def margin_axis(comparison: Comparison) -> Axis:
    """Return the axis in points of the difference and the margin."""
    beyond = 1.25 * comparison.margin  # so that the zone's ends are seen to be ends
    return Axis.around(100 * value for value in (*comparison.interval, -beyond, beyond))


def difference_axis(contrasts: Sequence[Contrast]) -> Axis:
    """Return the axis in points on which several differences are drawn."""
    ends = [100 * end for contrast in contrasts for end in contrast.interval]
    return Axis.around([0.0, *ends], max_ticks=4)


class CaseStrip(NamedTuple):
    """The cases gained and lost, by their positions among all."""

    cases: int
    gained: tuple[int, ...]
    lost: tuple[int, ...]


def case_strip(outcomes: Sequence[str]) -> CaseStrip | None:
    """Return what to draw of the cases in their order; None where no case was gained or lost."""
    gained, lost = (
        tuple(at for at, outcome in enumerate(outcomes) if outcome == kind)
        for kind in (Outcome.GAINED, Outcome.LOST)
    )
    return CaseStrip(len(outcomes), gained, lost) if gained or lost else None
