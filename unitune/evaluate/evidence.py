"""What a gate looks at, gathered from a comparison's cases, totals and baseline file.

`requirements` looks up before any model is asked what the job's gate asks for, so that a mistake
costs nothing; `gather` makes the `Evidence` when the answers are there. Not here: what follows from
it (`unitune.evaluate.gate`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from unitune.data.example import Example
from unitune.errors import JobError, NotFoundError
from unitune.evaluate.baseline import Standing, check_kept, check_replaceable, regress, standing
from unitune.evaluate.gate import MOST_ERRORS, Evidence, RequiredCase, uninformative
from unitune.evaluate.grading import Graded
from unitune.evaluate.pairing import LEVEL, Pairing
from unitune.evaluate.readings import Judgement, Reading
from unitune.evaluate.results import Regression
from unitune.evaluate.statistics.paired import own_score
from unitune.evaluate.task import Task
from unitune.job.job import Gate, Job


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a job's gate asks of these cases.

    Args:
        required: Ids of the cases that the candidate must get right.
        standing: The baseline file, when the candidate is held against one.
        accepting: The candidate's scores are to become the baseline file.
    """

    required: frozenset[str] = frozenset()
    standing: Standing | None = None
    accepting: bool = False


def requirements(job: Job, task: Task, *, accepting: bool = False) -> Requirements:
    """Look up what the job's gate asks of these cases.

    Args:
        job: With its gate, or without one.
        task: Cases and scorers.
        accepting: The candidate's scores are to become the baseline file, whatever it says now.

    Raises:
        JobError: The baseline file is not there, the job names none to write, or the primary
            metric has no scores to keep.
        NotFoundError: The gate pins a case that is not among them.
        DataError: A line of the baseline file cannot be read.
        Mismatch: The file cannot be held against these cases.
    """
    gate = job.evaluate.gate
    if accepting and (gate is None or gate.baseline is None):
        raise JobError(
            f"job {job.name!r} names no baseline file to update. "
            "Set evaluate.gate to {mode: no-regress, baseline: baseline.jsonl}."
        )
    (primary,) = (scorer for scorer in task.scorers if scorer.name == task.primary)
    if gate and gate.baseline:
        check_kept(primary)
        if accepting:
            check_replaceable(job.path(gate.baseline))
    return Requirements(
        required=required_cases(gate, task.cases, task.copies),
        standing=None if accepting else standing(job, primary, task.cases),
        accepting=accepting,
    )


def required_cases(
    gate: Gate | None, cases: Iterable[Example], copies: Mapping[str, str] = {}
) -> frozenset[str]:
    """Return the ids of the cases that the candidate must get right.

    Args:
        gate: With the ids that the job names; None without a gate.
        cases: Test cases; a row may say ``required: true`` itself.
        copies: Ids of copies that were left out, with those of what they copy.

    Raises:
        NotFoundError: The gate names a case that is not among them.
    """
    by_id = {case.case_id: case for case in cases}
    named = [copies.get(name, name) for name in (gate.required_cases if gate else ())]
    for name in named:
        if name not in by_id:
            raise NotFoundError(
                "case",
                name,
                by_id,
                "evaluate.gate.required_cases takes ids of test cases: a row's own `id`, or "
                "the one that the report shows.",
            )
    return frozenset(named) | {name for name, case in by_id.items() if case.required}


def gather(judgement: Judgement, asked: Requirements) -> Evidence:
    """Gather what a gate looks at."""
    scored = judgement.scored
    return replace(
        _evidence(scored, asked),
        verdict=judgement.verdict.value,
        doubt=judgement.doubt,
        required=tuple(_required(scored.hardest, asked.required)),
        uninformative=_uninformative(scored, asked.standing),
        readings=tuple(_evidence(other, asked) for other in judgement.others),
    )


def _evidence(reading: Reading, asked: Requirements) -> Evidence:
    """Return the evidence of one reading."""
    best, pairing, then = reading.best, reading.hardest, asked.standing
    own = pairing.own_interval(pairing.candidate)
    return Evidence(
        verdict=best.verdict.value,
        interval=best.interval.ends,
        margin=pairing.margin,
        own_interval=own.ends,
        n=reading.paired.n,
        errors=reading.errors,
        totals=_totals(pairing.candidate),
        regression=_regression(pairing, then) if then else None,
        accepting=asked.accepting,
        cut=reading.cut,
    )


def _regression(pairing: Pairing, then: Standing) -> Regression:
    ids = [case.case_id for case in pairing.task.cases]
    clusters = dict(zip(ids, pairing.clusters, strict=True)) if pairing.clusters else None
    now = dict(zip(ids, pairing.candidate.answers, strict=True))
    return regress(then, now, clusters, pairing.margin, LEVEL)


def _uninformative(scored: Reading, then: Standing | None) -> str | None:
    """Say why nothing can be told from the candidate's scores and those that it is held against."""
    if then is None:
        return scored.uninformative
    pairing, before = scored.hardest, [*then.scores.values(), *then.removed.values()]
    scores = fmean(before), pairing.candidate.sums[then.metric].statistic()
    intervals = own_score(before, level=LEVEL), pairing.own_interval(pairing.candidate)
    return uninformative(scores, [interval.high for interval in intervals], pairing.margin)


def measures_of(side: Graded) -> dict[str, float]:
    """Return the mean of each measure of a contender over the cases where it is known."""
    figures = [answer.measures for answer in side.answers]
    names = dict.fromkeys(name for one in figures for name in one)
    return {name: fmean(one[name] for one in figures if name in one) for name in names}


def _totals(side: Graded) -> dict[str, float | None]:
    """Return a contender's total by every scorer and measure; None where too many cases lack it."""
    scores = {name: sums.statistic() for name, sums in side.sums.items()}
    totals = {**scores, **measures_of(side)}
    return {name: total if _is_known(side, name) else None for name, total in totals.items()}


def _is_known(side: Graded, name: str) -> bool:
    known = sum(
        name in answer.measures or (name in answer.scores and name not in answer.failed)
        for answer in side.answers
    )
    return len(side.answers) - known <= MOST_ERRORS * len(side.answers)


def _required(pairing: Pairing, required: Collection[str]) -> Iterator[RequiredCase]:
    """Yield what the candidate made of each required case, in the order of their ids."""
    ids = [case.case_id for case in pairing.task.cases]
    repeats = dict(zip(ids, pairing.candidate.repeats, strict=True))
    for name in sorted(required):
        scores = (one.scores[pairing.task.primary] if one.known else None for one in repeats[name])
        yield RequiredCase(name, tuple(scores), cut=any(one.open for one in repeats[name]))
