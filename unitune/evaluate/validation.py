"""Collect answers to the validation rows, so that the test stays unused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from unitune.errors import JobError
from unitune.evaluate.collecting import collect_responses
from unitune.evaluate.grading import Answered, Graded, grade
from unitune.evaluate.inference.budget import Budget
from unitune.evaluate.inference.engine import AnswerOptions, EvaluationProgress
from unitune.evaluate.inference.sources import resolve_sources
from unitune.evaluate.prompts.contenders import Contender, build
from unitune.evaluate.prompts.tuned_run import TunedRun, answering
from unitune.evaluate.result_files import results_folder
from unitune.evaluate.runner import EvaluationConfig, Journals, open_journals
from unitune.evaluate.task import Task, prepare
from unitune.planning.preflight import ResolvedJob
from unitune.run.run import Run

# Subfolder of the job's recorded answers, with a folder per backend because contenders' names may
# repeat
FOLDER = "validation"


class ValidationAnswers(NamedTuple):
    """Scored answers to the validation rows, in the job's order."""

    task: Task
    graded: tuple[Graded, ...]
    # Cost of all answers, including recorded ones; None if no price is known
    spent_usd: Decimal | None
    folder: Path


def answer_validation(
    resolved: ResolvedJob, runs: Mapping[str, Run], options: AnswerOptions
) -> ValidationAnswers:
    """Let contenders answer the validation rows, each tuned model separately, the others together.

    Prompts are chosen on the same rows that score them, which makes their scores optimistic.

    Raises:
        BackendError: See `unitune.compare`, as for OverBudget and Interrupted.
    """
    task, evaluate = prepare(resolved), resolved.job.evaluate
    if (scoring := task.scoring.on_dev) is None:
        raise JobError(
            "only a judge scores answers, and judges read only answers to test cases. Add another "
            "scorer to evaluate.scorers."
        )
    task = replace(task, scoring=scoring)
    contenders = build(evaluate, resolved.job.tuning, resolved.splits.train)
    progress = options.progress

    def show(at: EvaluationProgress) -> None:  # the test stays unused
        progress(replace(at, phase="dev") if at.phase == "test" else at)

    # Answers used to choose a prompt come from the cache.
    options = replace(options, progress=show, use_cache=not runs)
    config = EvaluationConfig(
        task=task,
        contenders=contenders,
        sources=resolve_sources(resolved, runs, options),
        folder=results_folder(None, resolved.job, None) / FOLDER / resolved.job.backend,
        budget=Budget.of(evaluate),
        concurrency=evaluate.concurrency,
        options=options,
    )
    with open_journals(config) as journals:
        answered = answer_in_turn(config, journals, runs)
    return ValidationAnswers(
        task=task,
        graded=tuple(grade(task, answered[each.name]) for each in contenders),
        spent_usd=config.budget.spent if config.prices else None,
        folder=config.folder,
    )


def answer_in_turn(
    config: EvaluationConfig, journals: Journals, runs: Mapping[str, Run]
) -> dict[str, Answered]:
    """Return the answers by contender, collecting those of one tuned model at a time."""
    groups: list[tuple[Contender, ...]] = [(each,) for each in config.contenders if each.is_tuned]
    groups.append(tuple(each for each in config.contenders if not each.is_tuned))
    answered: dict[str, Answered] = {}
    for group in filter(None, groups):
        names = [each.name for each in group if each.is_tuned and each.name in runs]
        alone = replace(config, contenders=group)
        with answering({name: TunedRun.of(runs[name]) for name in names}, alone) as ready:
            collected = collect_responses(replace(alone, sources=ready), journals)
        answered |= {each.name: each for each in collected}
    return answered
