"""The evidence of a gate, gathered from a comparison's cases, totals and baseline file.

`requirements` looks up before any request what the job's gate asks for, so that a mistake costs
nothing; `gather` makes the `Evidence` when the answers are there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from unitune.data.example import Example
from unitune.errors import JobError, NotFoundError
from unitune.evaluate.baseline import Standing, check_kept, check_replaceable, regress, standing
from unitune.evaluate.gate import Evidence, RequiredCase, Ruling, uninformative
from unitune.evaluate.grading import Graded
from unitune.evaluate.readings import Judgement, Reading
from unitune.evaluate.results import Regression
from unitune.evaluate.statistics.paired import LEVEL, own_score
from unitune.evaluate.task import Task
from unitune.job.job import Gate, Job


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a job's gate asks of these cases.

    Args:
        cases: Ids of the cases that the candidate must get right.
        standing: The baseline file, when the candidate is held against one.
        accepting: The candidate's scores are to become the baseline file.
    """

    cases: frozenset[str] = frozenset()
    standing: Standing | None = None
    accepting: bool = False


def requirements(job: Job, task: Task, *, accepting: bool = False) -> Requirements:
    """Look up what the job's gate asks of these cases.

    Raises:
        JobError: The baseline file is not there, the job names none to write, or the primary
            metric has no scores to keep.
        NotFoundError: The gate requires a case that is not among them.
        DataError: A line of the baseline file cannot be read.
        Mismatch: The file cannot be held against these cases.
    """
    gate, primary = job.evaluate.gate, task.scorer(task.primary)
    if accepting and (gate is None or gate.baseline is None):
        raise JobError(
            f"job {job.name!r} names no baseline file to update. "
            "Set evaluate.gate to {mode: no-regress, baseline: baseline.jsonl}."
        )
    if gate and gate.baseline:
        check_kept(primary)
        if accepting:
            check_replaceable(job.path(gate.baseline))
    return Requirements(
        cases=required_cases(gate, task.cases, task.copies),
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
    hint = (
        "evaluate.gate.required_cases takes ids of test cases: a row's own `id`, or the one that "
        "the report shows."
    )
    for name in named:
        if name not in by_id:
            raise NotFoundError("case", name, by_id, hint)
    return frozenset(named) | {name for name, case in by_id.items() if case.required}


def gather(judgement: Judgement, required: Requirements, dev: Ruling | None) -> Evidence:
    """Gather what a gate reads, the errors on dev included."""
    scored = judgement.scored
    return replace(
        _evidence(scored, required),
        verdict=judgement.verdict.value,
        doubt=judgement.doubt,
        dev=dev,
        required=tuple(_required(scored.hardest.candidate, required.cases)),
        uninformative=_uninformative(scored, required.standing),
        readings=tuple(_evidence(other, required) for other in judgement.others),
    )


def _evidence(reading: Reading, required: Requirements) -> Evidence:
    """Return the evidence of one reading."""
    candidate, margin = reading.hardest.candidate, reading.hardest.margin
    return Evidence(
        verdict=reading.best.verdict.value,
        interval=reading.best.interval.ends,
        margin=margin,
        own_interval=candidate.own_interval.ends,
        n=reading.paired.n,
        errors=reading.errors,
        totals=candidate.totals,
        regression=required.standing and _regression(required.standing, candidate, margin),
        accepting=required.accepting,
        cut=reading.cut,
    )


def _regression(then: Standing, candidate: Graded, margin: float) -> Regression:
    ids = [case.case_id for case in candidate.task.cases]
    clusters = dict(zip(ids, candidate.clusters, strict=True)) if candidate.clusters else None
    return regress(then, dict(zip(ids, candidate.answers, strict=True)), clusters, margin, LEVEL)


def _uninformative(scored: Reading, then: Standing | None) -> str | None:
    """Say why the candidate's scores, and those that they are held against, tell nothing."""
    if then is None:
        return scored.uninformative
    candidate, before = scored.hardest.candidate, [*then.scores.values(), *then.removed.values()]
    scores = fmean(before), candidate.sums[then.metric].statistic()
    highs = own_score(before).high, candidate.own_interval.high
    return uninformative(scores, highs, scored.hardest.margin)


def _required(candidate: Graded, required: Collection[str]) -> Iterator[RequiredCase]:
    """Yield the candidate's scores of each required case, in the order of their ids."""
    task = candidate.task
    ids = [case.case_id for case in task.cases]
    repeats = dict(zip(ids, candidate.repeats, strict=True))
    for name in sorted(required):
        scores = (each.scores[task.primary] if each.known else None for each in repeats[name])
        yield RequiredCase(name, tuple(scores), cut=any(each.open for each in repeats[name]))
