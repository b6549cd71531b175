"""Describe the measures of a comparison: reliability, style, length, cost and others."""

from __future__ import annotations

from collections.abc import Iterator

from unitune.evaluate.results import Comparison, StyleFeature
from unitune.render.sections import Cell, Section, Table
from unitune.render.typography import p_value
from unitune.report.words import NO_PART, level

MEANINGS = {
    "pass_k": "pass^k: chance that k answers to one case are all right.",
    "unstable": "unstable: share of cases that are sometimes right and sometimes wrong.",
    "stability": "stable_...: share of cases whose score stays under a harmless change.",
}
FAR = 2.0  # deviation of a feature that is marked, in units of the training answers' own


def sections(comparison: Comparison) -> Iterator[Section]:
    """Yield the sections of measures and of style, if they were measured."""
    if comparison.measured:
        yield Section("Measures", [differences(comparison)])
    if comparison.style:
        yield Section("Style", [*style(comparison)])


def differences(comparison: Comparison) -> Table:
    """Return the table of the paired differences of all measures, in their own units."""
    types = {each.type for each in comparison.measured}
    meanings = [meaning for kind, meaning in MEANINGS.items() if kind in types]
    sides = f"#{comparison.baseline}", f"#{comparison.candidate}"
    return Table(
        ["Measure", *sides, "#Difference", "#Cases", "#p", "#p,\nadjusted"],
        [
            [
                each.name,
                figure(each.baseline),
                figure(each.candidate),
                Cell(
                    f"{each.difference:+.3g}",
                    " to ".join(f"{end:+.3g}" for end in each.interval),
                    strong=True,
                ),
                f"{each.n:,}",
                p_value(each.p_value),
                p_value(each.p_adjusted),
            ]
            for each in comparison.measured
        ],
        f"{comparison.candidate} minus {comparison.baseline}, mean of a case, with the "
        f"{level(comparison)} interval. {' '.join([*meanings, NO_PART])}",
    )


def style(comparison: Comparison) -> Iterator[str | Table]:
    """Yield a sentence on the distance of both sides from the house's style, and its features."""
    distance = next((each for each in comparison.measured if each.type == "style"), None)
    if distance is not None:
        low, high = distance.interval
        yield (
            f"{comparison.candidate} {distance.candidate:.1f}, {comparison.baseline} "
            f"{distance.baseline:.1f}: difference {distance.difference:+.1f} [{low:+.1f}, "
            f"{high:+.1f}]. 1.0 is the distance of held-out training answers to the others."
        )
    names = [comparison.candidate, comparison.baseline]
    names += [each.name for each in comparison.contenders if each.name not in names]
    seen = [each for each in comparison.style if each.house or any(each.means.values())]
    yield Table(
        ["Feature", "#Training\nanswers", *(f"#{name}" for name in names)],
        [
            [each.name, f"{each.house:.3g}", *(_feature(each, name) for name in names)]
            for each in sorted(seen, key=lambda each: -max(each.deviations.values()))
        ],
        "Mean of an answer, with its deviation in units of the training answers' own (at most 5)",
    )


def _feature(feature: StyleFeature, contender: str) -> str | Cell:
    if contender not in feature.means:
        return "\u2013"
    mean, deviation = feature.means[contender], feature.deviations[contender]
    return Cell(f"{mean:.3g}", f"{deviation:.1f}", tone="doubtful" if deviation >= FAR else "")


def figure(value: float) -> str:
    """Return the value of a measure."""
    return f"{value:.4g}"
