"""From recorded answers to the verdict: every figure of a comparison, computed from its records.

`conclude` scores the contenders' answers, compares the candidate with each baseline, and applies
the gate. The verdict is about the best baseline (`statistics.paired.against_best`); the figures
beside it are those against the hardest baseline. It requests nothing and writes nothing,
so the same records always give the same comparison.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, TypeVar

from unitune import __version__
from unitune.data.example import digest_all
from unitune.errors import BackendError
from unitune.evaluate import gate
from unitune.evaluate.evidence import Requirements, gather
from unitune.evaluate.grading import Graded, grade
from unitune.evaluate.grouping import clusters_of, slices_of
from unitune.evaluate.notes import notes
from unitune.evaluate.prompts.dev import best_baseline, errors_on_dev
from unitune.evaluate.readings import Judgement, Pairing, judge
from unitune.evaluate.records import CaseResult
from unitune.evaluate.responses import Answered, EvaluationResponses
from unitune.evaluate.results import BaselineResult, Comparison, ContenderResult
from unitune.evaluate.statistics.paired import LEVEL, Verdict
from unitune.evaluate.task import Task
from unitune.job.contenders import Model, Recorded, Server
from unitune.job.job import Job

if TYPE_CHECKING:
    from unitune.evaluate.prompts.tuned_run import TunedRun

Number = TypeVar("Number", int, float)


def conclude(
    job: Job,
    task: Task,
    responses: EvaluationResponses,
    tuned: TunedRun | None,
    required: Requirements,
) -> Comparison:
    """Judge the candidate.

    Raises:
        BackendError: Candidate or baseline gave no answer at all.
    """
    clusters, evaluate = clusters_of(task.cases, job.evaluate), job.evaluate
    graded = [grade(task, answered, clusters) for answered in responses.contenders]
    candidate = next(each for each in graded if each.spec.role == "candidate")
    baselines = [each for each in graded if each.spec.role == "baseline"]
    _refuse_silence(*baselines, candidate)
    choices = [answered.choice for answered in responses.contenders]
    chosen, on_dev = best_baseline(choices).contender.name, errors_on_dev(choices)
    pairings = {each.name: Pairing(each, candidate, evaluate.margin) for each in baselines}
    judgement = judge(pairings, chosen)
    if on_dev and on_dev.exit_code:
        judgement = replace(judgement, verdict=Verdict.INCONCLUSIVE, doubt=on_dev)
    pairing, paired = judgement.scored.hardest, judgement.scored.paired
    results = tuple(_result(each, tuned) for each in graded)
    evidence = gather(judgement, required, on_dev)
    return Comparison(
        job=job.name,
        run=tuned.run.id if tuned else None,
        base_model=job.base_model,
        backend=job.backend,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        verdict=judgement.verdict.value,
        doubt=judgement.doubt and judgement.doubt.reason,
        metric=task.primary,
        candidate=candidate.name,
        baseline=pairing.baseline.name,
        baselines=tuple(_against(judgement.only(name), chosen) for name in pairings),
        difference=paired.difference,
        interval=paired.interval.ends,
        level=LEVEL,
        p_value=paired.p_value,
        p_exact=paired.p_exact,
        method=paired.method,
        n=paired.n,
        graded=paired.graded,
        gained=paired.gained,
        lost=paired.lost,
        clusters=paired.clusters,
        design_effect=paired.design_effect,
        margin=paired.margin,
        cases_needed=paired.cases_needed,
        smallest_detectable=paired.smallest_detectable,
        secondary=pairing.secondary(),
        slices=pairing.slices(slices_of(task.cases, evaluate)),
        answered=pairing.answered(),
        contenders=results,
        spent_usd=_spent(responses, results),
        gate=gate.apply(evaluate.gate, evidence) if evaluate.gate else None,
        economics=pairing.money(evaluate.economics),
        retention=responses.retention,
        leaks=task.leaks,
        dev_rows=len(task.dev),
        notes=notes(job, task, tuned, graded) + paired.warnings,
        curve=tuned.curve if tuned else None,
        provenance=_provenance(task, responses.contenders),
        cases=_cases(task, graded, required.cases),
    )


def _refuse_silence(*sides: Graded) -> None:
    """Raise when a side has no answer at all: that is no evidence, with or without a gate."""
    for side in sides:
        if not side.answered.succeeded:
            raise BackendError(
                f"{side.name} gave no answer to any of {len(side.answers)} cases. "
                f"First reason: {side.answers[0].error}. Run compare again when it is mended: "
                "it requests only what has no answer."
            )


def _against(alone: Judgement, chosen: str) -> BaselineResult:
    name, pair = alone.scored.best.hardest, alone.scored.paired
    return BaselineResult(
        name=name,
        best_on_dev=name == chosen,
        difference=pair.difference,
        interval=pair.interval.ends,
        p_value=pair.p_value,
        verdict=alone.verdict.value,
    )


def _spent(responses: EvaluationResponses, results: Iterable[ContenderResult]) -> Decimal | None:
    """Return the cost of all requests; None where no charge is known."""
    retention = responses.retention
    known = [*(each.usd for each in results), retention.usd if retention else None]
    spent = responses.budget.spent
    return spent if spent or any(usd is not None for usd in known) else None


def _result(each: Graded, tuned: TunedRun | None) -> ContenderResult:
    answered, task = each.answered, each.task
    succeeded = answered.succeeded
    return ContenderResult(
        name=each.name,
        type=each.spec.type,
        role=each.spec.role,
        score=each.sums[task.primary].statistic(),
        interval=each.own_interval.ends,
        n=len(each.answers),
        errors=each.errors,
        cut=sum(answer.cut for answer in each.answers),
        scores={name: sums.statistic() for name, sums in each.sums.items()},
        measures=each.measures,
        confusion=task.confusion(answered.records),
        answers=len(succeeded),
        prompt_tokens=_total([record.prompt_tokens for record in succeeded]),
        completion_tokens=_total([record.completion_tokens for record in succeeded]),
        usd=answered.usd,
        seconds=_total([record.seconds for record in succeeded]),
        effort=_effort(answered, tuned),
    )


def _total(known: Sequence[Number | None]) -> Number | None:
    """Return the sum; None when there is nothing, or one of them is not known."""
    total = None
    for each in known:
        if each is None:
            return None
        total = each if total is None else total + each
    return total


def _effort(answered: Answered, tuned: TunedRun | None) -> str:
    contender = answered.choice.contender
    if contender.is_tuned and tuned is not None:
        prompt = f"; prompted with {answered.choice.prompt.label}" if contender.borrows else ""
        return f"{tuned.effort}{prompt}"
    if isinstance(contender.spec, Recorded):
        return f"answers kept in {contender.spec.answers}"
    return answered.choice.effort


def _cases(
    task: Task, graded: Sequence[Graded], required: Collection[str]
) -> tuple[CaseResult, ...]:
    return tuple(
        CaseResult(
            id=case.case_id,
            messages=case.prompt,
            expected=case.answer or "",
            required=case.case_id in required,
            answers={each.name: each.answers[at] for each in graded},
        )
        for at, case in enumerate(task.cases)
    )


def _provenance(task: Task, contenders: Sequence[Answered]) -> dict[str, str]:
    trainings = [each.origin for each in contenders if each.choice.contender.is_tuned]
    how = f"temperature {task.temperature:g}" if task.temperature else "greedy"
    often = "" if task.repeats == 1 else f", each case {task.repeats} times"
    limit = task.output_limit.fixed
    most = "ample room for each" if limit is None else f"at most {limit} tokens an"
    return {
        **{_called(each): each.fingerprint for each in contenders},
        **({"Training": trainings[0]} if trainings else {}),
        **{f"Scorer {scorer.name}": scorer.fingerprint for scorer in task.scorers},
        "Test cases": digest_all(case.content for case in task.cases),
        "Sampling": f"{how}, {most} answer{often}",
        "unitune": __version__,
    }


def _called(each: Answered) -> str:
    contender = each.choice.contender
    if isinstance(contender.spec, Recorded):
        return f"Answers of {contender.name}"
    if isinstance(contender.spec, Model | Server):
        return f"Model of {contender.name}"
    return "Tuned model" if contender.is_tuned else "Untuned model"
