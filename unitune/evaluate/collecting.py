"""Run requests of an evaluation in an event loop that Ctrl-C interrupts without a loss.

Answers to the validation rows are collected here, so that the test stays unused.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple, TypeVar

from unitune.errors import Interrupted, JobError
from unitune.evaluate.documents.history import results_folder
from unitune.evaluate.inference.budget import Budget
from unitune.evaluate.inference.engine import AnswerOptions, EvaluationProgress
from unitune.evaluate.inference.journal import ResponseCache, open_response_cache
from unitune.evaluate.inference.sources import resolve_sources
from unitune.evaluate.prompts.contenders import Contender, build
from unitune.evaluate.prompts.tuned_run import TunedRun, answering
from unitune.evaluate.runner import EvaluationConfig, EvaluationRunner, Journals, open_journals
from unitune.evaluate.scoring.grading import Answered, Graded, grade
from unitune.evaluate.task import Task, prepare
from unitune.planning.preflight import ResolvedJob
from unitune.run.run import Run
from unitune.workspace.home import home, make_home

T = TypeVar("T")


def collect_responses(config: EvaluationConfig, journals: Journals) -> tuple[Answered, ...]:
    """Request every answer that is not recorded; return the contenders with their answers.

    Raises:
        UnituneError: See `with_runner`.
    """
    answered = with_runner(config, journals, EvaluationRunner.run)
    in_order = {
        name: each
        for contender in config.contenders
        for name, each in answered.items()
        if name == contender.name or name.startswith(f"{contender.name}: ")
    }
    return tuple(in_order.values())


def with_runner(
    config: EvaluationConfig, journals: Journals, work: Callable[[EvaluationRunner], T]
) -> T:
    """Return the result of work that sends requests.

    If an event loop is running, as in a notebook, a separate thread sends the requests.

    Raises:
        Interrupted: The user pressed Ctrl-C; existing answers are kept.
        BackendError: A batch was refused or failed, or its state is unknown.
    """
    stopped = threading.Event()
    more = "Run the same command to resume."
    if config.options.batch:
        more = (
            "Submitted batches continue at their vendors; run the same command again to collect "
            "them."
        )
    interrupted = Interrupted(f"every answer so far is saved in {config.folder}. {more}")

    def notify_or_stop(progress: EvaluationProgress) -> None:
        if stopped.is_set():
            raise interrupted
        config.options.progress(progress)

    def run() -> T:
        cached: AbstractContextManager[ResponseCache | None] = nullcontext()
        if not config.options.replay:
            make_home(home())
            cached = open_response_cache(home(), use_cache=config.options.use_cache)
        with cached as cache, asyncio.Runner() as loop:
            sources = config.all_sources
            return work(EvaluationRunner(config, loop, journals, cache, notify_or_stop, sources))

    try:
        return _outside_any_loop(run, stopped)
    except KeyboardInterrupt:
        raise interrupted from None


def _outside_any_loop(work: Callable[[], T], stopped: threading.Event) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            return thread.submit(copy_context().run, work).result()
        finally:
            stopped.set()


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
        with answering({name: TunedRun(runs[name]) for name in names}, alone) as ready:
            collected = collect_responses(replace(alone, sources=ready), journals)
        answered |= {each.name: each for each in collected}
    return answered
