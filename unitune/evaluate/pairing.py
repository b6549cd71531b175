"""The two sides of a verdict, compared by any metric, on all cases or on some of them.

What a comparison shows beside its verdict comes from here too: further metrics, corrected by Holm's
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
from unitune.evaluate.statistics.corpus import compare_corpus
from unitune.evaluate.statistics.economics import weigh
from unitune.evaluate.statistics.paired import PairedResult, compare_paired
from unitune.evaluate.statistics.significance import benjamini_hochberg, holm
from unitune.evaluate.task import Task
from unitune.job.job import Economics
from unitune.scorers.interface import Kind


@dataclass(frozen=True, slots=True)
class Pairing:
    """Baseline and candidate on the same cases; the margin is a difference too small to matter."""

    baseline: Graded
    candidate: Graded
    margin: float

    @property
    def task(self) -> Task:
        """Cases and scorers."""
        return self.candidate.task

    @property
    def errors(self) -> int:
        """Cases in which a side gave no answer."""
        pairs = zip(self.baseline.answers, self.candidate.answers, strict=True)
        return sum(any(answer.error is not None for answer in pair) for pair in pairs)

    def compare(
        self, metric: str | None = None, members: Sequence[int] | None = None
    ) -> PairedResult:
        """Compare by a metric, the one that decides by default, on all cases or on some."""
        metric = metric or self.task.primary
        old, new = self.baseline.sums[metric], self.candidate.sums[metric]
        places = list(range(len(old)) if members is None else members)
        labels = self.candidate.clusters
        clusters = labels and [labels[place] for place in places]
        if self.task.scorer(metric).kind is Kind.CORPUS:
            rows, formula = (old.rows[places], new.rows[places]), old.formula
            return compare_corpus(*rows, formula, clusters=clusters, margin=self.margin)
        sides = (self.baseline.scores(metric), self.candidate.scores(metric))
        scores = ([side[place] for place in places] for side in sides)
        return compare_paired(*scores, clusters=clusters, margin=self.margin)

    def secondary(self) -> tuple[Contrast, ...]:
        """Compare by every metric but the one that decides."""
        names = [scorer.name for scorer in self.task.scorers if scorer.name != self.task.primary]
        return _family({name: self.compare(name) for name in names}, holm)

    def slices(self, slices: Sequence[Slice]) -> tuple[Contrast, ...]:
        """Compare on parts of the cases."""
        results = {each.name: self.compare(members=each.members) for each in slices}
        return _family(results, benjamini_hochberg)

    def answered(self) -> Contrast | None:
        """Compare on the cases to which both gave a whole answer; None when those are all."""
        pairs = zip(self.baseline.answers, self.candidate.answers, strict=True)
        members = [place for place, pair in enumerate(pairs) if all(each.known for each in pair)]
        if len(members) < 2 or len(members) == len(self.task.cases):
            return None
        result = self.compare(members=members)
        return _contrast("cases that both answered", result, result.p_value)

    def money(self, economics: Economics) -> Money | None:
        """Weigh quality against cost; None where the price of an answer is not known."""
        task, old, new = self.task, self.baseline, self.candidate
        old_price, new_price = task.prices.get(old.name), task.prices.get(new.name)
        if task.scorer(task.primary).kind is Kind.CORPUS or old_price is None or new_price is None:
            return None
        gains = np.array(new.scores(task.primary)) - np.array(old.scores(task.primary))
        return weigh(
            gains, old.costs(old_price), new.costs(new_price), economics, clusters=new.clusters
        )


def _family(
    results: Mapping[str, PairedResult], adjust: Callable[[list[float]], list[float]]
) -> tuple[Contrast, ...]:
    adjusted = adjust([result.p_value for result in results.values()])
    pairs = zip(results.items(), adjusted, strict=True)
    return tuple(_contrast(name, result, p) for (name, result), p in pairs)


def _contrast(name: str, result: PairedResult, p_adjusted: float) -> Contrast:
    return Contrast(
        name=name,
        n=result.n,
        baseline=result.baseline,
        candidate=result.candidate,
        difference=result.difference,
        interval=result.interval.ends,
        p_value=result.p_value,
        p_adjusted=p_adjusted,
    )
