"""Decide whether to tune or to prompt: measure until the rules reach a conclusion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial

from unitune.curve.measuring import check_goal, train_all
from unitune.data.quality.look import quality_of
from unitune.data.report import Cause
from unitune.decision import rules
from unitune.decision.evidence import Conclusion, Decision, Evidence
from unitune.decision.measuring import Choices, Measured, best_of
from unitune.errors import OverBudget, RunFailed, UserError
from unitune.evaluate.collecting import FOLDER
from unitune.evaluate.documents.history import results_folder
from unitune.evaluate.inference.engine import AnswerOptions, Notify, ignore
from unitune.evaluate.readiness import readiness_findings
from unitune.evaluate.task import dev_rows, once_each
from unitune.files.filesystem import replacing
from unitune.findings import shown
from unitune.job.job import Job
from unitune.planning.feasibility import same_base_elsewhere
from unitune.planning.preflight import ResolvedJob, preflight
from unitune.workspace.home import make_folder
from unitune.workspace.user_settings import today

DOCUMENT = "decision.json"


def decide(  # noqa: PLR0913 - every option has a default
    job: Job,
    backends: Sequence[str] = (),
    *,
    points: int = 3,
    seeds: int = 3,
    goal: float | None = None,
    requests_month: int | None = None,
    budget: Decimal | float | None = None,
    allow_unpriced: bool = False,
    progress: Notify | None = None,
) -> Decision:
    """Decide whether to tune or to prompt by measuring on the validation rows.

    Examples:
        >>> decision = unitune.decide(job, budget=20)
        >>> print(decision.conclusion.headline)

    Args:
        job: The job to decide about; not a sweep.
        backends: Backends to consider; by default the job's own.
        points: Sizes of a learning curve, if one is needed.
        seeds: Trainings per size.
        goal: A score from 0 to 1 that is good enough; None for the best possible score.
        requests_month: Requests per month for the total cost; overrides the job's own.
        budget: Maximum cost of prompts and trainings together, in US dollars. A measurement that
            may cost more is skipped, and the decision states that.
        allow_unpriced: Continue although a price is unknown or old.
        progress: Called as answers arrive.

    Raises:
        UnituneError: The same errors as `unitune.launch` and `unitune.compare`.
    """
    check_goal(goal)
    choices = Choices(
        points=points,
        seeds=seeds,
        requests_month=requests_month,
        budget=None if budget is None else Decimal(str(budget)),
        launch=partial(train_all, allow_unpriced=allow_unpriced),
        agree=lambda _, __: None,
        answers=AnswerOptions(allow_unpriced=allow_unpriced),
        shown=lambda: nullcontext(progress or ignore),
        goal=goal,
    )
    return measure_and_conclude(resolve(job, backends), choices)


def resolve(job: Job, backends: Sequence[str]) -> list[ResolvedJob]:
    """Return the job on each backend, reading its rows once. Raises UserError for a sweep."""
    if job.sweep:
        raise UserError(
            f"job {job.name!r} is a sweep (lists of {', '.join(job.sweep)}), but a decision is "
            "about one setting. Give each setting one value, for example that of the best run."
        )
    resolved: list[ResolvedJob] = []
    for name in dict.fromkeys(backends or (job.backend,)):
        rows = resolved[0].rows if resolved else None
        resolved.append(preflight(job.with_backend(name), rows=rows))
    return resolved


def measure_and_conclude(
    resolved: Sequence[ResolvedJob], choices: Choices, *, measure: bool = True
) -> Decision:
    """Measure (or not) until the rules conclude, and write the decision next to the answers."""
    options = [Measured.of(each, choices.requests_month) for each in resolved]
    checked, notes, over_budget = _checked(resolved[0], choices), list[str](), False
    while True:
        best = best_of(options)
        known = tuple(each.option(best, choices.points) for each in options)
        evidence = checked.model_copy(update={"options": known})
        conclusion = rules.conclude(evidence)
        if not (measure and conclusion.next.measures):
            break
        choices.announce(conclusion)
        try:
            _measure(options, conclusion, evidence, choices)
        except (OverBudget, RunFailed) as refusal:
            notes.append(str(refusal))
            over_budget = isinstance(refusal, OverBudget)
            break
    decision = Decision(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        conclusion=conclusion,
        evidence=evidence,
        notes=tuple(notes),
        over_budget=over_budget,
        folder=results_folder(None, resolved[0].job, None) / FOLDER,
    )
    make_folder(decision.folder)
    with replacing(decision.folder / DOCUMENT) as file:
        file.write(decision.model_dump_json(indent=2))
    return decision


def _measure(
    options: Sequence[Measured], conclusion: Conclusion, evidence: Evidence, choices: Choices
) -> None:
    what, backend, left = conclusion.next.measures, conclusion.next.backend, choices.budget
    (option,) = (each for each in options if each.resolved.job.backend == backend)
    if left is not None:
        others = (each.prompts_usd + each.tuned_usd for each in options if each is not option)
        left = max(Decimal(0), left - sum(others))
    if what == "prompts":
        option.measure_prompts(choices, left)
    elif what is not None:
        option.measure_training(what, choices, left, evidence.wanted_score)


def _checked(resolved: ResolvedJob, choices: Choices) -> Evidence:
    job, read = resolved.job, resolved.rows.read
    findings = [*read.report.findings]
    warnings = [each for each in findings if each.severity == "warning"]
    quality = quality_of(job)
    causes = quality.causes if quality else ()
    others = [offer for offer, *_ in same_base_elsewhere(job, resolved.offer, today())]
    others.sort(key=lambda offer: not offer.trains_here)
    splits = None
    if not read.report.errors:
        splits = resolved.splits
        findings = [*readiness_findings(job, read, resolved.book)]
    return Evidence(
        job=job.name,
        file=choices.file,
        metric=job.evaluate.primary_scorer,
        graded=job.evaluate.graded,
        margin=job.evaluate.margin,
        goal=choices.goal,
        value_per_correct_usd=job.evaluate.economics.value_per_correct_usd,
        wrong_labels=sum(each.likely / quality.rows for each in causes) if quality else 0.0,
        training_rows=len(splits.train) if splits else 0,
        validation_rows=len(dev_rows(splits.validation)) if splits else 0,
        test_cases=len(once_each(splits.test)[0]) if splits and splits.test else 0,
        errors=tuple(shown(each for each in findings if each.severity == "error")),
        warnings=(*shown(warnings), *_doubtful(causes)),
        months=job.usage.months,
        months_given="months" in job.usage.model_fields_set,
        volume_given=choices.requests_month is not None
        or "requests_month" in job.usage.model_fields_set,
        options=(),
        elsewhere=tuple(offer.name for offer in others),
    )


def _doubtful(causes: Iterable[Cause]) -> Iterator[str]:
    for cause in causes:
        if cause.code == "contradictions":
            yield f"{cause.total:,} training rows need review (unitune check): {cause.title}."
        if cause.likely:
            yield f"About {cause.likely:,} training rows look mislabelled (unitune check)."
