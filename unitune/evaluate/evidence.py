"""What a gate looks at, gathered from a comparison's cases: pinned ones, totals, the baseline file.

`requirements` looks up before any model is asked what the job's gate asks for, so that a mistake
costs nothing; `gather` makes the `Evidence` when the answers are there. Not here: what follows from
it (`unitune.evaluate.gate`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from unitune.data.example import Example
from unitune.errors import JobError, UnknownName
from unitune.evaluate.baseline import Standing, check_kept, regress, standing
from unitune.evaluate.gate import MOST_ERRORS, Evidence, Pinned
from unitune.evaluate.results import Answer, ContenderResult
from unitune.evaluate.statistics.best import AgainstBest
from unitune.evaluate.statistics.paired import PairedResult
from unitune.evaluate.task import Task
from unitune.job import Gate, Job


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a job's gate asks of these cases.

    Args:
        pinned: Ids of the cases that the candidate must get right.
        standing: The baseline file, when the candidate is held against one.
        accepting: The candidate's scores are to become the baseline file.
    """

    pinned: frozenset[str] = frozenset()
    standing: Standing | None = None
    accepting: bool = False


@dataclass(frozen=True, slots=True)
class Sides:
    """The answers of the candidate by case id, and how many of all sides are missing.

    Args:
        metric: Name of the scorer that decides.
        result: What the candidate's answers come to.
        errors: Cases in which the candidate or a baseline gave no answer: of the baseline with
            which there are most.
        dev: Errors and answers on dev, of all contenders together.
        candidate: Its answers.
        repeats: The same, each answer of those that were asked for several.
        clusters: Of the cases; None where each stands alone.
    """

    metric: str
    result: ContenderResult
    errors: int
    dev: tuple[int, int]
    candidate: Mapping[str, Answer]
    repeats: Mapping[str, Sequence[Answer]]
    clusters: Mapping[str, str] | None = None

    @property
    def totals(self) -> dict[str, float | None]:
        """What the candidate has by every scorer and measure; None where too many cases lack it."""
        totals = {**self.result.scores, **self.result.measures}
        return {name: total if self._is_known(name) else None for name, total in totals.items()}

    def _is_known(self, name: str) -> bool:
        answers = self.candidate.values()
        known = sum(
            name in answer.measures or (name in answer.scores and name not in answer.failed)
            for answer in answers
        )
        return len(answers) - known <= MOST_ERRORS * len(answers)

    def scores_of(self, case: str) -> tuple[float | None, ...]:
        """Return what the candidate scored in each of its answers to a case; None for an error."""
        return tuple(
            None if answer.error is not None else answer.scores.get(self.metric)
            for answer in self.repeats[case]
        )


def requirements(job: Job, task: Task, *, accepting: bool = False) -> Requirements:
    """Look up what the job's gate asks of these cases.

    Args:
        job: With its gate, or without one.
        task: Cases and scorers.
        accepting: The candidate's scores are to become the baseline file, whatever it says now.

    Raises:
        JobError: The baseline file is not there, the job names none to write, or the primary
            metric has no scores to keep.
        UnknownName: The gate pins a case that is not among them.
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
    return Requirements(
        pinned=pinned_cases(gate, task.cases, task.copies),
        standing=None if accepting else standing(job, primary, task.cases),
        accepting=accepting,
    )


def pinned_cases(
    gate: Gate | None, cases: Iterable[Example], copies: Mapping[str, str] = {}
) -> frozenset[str]:
    """Return the ids of the cases that the candidate must get right.

    Args:
        gate: With the ids that the job names; None without a gate.
        cases: Test cases; a row may say ``pinned: true`` itself.
        copies: Ids of copies that were left out, with those of what they copy.

    Raises:
        UnknownName: The gate names a case that is not among them.
    """
    by_id = {case.case_id: case for case in cases}
    named = [copies.get(name, name) for name in (gate.pinned if gate else ())]
    for name in named:
        if name not in by_id:
            raise UnknownName(
                "case",
                name,
                by_id,
                "evaluate.gate.pinned takes ids of test cases: a row's own `id`, or the one that "
                "the report shows.",
            )
    return frozenset(named) | {name for name, case in by_id.items() if case.pinned}


def gather(
    best: AgainstBest, paired: PairedResult, sides: Sides, asked: Requirements, level: float
) -> Evidence:
    """Gather what a gate looks at.

    Args:
        best: Candidate against the best baseline.
        paired: Against the hardest one.
        sides: Their answers.
        asked: What the gate asks of these cases.
        level: Of the interval against the baseline file.
    """
    then = asked.standing
    return Evidence(
        verdict=best.verdict.value,
        interval=(best.interval.low, best.interval.high),
        margin=paired.margin,
        own_interval=sides.result.interval,
        n=paired.n,
        errors=sides.errors,
        dev=sides.dev,
        totals=sides.totals,
        pinned=tuple(Pinned(case, sides.scores_of(case)) for case in sorted(asked.pinned)),
        regression=regress(then, sides.candidate, sides.clusters, paired.margin, level)
        if then
        else None,
        accepting=asked.accepting,
    )
