"""Comparing a job's contenders on the same cases, and the candidate with the best baseline.

`compare` goes from top to bottom, each step in a module of its own:

    preflight ──► readiness   what is refused before anything else
              ──► tuned_run   which run made the tuned model
              ──► sources     which model answers for each contender, at which price
              ──► task        cases and scorers; leaks refused
              ──► baseline    what the gate asks of the cases
              ──► contenders  with the prompts that they may choose from
              ──► runner      dev chooses prompts, then test; dev.jsonl and rows.jsonl
              ──► conclude    scores, statistics, verdict, gate

It ends with ``verdict.json``; a report is made from the `Comparison` (`unitune.report.files`).
Killed at any moment, the same call goes on where it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import JsonValue

from unitune.errors import NotFoundError, UserError
from unitune.evaluate.baseline import Requirements, accept, requirements
from unitune.evaluate.conclude import conclude, first_look
from unitune.evaluate.inference.budget import Budget, answer_prices
from unitune.evaluate.inference.sources import check_batches, resolve_sources, without_batches
from unitune.evaluate.prompts.contenders import build
from unitune.evaluate.readiness import refusals
from unitune.evaluate.result_files import report_folder, results_folder, write_verdict
from unitune.evaluate.results import Comparison
from unitune.evaluate.runner import EvaluationConfig, Notify, collect_responses, open_journals
from unitune.evaluate.statistics.sample_size import foresight
from unitune.evaluate.task import prepare
from unitune.job.contenders import Tuned
from unitune.job.job import Job
from unitune.planning.preflight import ResolvedJob, preflight

if TYPE_CHECKING:
    from unitune.evaluate.inference.sources import Source
    from unitune.evaluate.prompts.tuned_run import TunedRun
    from unitune.run.run import Run


def _ignore(_: object) -> None:
    pass


def compare(  # noqa: PLR0913 - each has a name and a default
    job: Job | ResolvedJob,
    run: Run | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    deploy_seconds: float | None = None,
    deploy_options: Mapping[str, JsonValue] | None = None,
    batch: bool = False,
    replay: bool = False,
    use_cache: bool = False,
    update_baseline: bool = False,
    limit: int | None = None,
    allow_unpriced: bool = False,
    progress: Notify | None = None,
    announce: Callable[[str], None] | None = None,
) -> Comparison:
    """Judge the candidate of a job against its best baseline, and write the evidence down.

    Args:
        job: Contenders, scorers, margin and gate.
        run: Whose model is the tuned one; by default the newest succeeded run of this training.
        out: Folder for the files; that of the run or of the job by default.
        deploy_seconds: Where the tuned model answers only from a deployment and there is none:
            start one for at most so long, and end it afterwards. It costs money.
        deploy_options: The backend's own for that deployment: hardware, capacity, …
        batch: Have test cases answered in batches, wherever a contender's backend can: within a
            day, for about half the price. The same call collects what an earlier call submitted.
        replay: Judge by the answers recorded in the folder: no request, cost, key or ledger.
        use_cache: Take answers that the same model gave to the same request in any comparison of
            this ledger's folder. A vendor may have changed a model under its name since.
        update_baseline: Make the candidate's scores the gate's baseline file, if it passes whatever
            else the gate checks.
        limit: A first look at so many test cases, the same each time, with as many rows of dev at
            most: no verdict, and no gate is passed. The whole comparison goes on from its answers.
        allow_unpriced: Go on although a price is unknown or old; what has none is in no budget.
        progress: Called as answers come; with batches about once a second, too.
        announce: Called before any request: what so many cases can show, what no batch answers.

    Raises:
        UserError: The job cannot be compared as it is; its kinds are JobError, DataError, Leak,
            Mismatch, NotFoundError, OverBudget and Unsupported.
        BackendError: Candidate or baseline gave no answer at all, or a batch has failed.
        LockTimeout: Another process compares in this folder.
        Interrupted: The user pressed Ctrl-C; the same call goes on.
    """
    resolved = preflight(job)
    job, announce = resolved.job, announce or _ignore
    if limit is not None and update_baseline:
        raise UserError(
            "a first look (--limit) has the scores of some cases alone. Update the baseline "
            "without it."
        )
    for refusal in refusals(job, resolved.rows.read, run and run.id):
        raise refusal
    if batch:
        check_batches(job, deploys=deploy_seconds is not None)
    tuned = _tuned_run(resolved, run, replay=replay)
    prices = answer_prices(job, resolved.book, allow_unpriced=allow_unpriced or replay)
    training = tuned.run.fingerprint if tuned else resolved.fingerprint
    sources = resolve_sources(resolved, training, prices.contenders, replay=replay)
    task = prepare(resolved, tuned.rows if tuned else (), limit=limit)
    if tuned:
        tuned.check_prompts(job, resolved.splits.train, task.cases)
    required = (
        Requirements() if task.omitted else requirements(job, task, accepting=update_baseline)
    )
    announce(
        first_look(task).reason
        if task.omitted
        else foresight(len(task.cases), job.evaluate.margin, graded=job.evaluate.graded)
    )
    for sentence in without_batches(sources) if batch else ():
        announce(sentence)
    config = EvaluationConfig(
        task=task,
        contenders=build(job.evaluate, job.tuning, resolved.splits.train),
        sources=sources,
        folder=results_folder(out, job.name, tuned and tuned.run.id),
        budget=Budget(job.evaluate.budget and job.evaluate.budget.usd),
        concurrency=job.evaluate.concurrency,
        batch=batch,
        replay=replay,
        use_cache=use_cache,
        announce=announce,
    )
    with open_journals(config) as journals:
        with _deployed(tuned, config, deploy_seconds, deploy_options, allow_unpriced) as ready:
            config = replace(config, sources=ready)
            answered = collect_responses(config, journals, progress or _ignore)
        comparison = conclude(resolved, task, answered, tuned, required, spent=config.budget.spent)
    if update_baseline and comparison.exit_code == 0:
        accept(job, task, comparison)
    write_verdict(comparison, report_folder(comparison, config.folder))
    return comparison


def _tuned_run(resolved: ResolvedJob, run: Run | None, *, replay: bool) -> TunedRun | None:
    if not any(isinstance(spec, Tuned) for spec in resolved.job.evaluate.contenders):
        return None
    from unitune.evaluate.prompts.tuned_run import find_tuned_run  # noqa: PLC0415 - the ledger

    # A replay needs no ledger that knows the run.
    with suppress(NotFoundError) if replay and run is None else nullcontext():
        return find_tuned_run(resolved, run)
    return None


def _deployed(
    tuned: TunedRun | None,
    config: EvaluationConfig,
    seconds: float | None,
    options: Mapping[str, JsonValue] | None,
    unpriced: bool,  # noqa: FBT001 - one caller
) -> AbstractContextManager[Mapping[str, Source]]:
    """Return who answers, with the tuned model deployed meanwhile where need be."""
    if tuned is None or config.replay:
        return nullcontext(config.sources)
    return tuned.answering(config.sources, config.budget, seconds, options, unpriced=unpriced)
