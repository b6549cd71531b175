"""Scored answers: the result of each contender for each case, and over all of them.

A case that is requested several times counts once, with the mean of its scores, so that repeats
make a score steadier and are no further evidence. In shapes: N cases, K repeats of a case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import chain
from statistics import fmean

from unitune.evaluate.gate import MOST_ERRORS, Cut
from unitune.evaluate.inference.budget import usd
from unitune.evaluate.records import Answer, Record
from unitune.evaluate.responses import Answered
from unitune.evaluate.statistics.corpus import own_corpus
from unitune.evaluate.statistics.intervals import Interval
from unitune.evaluate.statistics.paired import own_score
from unitune.evaluate.task import Task
from unitune.job.contenders import ContenderSpec
from unitune.job.job import TokenPrice
from unitune.scorers.formulas import Sums
from unitune.scorers.interface import Attempt, Kind


@dataclass(frozen=True, slots=True)
class Graded:
    """A contender with its scored answers, in the order of the cases.

    Args:
        task: Cases and scorers.
        clusters: Of each case; None where each stands alone.
        answered: The contender and its records.
        answers: One a case: the first of its repeats, with the scores of all.
        repeats: Of each case.
        sums: What each scorer's score over the cases is made of.
    """

    task: Task
    clusters: Sequence[str] | None
    answered: Answered
    answers: tuple[Answer, ...]  # (N,)
    repeats: tuple[tuple[Answer, ...], ...]  # (N, K)
    sums: dict[str, Sums]

    @property
    def name(self) -> str:
        """The contender's."""
        return self.answered.name

    @property
    def spec(self) -> ContenderSpec:
        """The contender as the job names it."""
        return self.answered.choice.contender.spec

    @property
    def known(self) -> bool:
        """Whether it is known of all answers how good they are."""
        return all(answer.known for answer in self.answers)

    @property
    def errors(self) -> int:
        """Cases without an answer."""
        return sum(answer.error is not None for answer in self.answers)

    @property
    def cut(self) -> Cut:
        """Answers that were cut off before it was clear whether they are right."""
        limits = [record.max_tokens or 0 for record in self.answered.records if record.cut]
        limit = max(limits, default=0) or self.task.output_limit.of(self.spec)
        return Cut(self.name, sum(answer.open for answer in self.answers), len(self.answers), limit)

    @property
    def own_interval(self) -> Interval:
        """Interval of the contender's own score by the metric that decides."""
        task = self.task
        if task.scorer(task.primary).kind is Kind.CORPUS:
            sums = self.sums[task.primary]
            return own_corpus(sums.rows, sums.formula, clusters=self.clusters)
        return own_score(self.scores(task.primary), clusters=self.clusters)

    @property
    def measures(self) -> dict[str, float]:
        """Mean of each measure over the cases where it is known."""
        figures = [answer.measures for answer in self.answers]
        names = dict.fromkeys(chain.from_iterable(figures))
        return {name: fmean(each[name] for each in figures if name in each) for name in names}

    @property
    def totals(self) -> dict[str, float | None]:
        """The total by every scorer and measure; None where too many cases lack it."""
        scores = {name: sums.statistic() for name, sums in self.sums.items()}
        totals = {**scores, **self.measures}
        return {name: total if self._is_known(name) else None for name, total in totals.items()}

    def _is_known(self, name: str) -> bool:
        unknown = sum(
            name not in answer.measures and (name not in answer.scores or name in answer.failed)
            for answer in self.answers
        )
        return unknown <= MOST_ERRORS * len(self.answers)

    def scores(self, metric: str) -> list[float]:
        """Return the scores of one metric, in the order of the cases."""
        return [answer.scores[metric] for answer in self.answers]

    def costs(self, price: TokenPrice) -> list[Decimal | None]:
        """Return what an answer to each case cost, in US dollars; None where it is not known."""
        records, size = self.answered.records, self.task.repeats
        return [_mean_usd(price, records[at : at + size]) for at in range(0, len(records), size)]


def grade(task: Task, answered: Answered, clusters: Sequence[str] | None) -> Graded:
    """Score all answers of a contender."""
    attempts = task.attempts(answered.records)
    scored = task.grade_all(attempts, answered.records)
    return _graded(task, answered, clusters, attempts, scored)


def read_as(graded: Graded, *, right: bool) -> Graded:
    """Return a contender as if all its answers in error or cut off had been right, or wrong."""
    if graded.known:
        return graded
    task, answered = graded.task, graded.answered
    attempts = task.attempts(answered.records)
    scored = list(chain.from_iterable(graded.repeats))
    for at, (attempt, answer) in enumerate(zip(attempts, scored, strict=True)):
        if not answer.known:
            attempts[at] = Attempt(attempt.case, attempt.expected if right else "")
            scored[at] = replace(answer, scores=dict.fromkeys(answer.scores, float(right)))
    return _graded(task, answered, graded.clusters, attempts, scored)


def _graded(
    task: Task,
    answered: Answered,
    clusters: Sequence[str] | None,
    attempts: Sequence[Attempt],
    scored: Sequence[Answer],
) -> Graded:
    size = task.repeats
    starts = range(0, len(scored), size)
    repeats = tuple(tuple(scored[at : at + size]) for at in starts)
    records = (answered.records[at : at + size] for at in starts)
    return Graded(
        task=task,
        clusters=clusters,
        answered=answered,
        answers=tuple(_merged(task, *case) for case in zip(repeats, records, strict=True)),
        repeats=repeats,
        sums={name: _averaged(sums, size) for name, sums in task.sums(attempts, scored).items()},
    )


def _merged(task: Task, repeats: Sequence[Answer], records: Sequence[Record]) -> Answer:
    """Return one answer for a case; it is in error when any of its repeats is."""
    first = repeats[0]
    if len(repeats) == 1:
        return first
    return replace(
        first,
        scores={name: fmean(answer.scores[name] for answer in repeats) for name in first.scores},
        failed=tuple(dict.fromkeys(name for answer in repeats for name in answer.failed)),
        measures=task.measured(records),
        error=next((answer.error for answer in repeats if answer.error), None),
        cut=any(answer.cut for answer in repeats),
        open=any(answer.open for answer in repeats),
    )


def _mean_usd(price: TokenPrice, records: Sequence[Record]) -> Decimal | None:
    costs = [usd(price, record.prompt_tokens, record.completion_tokens) for record in records]
    known = [cost for cost in costs if cost is not None]
    return sum(known, Decimal(0)) / len(known) if len(known) == len(costs) else None


def _averaged(sums: Sums, repeats: int) -> Sums:
    """Return the sums of the cases, each the mean over its repeats."""
    rows = sums.rows.reshape(-1, repeats, sums.rows.shape[1])  # (N, K, S)
    return replace(sums, rows=rows.mean(axis=1))
