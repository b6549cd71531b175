"""Answers to the validation rows: how good prompts and models are, while the test stays unused.

Who answers and which rows stand in the job that `planning.learning_curve.judged_on_validation`
returns. Answers are recorded in one folder of the job for each backend, whoever wants them, and
none is requested again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from unitune.evaluate.grading import Answered, Graded, grade
from unitune.evaluate.inference.budget import Budget
from unitune.evaluate.inference.engine import EvaluationProgress
from unitune.evaluate.inference.sources import resolve_sources
from unitune.evaluate.prompts.contenders import Contender, build
from unitune.evaluate.prompts.tuned_run import TunedRun, answering
from unitune.evaluate.result_files import results_folder
from unitune.evaluate.runner import (
    EvaluationConfig,
    Notify,
    collect_responses,
    ignore,
    open_journals,
)
from unitune.evaluate.task import Task, prepare
from unitune.planning.preflight import ResolvedJob
from unitune.run.run import Run

FOLDER = "validation"
"""Beside the recorded answers of the job; each backend has a folder there, since contenders of two
may have one name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """How validation rows are answered.

    Args:
        deploy_seconds: Where a model answers only from a deployment: how long each may stand.
        deploy_options: The backend's own for them.
        allow_unpriced: Whether a price may be unknown or old.
        progress: Called as answers come.
    """

    deploy_seconds: float | None = None
    deploy_options: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    allow_unpriced: bool = False
    progress: Notify | None = None


class ValidationAnswers(NamedTuple):
    """Who has answered the validation rows, in the job's order, with scores."""

    task: Task
    graded: tuple[Graded, ...]
    spent_usd: Decimal | None
    """Of these contenders' answers, recorded ones too; None where no price is known."""
    folder: Path


def answer_validation(
    resolved: ResolvedJob, runs: Mapping[str, Run], options: AnswerOptions
) -> ValidationAnswers:
    """Have contenders answer the validation rows, each tuned model alone and the others together.

    Prompts are chosen on the very rows that then score them, which flatters them a little.

    Args:
        resolved: As `judged_on_validation` returns it.
        runs: Those of the tuned contenders, which have a model, by contender.
        options: How they answer.

    Raises:
        BackendError: As of `unitune.compare`; so are OverBudget and Interrupted.
    """
    task, evaluate = prepare(resolved), resolved.job.evaluate
    contenders = build(evaluate, resolved.job.tuning, resolved.splits.train)
    config = EvaluationConfig(
        task=task,
        contenders=contenders,
        sources=resolve_sources(
            resolved, runs, allow_unpriced=options.allow_unpriced, replay=False
        ),
        folder=results_folder(None, resolved.job, None) / FOLDER / resolved.job.backend,
        budget=Budget.of(evaluate),
        concurrency=evaluate.concurrency,
        use_cache=not runs,  # of a prompt's answers, by which it was chosen
    )
    answered = _answered(config, runs, options)
    return ValidationAnswers(
        task=task,
        graded=tuple(grade(task, answered[each.name]) for each in contenders),
        spent_usd=config.budget.spent if config.prices else None,
        folder=config.folder,
    )


def _answered(
    config: EvaluationConfig, runs: Mapping[str, Run], options: AnswerOptions
) -> dict[str, Answered]:
    progress = options.progress or ignore

    def show(at: EvaluationProgress) -> None:  # the test stays unused
        progress(replace(at, phase="dev") if at.phase == "test" else at)

    untuned = tuple(each for each in config.contenders if not each.is_tuned)
    groups: list[tuple[Contender, ...]] = [(each,) for each in config.contenders if each.is_tuned]
    answered: dict[str, Answered] = {}
    terms = options.deploy_seconds, options.deploy_options
    with open_journals(config) as journals:
        for group in filter(None, (*groups, untuned)):
            tuned = {each.name: TunedRun.of(runs[each.name]) for each in group if each.is_tuned}
            with answering(
                tuned, config.sources, config.budget, *terms, unpriced=options.allow_unpriced
            ) as ready:
                alone = replace(config, contenders=group, sources=ready)
                collected = collect_responses(alone, journals, show)
            answered |= {each.name: each for each in collected}
    return answered
