"""Describe the measures of a comparison: reliability, length, cost and others."""

from __future__ import annotations

from collections.abc import Iterator

from unitune.evaluate.results import Comparison, Contrast
from unitune.render.sections import Cell, Table
from unitune.render.typography import p_value
from unitune.report.words import NO_PART, level
from unitune.text import listed


def differences(comparison: Comparison) -> Table:
    """Return the table of the paired differences of all measures, in their own units."""
    about = " ".join([*_meanings(comparison), NO_PART])
    return Table(
        [
            "Measure",
            f"#{comparison.baseline}",
            f"#{comparison.candidate}",
            "#Difference",
            "#Cases",
            "#p",
            "#p,\nadjusted",
        ],
        [
            [
                each.name,
                figure(each.baseline),
                figure(each.candidate),
                Cell(f"{each.difference:+.3g}", _ends(each), strong=True),
                f"{each.n:,}",
                p_value(each.p_value),
                p_value(each.p_adjusted),
            ]
            for each in comparison.measured
        ],
        f"{comparison.candidate} minus {comparison.baseline}, mean of a case, with the "
        f"{level(comparison)} interval. {about}",
    )


def figure(value: float) -> str:
    """Return the value of a measure."""
    return f"{value:.4g}"


def _ends(contrast: Contrast) -> str:
    return " to ".join(f"{end:+.3g}" for end in contrast.interval)


def _meanings(comparison: Comparison) -> Iterator[str]:
    names = [each.name for each in comparison.measured]
    if powers := [name for name in names if name.startswith("pass^")]:
        yield f"{listed(powers)}: chance that so many answers to a case are all right."
    if "unstable" in names:
        yield "unstable: share of cases that are sometimes right and sometimes wrong."
    if stable := [name for name in names if name.startswith("stable_")]:
        yield f"{listed(stable)}: share of cases whose score stays under a harmless change."
