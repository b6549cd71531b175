"""Compare a candidate with a baseline by people's verdicts on some cases and a judge's on all."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from unitune.evaluate.statistics.intervals import Clusters, Interval, Scores, case_means
from unitune.evaluate.statistics.labels import labels_needed, prediction_powered
from unitune.evaluate.statistics.paired import LEVEL, PairedResult, compare_paired, verdict


def compare_labelled(  # noqa: PLR0913 - each has a name and a default
    baseline: Scores,  # (N,)
    candidate: Scores,  # (N,)
    labels: Mapping[int, float],
    unknown: AbstractSet[int] = frozenset(),
    *,
    clusters: Clusters | None = None,  # (N,)
    margin: float = 0.05,
    level: float = LEVEL,
) -> PairedResult:
    """Compare a candidate with a baseline by prediction-powered inference.

    Scores, gains and losses are the judge's. Difference, interval, p-value and verdict are
    estimates of the mean of people's verdicts, whatever the judge's bias. `cases_needed` is the
    number of labels, if the cases suffice for them.

    Args:
        baseline: Judge's scores of the baseline, from 0 to 1.
        candidate: Judge's scores of the candidate on the same cases.
        labels: People's verdicts by position of the case: 1 if the candidate is better, -1 if the
            baseline is, 0 for a tie.
        unknown: Positions of cases without a known score of both sides. They keep the difference of
            their given scores, and their labels do not count.
        clusters: Labels of clusters, as in `compare_paired`.
        margin: Difference too small to matter, as a fraction.
        level: Confidence level of the interval.

    Raises:
        ValueError: There are fewer than two labels (with clusters, two clusters with labels).

    Source:
        `unitune.evaluate.statistics.labels.prediction_powered`.
    """
    judged = compare_paired(baseline, candidate, clusters=clusters, margin=margin, level=level)
    values = case_means("candidate", candidate) - case_means("baseline", baseline)
    known = [at for at in range(len(values)) if at not in unknown]
    labelled = [at for at in known if at in labels]
    rest = [at for at in known if at not in labels]
    groups = None
    if clusters is not None:
        groups = [clusters[at] for at in labelled], [clusters[at] for at in rest]
    share, fixed = len(known) / len(values), sum(values[at] for at in unknown) / len(values)

    samples = (
        [labels[at] for at in labelled],
        [float(values[at]) for at in labelled],
        [float(values[at]) for at in rest],
    )

    def estimated(at_level: float) -> tuple[Interval, float, float]:
        found = prediction_powered(*samples, clusters=groups, level=at_level)
        low, high = (fixed + share * end for end in (found.low, found.high))
        interval = Interval(max(-1.0, low), min(1.0, high), at_level)
        return interval, fixed + share * found.estimate, found.p_value

    interval, difference, p_value = estimated(level)
    interval90, _, _ = estimated(round(2 * level - 1, 12))
    if unknown:  # an interval that excludes 0 is the test
        excluded = interval.low > 0 or interval.high < 0
        p_value = 1 - level if excluded else max(p_value, 2 * (1 - level))
    return replace(
        judged,
        difference=difference,
        interval=interval,
        interval90=interval90,
        p_value=p_value,
        verdict=verdict(interval, interval90, margin, p_value),
        cases_needed=labels_needed(*samples, margin) or judged.cases_needed,
        method=f"prediction-powered inference (PPI++) from {len(labelled):,} labels of people",
        warnings=(),
        p_exact=None,
    )
