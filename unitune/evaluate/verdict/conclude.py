"""Compute every figure of a comparison, from scores to the verdict, from its recorded answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import get_args

from unitune._version import __version__
from unitune.errors import BackendError
from unitune.evaluate.documents.records import (
    CaseResult,
    Retention,
    SimulatedUserResult,
    UseOfTest,
    total,
)
from unitune.evaluate.documents.results import (
    BaselineResult,
    Comparison,
    ContenderResult,
    judged_run,
)
from unitune.evaluate.judging.collecting import Judging
from unitune.evaluate.judging.figures import (
    Calibration,
    calibrate,
    judge_result,
    same_family,
    unknown_contenders,
    with_judgements,
)
from unitune.evaluate.prompts.contenders import Choice, best_baseline
from unitune.evaluate.prompts.tuned_run import TunedRun
from unitune.evaluate.scoring.grading import MOST_ERRORS, Answered, Graded, grade, style_features
from unitune.evaluate.statistics.paired import LEVEL, Verdict
from unitune.evaluate.task import Task
from unitune.evaluate.verdict import gate
from unitune.evaluate.verdict.baseline import Requirements
from unitune.evaluate.verdict.looks import TestHistory
from unitune.evaluate.verdict.readings import Judgement, Pairing, Ruling, against_references, judge
from unitune.evaluate.verdict.remarks import large_cluster, remarks
from unitune.job.contenders import Model, Recorded, Role, Server, Tuned
from unitune.planning.preflight import ResolvedJob
from unitune.scorers.interface import Kind
from unitune.scorers.judge import PASS_FAIL, Judge


def conclude(  # noqa: PLR0913 - each is independent
    resolved: ResolvedJob,
    contenders: Sequence[Answered],
    tuned: Mapping[str, TunedRun],
    required: Requirements,
    history: TestHistory,
    *,
    judgings: Sequence[Judging] = (),
    spent: Decimal,
    retained: tuple[Retention, ...] = (),
    user: SimulatedUserResult | None = None,
) -> Comparison:
    """Compare the candidate with each baseline. Raises BackendError if one never answered."""
    job, evaluate, task = resolved.job, resolved.job.evaluate, history.task
    contenders = with_judgements(task, contenders, judgings)
    graded = [grade(task, answered) for answered in contenders]
    of_role = {role: [each for each in graded if each.spec.role == role] for role in get_args(Role)}
    (candidate,), baselines = of_role["candidate"], of_role["baseline"]
    _refuse_silence(*baselines, candidate)
    choices = [answered.choice for answered in contenders]
    chosen, on_dev = best_baseline(choices).contender.name, _errors_on_dev(choices)
    pairings = {each.name: Pairing(each, candidate, evaluate.margin) for each in baselines}
    calibration = calibrate(job, task, pairings) if judgings else Calibration()
    if calibration.bar is None and isinstance(task.scoring.primary, Judge):
        pairings = calibration.applied(pairings)
    look = first_look(task) if task.omitted else None
    judgement, use = judge(pairings, chosen), None
    if look is None:
        planned = evaluate.gate.looks if evaluate.gate else 1
        judgement, use = _at_level_of_use(judgement, pairings, chosen, history, planned)
        look = _too_many_looks(use)
    bar = look or calibration.bar
    if doubt := bar or (on_dev if on_dev and on_dev.exit_code else None):
        judgement = replace(judgement, verdict=Verdict.INCONCLUSIVE, doubt=doubt)
    pairing, paired = judgement.scored.hardest, judgement.scored.paired
    results = tuple(_result(each, tuned.get(each.name)) for each in graded)
    lost = {each.contender: each.metrics for each in retained}.get(candidate.name, {})
    beside = {each.name: Pairing(each, candidate, evaluate.margin) for each in of_role["reference"]}
    return Comparison(
        **Comparison.figures(paired),
        job=job.name,
        run=judged_run(job, {name: each.run for name, each in tuned.items()}),
        base_model=job.base_model,
        backend=job.backend,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        verdict=judgement.verdict.value,
        doubt=judgement.doubt and judgement.doubt.reason,
        metric=task.scoring.primary.name,
        closeness=task.scoring.primary.closeness,
        caution=task.scoring.primary.caution,
        candidate=candidate.name,
        baseline=pairing.baseline.name,
        baselines=tuple(_against(judgement.only(name), chosen, bar) for name in pairings),
        level=LEVEL,
        use_of_test=use,
        per_case=task.scoring.primary.kind is not Kind.CORPUS,
        secondary=pairing.secondary(),
        measured=pairing.measured(),
        style=style_features(task, graded),
        slices=pairing.slices(),
        answered=pairing.answered(),
        references=against_references(beside),
        retention=retained,
        contenders=results,
        spent_usd=spent if spent or any(each.usd is not None for each in results) else None,
        gate=gate.decide(evaluate.gate, judgement, required, on_dev, bar, use, lost),
        simulated_user=user,
        judges=tuple(judge_result(each, pairing, calibration) for each in judgings),
        economics=pairing.money(evaluate.economics),
        leaks=task.leaks,
        dev_rows=len(task.dev),
        omitted_cases=task.omitted,
        notes=(
            *_notes(resolved, task, tuned, graded, judgings),
            *paired.warnings,
            *large_cluster(task, judgement.verdict),
        ),
        provenance=_provenance(task, contenders, judgings, user),
        cases=_with_judgements(task, _cases(task, graded, required.cases), judgings),
    )


def _at_level_of_use(
    judgement: Judgement,
    pairings: Mapping[str, Pairing],
    chosen: str,
    history: TestHistory,
    planned: int,
) -> tuple[Judgement, UseOfTest]:
    """Count this use of the test, and return the judgement at the level that it leaves."""
    scored = judgement.scored
    p_value, answered = scored.paired.p_value, scored.hardest.candidate.answered
    name = history.task.identity(answered.fingerprint, answered.choice.prompt)
    use = history.use(name, len(history.task.cases), p_value, planned)
    if use.level != LEVEL:
        judgement = judge({n: replace(p, level=use.level) for n, p in pairings.items()}, chosen)
    return judgement, use


def _notes(
    resolved: ResolvedJob,
    task: Task,
    tuned: Mapping[str, TunedRun],
    graded: Sequence[Graded],
    judgings: Sequence[Judging],
) -> Iterator[str]:
    yield from remarks(resolved, task, tuned, graded)
    specs = [each.spec for each in graded]
    users = [user] if (user := resolved.job.evaluate.user) else []
    for asked in (*(judging.judge for judging in judgings), *users):
        if alike := same_family(asked, specs, resolved.job.base_model):
            yield alike
    if judgings and (ignored := unknown_contenders(resolved.job)):
        yield ignored
    is_asked = not all(isinstance(spec, Recorded) for spec in specs)
    if judgings and is_asked and graded[0].task.scoring.on_dev is None:
        yield (
            "Prompts were not chosen on dev rows, because only a judge scores answers: each "
            "contender uses its first prompt. Add another scorer to let dev rows choose."
        )


def _with_judgements(
    task: Task, cases: tuple[CaseResult, ...], judgings: Sequence[Judging]
) -> tuple[CaseResult, ...]:
    for judging in judgings:
        made, judge = judging.judgements(len(cases)), judging.judge
        if judging is judgings[0] and judge.scale == PASS_FAIL:
            pairs = zip(cases, task.cases, strict=True)
            cases = tuple(replace(case, clauses=judge.clauses(row)) for case, row in pairs)
        cases = tuple(
            replace(case, judgements=(*case.judgements, *new))
            for case, new in zip(cases, made, strict=True)
        )
    return cases


def _refuse_silence(*sides: Graded) -> None:
    for side in sides:
        if not side.answered.succeeded:
            why = str(side.answers[0].error).rstrip(".")
            raise BackendError(
                f"{side.name} did not answer any of {len(side.answers)} cases. First reason: "
                f"{why}. Fix it and run compare again: it requests only missing "
                "answers."
            )


def first_look(task: Task) -> Ruling:
    """Return the ruling that a preview has no verdict."""
    whole = len(task.cases) + task.omitted
    return Ruling(
        3,
        f"A preview on {len(task.cases):,} of {whole:,} test cases (--limit) has no verdict and "
        "passes no gate. Run compare without --limit; it reuses these answers.",
    )


def _too_many_looks(use: UseOfTest) -> Ruling | None:
    if not 1 < use.planned < len(use.sizes):
        return None
    return Ruling(
        3,
        f"evaluate.gate.looks plans {use.planned} comparisons of this candidate, but this is "
        f"number {len(use.sizes)}, so no error rate is left. Compare on new test cases.",
    )


def _against(alone: Judgement, chosen: str, look: Ruling | None) -> BaselineResult:
    name, pair = alone.scored.best.hardest, alone.scored.paired
    ends = [reading.paired.interval for reading in (alone.scored, *alone.others)]
    bounds = min(each.low for each in ends), max(each.high for each in ends)
    return BaselineResult(
        **BaselineResult.figures(pair),
        name=name,
        best_on_dev=name == chosen,
        verdict=Verdict.INCONCLUSIVE.value if look else alone.verdict.value,
        bounds=bounds if alone.others else None,
    )


def _result(each: Graded, tuned: TunedRun | None) -> ContenderResult:
    answered, task = each.answered, each.task
    succeeded = answered.succeeded
    return ContenderResult(
        name=each.name,
        type=each.spec.type,
        role=each.spec.role,
        score=each.score,
        interval=each.own_interval.ends,
        n=len(each.answers),
        errors=each.errors,
        cut=sum(answer.cut for answer in each.answers),
        scores={name: sums.statistic() for name, sums in each.sums.items()},
        measures=each.measures,
        confusion=task.scoring.confusion(task.attempts(answered.records)),
        answers=len(succeeded),
        prompt_tokens=total([record.prompt_tokens for record in succeeded]),
        completion_tokens=total([record.completion_tokens for record in succeeded]),
        usd=answered.usd,
        seconds=total([record.seconds for record in succeeded]),
        effort=_effort(answered, tuned),
        run=tuned and tuned.run.id,
        curve=tuned and tuned.curve,
    )


def _effort(answered: Answered, tuned: TunedRun | None) -> str:
    contender = answered.choice.contender
    if contender.is_tuned and tuned is not None:
        prompt = f"; prompted with {answered.choice.prompt.label}" if contender.borrows else ""
        runs = len(answered.choice.trials)
        sweep = f"; chosen on dev among {runs} run{'s' if runs > 1 else ''}" if runs else ""
        return f"{tuned.effort}{prompt}{sweep}"
    if isinstance(contender.spec, Recorded):
        return f"recorded answers in {contender.spec.answers}"
    return answered.choice.effort


def _cases(
    task: Task, graded: Sequence[Graded], required: Collection[str]
) -> tuple[CaseResult, ...]:
    slices = {part.name: frozenset(part.members) for part in task.slices}
    return tuple(
        CaseResult(
            id=case.case_id,
            messages=task.asked(case).prompt,
            expected=case.answer or "",
            asserted=task.scoring.asserted(case),
            required=case.case_id in required,
            slices=tuple(name for name, members in slices.items() if at in members),
            cluster=task.clusters[at] if task.clusters else None,
            answers={each.name: each.answers[at] for each in graded},
        )
        for at, case in enumerate(task.cases)
    )


def _provenance(
    task: Task,
    contenders: Sequence[Answered],
    judgings: Sequence[Judging],
    user: SimulatedUserResult | None,
) -> dict[str, str]:
    tuned = [each for each in contenders if each.choice.contender.is_tuned]
    several = len({each.origin for each in tuned}) > 1
    warm = task.template.temperature
    how = f"temperature {warm:g}" if warm else "greedy"
    often = "" if task.repeats == 1 else f", each case {task.repeats} times"
    often += f", and {len(task.changed):,} changed questions" if task.changed else ""
    limit = task.output_limit.fixed
    most = "a generous limit for each" if limit is None else f"at most {limit} tokens an"
    return {
        **{_called(each, several=several): each.fingerprint for each in contenders},
        **{f"Training of {each.name}" if several else "Training": each.origin for each in tuned},
        **{f"Scorer {scorer.name}": scorer.fingerprint for scorer in task.scoring.scorers},
        **{f"Judge {each.judge.name}": each.settings for each in judgings},
        **({"Simulated user": f"{user.model}, {user.settings}"} if user else {}),
        "Test cases": task.digest,
        "Sampling": f"{how}, {most} answer{often}",
        "unitune": __version__,
    }


def _called(each: Answered, *, several: bool) -> str:
    spec = each.choice.contender.spec
    if isinstance(spec, Recorded):
        return f"Answers of {spec.name}"
    if isinstance(spec, Model | Server) or (several and isinstance(spec, Tuned)):
        return f"Model of {spec.name}"
    return "Tuned model" if isinstance(spec, Tuned) else "Untuned model"


def _errors_on_dev(choices: Sequence[Choice]) -> Ruling | None:
    """Return a ruling on errors of competing prompts on dev rows, or None without requests."""
    trials = [(choice.contender, trial) for choice in choices for trial in choice.trials]
    if not trials:
        return None
    for contender, trial in trials:
        score = trial.score
        if contender.spec.role != "reference" and len(score.errors) > MOST_ERRORS * score.rows:
            return Ruling(
                4,
                f"{contender.name}: {len(score.errors)} of {score.rows} dev rows with "
                f"{trial.prompt.label} ended in an error, more than {100 * MOST_ERRORS:.0f} %, so "
                f"the choice may be wrong. First reason: {score.errors[0]}. Run compare again; it "
                "requests only those. If they always fail, for example because the prompt is too "
                "long for the model, change the contender (few-shot accepts `shots: 4`), or give "
                "it `role: reference`.",
            )
    failed = sum(len(trial.score.errors) for _, trial in trials)
    rows = sum(trial.score.rows for _, trial in trials)
    return Ruling(0, f"{failed:,} of {rows:,} dev answers ended in an error.")
