"""Recorded answers with their scores: what each contender got for each case.

A case that is asked several times counts once, with the mean of its scores, so that repeats
make a score steadier and are no further evidence. In shapes: N cases, K repeats of a case.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import chain, islice
from statistics import fmean
from typing import TypeVar

from unitune.evaluate.inference.budget import usd
from unitune.evaluate.records import Answer, Record
from unitune.evaluate.responses import Answered
from unitune.evaluate.task import Task
from unitune.job.job import TokenPrice
from unitune.scorers.interface import Attempt
from unitune.scorers.sums import Sums

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Graded:
    """A contender with its scored answers, in the order of the cases.

    Args:
        answered: Who, with what was recorded.
        answers: One a case: the first of its repeats, with the scores of all.
        repeats: Of each case.
        sums: What each scorer's score over the cases is made of.
    """

    answered: Answered
    answers: tuple[Answer, ...]  # (N,)
    repeats: tuple[tuple[Answer, ...], ...]  # (N, K)
    sums: dict[str, Sums]

    @property
    def name(self) -> str:
        """The contender's."""
        return self.answered.name

    def costs(self, price: TokenPrice) -> list[Decimal | None]:
        """Return what an answer to each case cost, in US dollars; None where it is not known."""
        return [
            _mean_usd(price, records)
            for records in _grouped(self.answered.records, len(self.repeats[0]))
        ]

    def scores(self, metric: str) -> list[float]:
        """Return the scores of one metric, in the order of the cases."""
        return [answer.scores[metric] for answer in self.answers]


def grade(task: Task, answered: Answered) -> Graded:
    """Score all answers of a contender."""
    attempts = task.attempts(answered.records)
    return _graded(task, answered, attempts, task.grade_all(attempts, answered.records))


def read_as(task: Task, graded: Graded, *, right: bool) -> Graded:
    """Return a contender as if all its answers in error or cut off had been right, or wrong."""
    if all(answer.known for answer in graded.answers):
        return graded
    attempts = task.attempts(graded.answered.records)
    scored = list(chain.from_iterable(graded.repeats))
    for at, (attempt, answer) in enumerate(zip(attempts, scored, strict=True)):
        if not answer.known:
            attempts[at] = Attempt(attempt.case, attempt.expected if right else "")
            scored[at] = replace(answer, scores=dict.fromkeys(answer.scores, float(right)))
    return _graded(task, graded.answered, attempts, scored)


def _graded(
    task: Task, answered: Answered, attempts: Sequence[Attempt], scored: Sequence[Answer]
) -> Graded:
    repeats = tuple(_grouped(scored, task.repeats))
    records = list(_grouped(answered.records, task.repeats))
    return Graded(
        answered,
        tuple(_merged(task, *case) for case in zip(repeats, records, strict=True)),
        repeats,
        {name: _averaged(sums, task.repeats) for name, sums in task.sums(attempts, scored).items()},
    )


def _merged(task: Task, repeats: Sequence[Answer], records: Sequence[Record]) -> Answer:
    """Return one answer for a case; it is in error when any of its repeats is."""
    first = repeats[0]
    if len(repeats) == 1:
        return first
    return replace(
        first,
        scores={name: fmean(answer.scores[name] for answer in repeats) for name in first.scores},
        failed=tuple(dict.fromkeys(name for one in repeats for name in one.failed)),
        measures=task.measured(records),
        error=next((answer.error for answer in repeats if answer.error), None),
        cut=any(answer.cut for answer in repeats),
        open=any(answer.open for answer in repeats),
    )


def _mean_usd(price: TokenPrice, records: Sequence[Record]) -> Decimal | None:
    costs = [usd(price, record.prompt_tokens, record.completion_tokens) for record in records]
    known = [cost for cost in costs if cost is not None]
    return sum(known, Decimal(0)) / len(known) if len(known) == len(costs) else None


def _grouped(items: Sequence[Item], size: int) -> Iterator[tuple[Item, ...]]:
    left = iter(items)
    while group := tuple(islice(left, size)):
        yield group


def _averaged(sums: Sums, repeats: int) -> Sums:
    """Return the sums of the cases, each the mean over its repeats."""
    rows = sums.rows.reshape(-1, repeats, sums.rows.shape[1])  # (N, K, S)
    return replace(sums, rows=rows.mean(axis=1))
