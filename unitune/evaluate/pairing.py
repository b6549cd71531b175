"""The two sides of a verdict, compared by any metric, on all cases or on some of them.

What a comparison says beside its verdict comes from here too: further metrics, corrected by Holm's
method, slices of the cases, corrected by Benjamini and Hochberg's, and the cases that both sides
answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unitune.evaluate.grading import Graded
from unitune.evaluate.grouping import Slice
from unitune.evaluate.results import Contrast, Money
from unitune.evaluate.statistics.corpus import compare_corpus, own_corpus
from unitune.evaluate.statistics.economics import weigh
from unitune.evaluate.statistics.intervals import Interval
from unitune.evaluate.statistics.paired import LEVEL, PairedResult, compare_paired, own_score
from unitune.evaluate.statistics.significance import benjamini_hochberg, holm
from unitune.evaluate.task import Task
from unitune.job.job import Economics
from unitune.scorers.interface import Kind


@dataclass(frozen=True, slots=True)
class Pairing:
    """Baseline and candidate on the same cases.

    Args:
        task: Cases and scorers.
        baseline: Whom it is compared with.
        candidate: What is judged.
        clusters: Of each case; None where each stands alone.
        margin: Difference too small to matter.
    """

    task: Task
    baseline: Graded
    candidate: Graded
    clusters: Sequence[str] | None
    margin: float

    @property
    def in_error(self) -> list[bool]:
        """Of each case, whether a side gave no answer."""
        pairs = zip(self.baseline.answers, self.candidate.answers, strict=True)
        return [any(answer.error is not None for answer in pair) for pair in pairs]

    def own_interval(self, side: Graded) -> Interval:
        """Return the interval of a contender's own score.

        Args:
            side: Baseline, candidate, or any other with the same cases.
        """
        return own_interval(self.task, side, self.clusters)

    def compare(self, metric: str, members: Sequence[int] | None = None) -> PairedResult:
        """Compare by a metric."""
        old, new = self.baseline.sums[metric], self.candidate.sums[metric]
        places = list(range(len(old)) if members is None else members)
        clusters = self.clusters and [self.clusters[place] for place in places]
        if self.task.scorer(metric).kind is Kind.CORPUS:
            return compare_corpus(
                old.rows[places],
                new.rows[places],
                old.formula,
                clusters=clusters,
                margin=self.margin,
                level=LEVEL,
            )
        theirs, ours = self.baseline.scores(metric), self.candidate.scores(metric)
        return compare_paired(
            [theirs[place] for place in places],
            [ours[place] for place in places],
            clusters=clusters,
            margin=self.margin,
            level=LEVEL,
        )

    def secondary(self) -> tuple[Contrast, ...]:
        """Compare by every metric but the one that decides."""
        names = [scorer.name for scorer in self.task.scorers]
        others = {name: self.compare(name) for name in names if name != self.task.primary}
        return _family(others, holm)

    def slices(self, slices: Sequence[Slice]) -> tuple[Contrast, ...]:
        """Compare on parts of the cases."""
        found = {each.name: self.compare(self.task.primary, each.members) for each in slices}
        return _family(found, benjamini_hochberg)

    def money(self, economics: Economics) -> Money | None:
        """Weigh quality against cost; None where the price of an answer is not known."""
        prices = [self.task.prices.get(side.name) for side in (self.baseline, self.candidate)]
        if self.task.scorer(self.task.primary).kind is Kind.CORPUS or None in prices:
            return None
        theirs, ours = (
            side.costs(price) if price else []
            for side, price in zip((self.baseline, self.candidate), prices, strict=True)
        )
        scores = [
            np.array(side.scores(self.task.primary)) for side in (self.candidate, self.baseline)
        ]
        return weigh(
            scores[0] - scores[1], theirs, ours, economics, clusters=self.clusters, level=LEVEL
        )

    def answered(self) -> Contrast | None:
        """Compare on the cases to which both gave a whole answer; None when those are all."""
        pairs = zip(self.baseline.answers, self.candidate.answers, strict=True)
        members = [place for place, pair in enumerate(pairs) if all(one.known for one in pair)]
        if len(members) < 2 or len(members) == len(self.task.cases):
            return None
        found = self.compare(self.task.primary, members)
        return _contrast("cases that both answered", found, found.p_value)


def own_interval(task: Task, side: Graded, clusters: Sequence[str] | None) -> Interval:
    """Return the interval of a contender's own score by the metric that decides.

    Args:
        task: Cases and scorers.
        side: The contender.
        clusters: Of each case; None where each stands alone.
    """
    sums = side.sums[task.primary]
    if task.scorer(task.primary).kind is Kind.CORPUS:
        return own_corpus(sums.rows, sums.formula, clusters=clusters, level=LEVEL)
    return own_score(side.scores(task.primary), clusters=clusters, level=LEVEL)


def _family(
    results: Mapping[str, PairedResult], adjust: Callable[[list[float]], list[float]]
) -> tuple[Contrast, ...]:
    adjusted = adjust([found.p_value for found in results.values()])
    pairs = zip(results.items(), adjusted, strict=True)
    return tuple(_contrast(name, found, p) for (name, found), p in pairs)


def _contrast(name: str, found: PairedResult, p_adjusted: float) -> Contrast:
    return Contrast(
        name=name,
        n=found.n,
        baseline=found.baseline,
        candidate=found.candidate,
        difference=found.difference,
        interval=found.interval.ends,
        p_value=found.p_value,
        p_adjusted=p_adjusted,
    )
