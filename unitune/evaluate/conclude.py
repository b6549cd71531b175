"""From recorded answers to the verdict: every figure of a comparison, computed from its records.

`conclude` takes what the contenders answered, scores it, compares the candidate with each
baseline, and applies the gate. The verdict is about the best baseline
(`unitune.evaluate.statistics.best`); the figures beside it are those against the one that is
hardest to beat. It asks nothing and writes nothing, so the same records always give the same
comparison.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from unitune import __version__
from unitune.data.example import digest_all
from unitune.errors import BackendError
from unitune.evaluate import gate
from unitune.evaluate.evidence import Requirements, gather, measures_of
from unitune.evaluate.grading import Graded, grade
from unitune.evaluate.grouping import clusters_of, slices_of
from unitune.evaluate.notes import notes
from unitune.evaluate.pairing import LEVEL, Pairing, own_interval
from unitune.evaluate.prompts.dev import best_baseline, errors_on_dev
from unitune.evaluate.prompts.training import Training
from unitune.evaluate.readings import Judgement, judge
from unitune.evaluate.records import CaseResult
from unitune.evaluate.responses import Answered, EvaluationResponses
from unitune.evaluate.results import BaselineResult, Comparison, ContenderResult, GateResult
from unitune.evaluate.statistics.paired import Verdict
from unitune.evaluate.task import Task
from unitune.job.contenders import Model, Recorded, Server
from unitune.job.job import Job


def conclude(
    job: Job,
    task: Task,
    responses: EvaluationResponses,
    training: Training | None,
    asked: Requirements,
) -> Comparison:
    """Judge the candidate.

    Raises:
        BackendError: Candidate or baseline gave no answer at all.
    """
    contenders = responses.contenders
    graded = [grade(task, answered) for answered in contenders]
    candidate = next(each for each in graded if _role(each) == "candidate")
    baselines = [each for each in graded if _role(each) == "baseline"]
    _refuse_silence(*baselines, candidate)
    clusters = clusters_of(task.cases, job.evaluate)
    pairings = {
        each.name: Pairing(task, each, candidate, clusters, job.evaluate.margin)
        for each in baselines
    }
    choices = [answered.choice for answered in contenders]
    chosen, on_dev = best_baseline(choices).contender.name, errors_on_dev(choices)
    judgement = judge(pairings, chosen)
    if on_dev and on_dev.exit_code:
        judgement = replace(judgement, verdict=Verdict.INCONCLUSIVE, doubt=on_dev)
    pairing, paired = judgement.scored.hardest, judgement.scored.paired
    results = tuple(_result(each, task, training, clusters) for each in graded)
    return Comparison(
        job=job.name,
        run=training.run if training else None,
        base_model=job.base_model,
        backend=job.backend,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        verdict=judgement.verdict.value,
        doubt=judgement.doubt and judgement.doubt.reason,
        metric=task.primary,
        candidate=candidate.name,
        baseline=pairing.baseline.name,
        baselines=tuple(_against(judgement.only(name), chosen) for name in pairings),
        interval=paired.interval.ends,
        level=LEVEL,
        **paired.figures(),
        secondary=pairing.secondary(),
        slices=pairing.slices(slices_of(task.cases, job.evaluate)),
        answered=pairing.answered(),
        economics=pairing.money(job.evaluate.economics),
        retention=responses.retention,
        contenders=results,
        spent_usd=_spent(responses, results),
        gate=_gate(job, judgement, asked, on_dev),
        leaks=task.leaks,
        dev_rows=len(task.dev),
        notes=notes(job, task, training, graded) + paired.warnings,
        curve=training.curve if training else None,
        provenance=_provenance(task, contenders),
        cases=_cases(task, graded, asked.required),
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
    """Return what all that was asked has cost; None where no charge is known."""
    retention = responses.retention
    known = [*(each.usd for each in results), retention.usd if retention else None]
    spent = responses.budget.spent if responses.budget else Decimal(0)
    return spent if spent or any(usd is not None for usd in known) else None


def _role(each: Graded) -> str:
    return each.answered.choice.contender.spec.role


def _refuse_silence(*sides: Graded) -> None:
    """Raise when a side has no answer at all: that is no evidence, with or without a gate."""
    for side in sides:
        if not side.answered.succeeded:
            raise BackendError(
                f"{side.name} gave no answer to any of {len(side.answers)} cases. "
                f"First reason: {side.answers[0].error}. Run compare again when it is mended: "
                "it asks only what has no answer."
            )


def _result(
    each: Graded, task: Task, training: Training | None, clusters: Sequence[str] | None
) -> ContenderResult:
    answered, spec = each.answered, each.answered.choice.contender.spec
    own = own_interval(task, each, clusters)
    return ContenderResult(
        name=spec.name,
        type=spec.type,
        role=spec.role,
        score=each.sums[task.primary].statistic(),
        interval=own.ends,
        n=len(each.answers),
        errors=sum(answer.error is not None for answer in each.answers),
        cut=sum(answer.cut for answer in each.answers),
        scores={name: sums.statistic() for name, sums in each.sums.items()},
        measures=measures_of(each),
        confusion=task.confusion(answered.records),
        prompt_tokens=_total_tokens(record.prompt_tokens for record in answered.succeeded),
        completion_tokens=_total_tokens(record.completion_tokens for record in answered.succeeded),
        usd=answered.usd,
        seconds=_total_seconds(record.seconds for record in answered.succeeded),
        effort=_effort(answered, training),
    )


def _effort(answered: Answered, training: Training | None) -> str:
    if answered.choice.contender.is_tuned and training is not None:
        borrowed = answered.choice.contender.borrows
        prompt = f"; asked with {answered.choice.prompt.label}" if borrowed else ""
        return f"{training.effort}{prompt}"
    spec = answered.choice.contender.spec
    if isinstance(spec, Recorded):
        return f"answers kept in {spec.answers}"
    return answered.choice.effort


def _total_tokens(counts: Iterable[int | None]) -> int | None:
    """Return the sum; None when there is nothing, or one of them is not known."""
    known = list(counts)
    return None if not known or None in known else sum(count or 0 for count in known)


def _total_seconds(spans: Iterable[float | None]) -> float | None:
    known = list(spans)
    return None if not known or None in known else sum(span or 0.0 for span in known)


def _gate(
    job: Job, judgement: Judgement, asked: Requirements, on_dev: gate.Ruling | None
) -> GateResult | None:
    if job.evaluate.gate is None:
        return None
    return gate.apply(job.evaluate.gate, replace(gather(judgement, asked), dev=on_dev))


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
    models = {_called(each): each.fingerprint for each in contenders}
    tuned = [each.origin for each in contenders if each.choice.contender.is_tuned]
    trainings = {"Training": tuned[0]} if tuned else {}
    scorers = {f"Scorer {scorer.name}": scorer.fingerprint for scorer in task.scorers}
    return {
        **models,
        **trainings,
        **scorers,
        "Test cases": digest_all(case.content for case in task.cases),
        "Sampling": _sampling(task),
        "unitune": __version__,
    }


def _sampling(task: Task) -> str:
    how = f"temperature {task.temperature:g}" if task.temperature else "greedy"
    often = "" if task.repeats == 1 else f", each case {task.repeats} times"
    limit = task.output_limit.fixed
    most = "ample room for each" if limit is None else f"at most {limit} tokens an"
    return f"{how}, {most} answer{often}"


def _called(each: Answered) -> str:
    contender = each.choice.contender
    if isinstance(contender.spec, Recorded):
        return f"Answers of {contender.name}"
    if isinstance(contender.spec, Model | Server):
        return f"Model of {contender.name}"
    return "Tuned model" if contender.is_tuned else "Untuned model"
