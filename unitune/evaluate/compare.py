"""Comparing a job's contenders on the same cases, and the candidate with the best baseline.

`compare` goes from top to bottom, each step in a module of its own:

    preflight ──► readiness   what is refused before anything else
              ──► sweep       of a sweep, which run dev chooses
              ──► tuned_run   which runs made the tuned models
              ──► sources     which model answers for each contender, at which price
              ──► task        cases and scorers; leaks refused
              ──► baseline    what the gate asks of the cases
              ──► contenders  with the prompts that they may choose from
              ──► runner      dev chooses prompts, then test; dev.jsonl and rows.jsonl
              ──► conclude    scores, statistics, verdict, gate

It ends with ``verdict.json``, and a copy in the history (`unitune.evaluate.history`); a report is
made from the `Comparison` (`unitune.report.files`). Killed at any moment, the same call goes on
where it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from pydantic import JsonValue

from unitune.errors import UserError
from unitune.evaluate.baseline import Requirements, accept, requirements
from unitune.evaluate.conclude import conclude, first_look
from unitune.evaluate.history import keep
from unitune.evaluate.inference.budget import Budget
from unitune.evaluate.inference.sources import check_batches, resolve_sources, without_batches
from unitune.evaluate.looks import TestHistory
from unitune.evaluate.prompts.contenders import Contender, build
from unitune.evaluate.prompts.prompts import check_prompts
from unitune.evaluate.readiness import refusals
from unitune.evaluate.result_files import report_folder, results_folder, write_verdict
from unitune.evaluate.results import Comparison, judged_run
from unitune.evaluate.runner import (
    EvaluationConfig,
    Notify,
    collect_responses,
    ignore,
    open_journals,
)
from unitune.evaluate.statistics.sample_size import foresight
from unitune.evaluate.sweep import FOLDER as SELECTION
from unitune.evaluate.sweep import (
    Selection,
    select,
    selects,
    sources_of,
    tuned_alone,
    unselected,
)
from unitune.evaluate.task import Task, prepare
from unitune.job.contenders import Recorded, Tuned
from unitune.job.job import Job
from unitune.planning.preflight import ResolvedJob, preflight
from unitune.workspace.notebook import live

if TYPE_CHECKING:
    from unitune.evaluate.grading import Answered
    from unitune.evaluate.inference.journal import Journal
    from unitune.evaluate.inference.sources import Source
    from unitune.evaluate.prompts.contenders import Trial
    from unitune.evaluate.prompts.tuned_run import TunedRun
    from unitune.run.run import Run


def _in_notebook() -> Notify:
    """Return what shows progress below a notebook's cell; elsewhere nothing does."""
    show = live()
    if show is None:
        return ignore
    return lambda at: show(f"{at.phase}: {at.contender}, {at.done} of {at.total} answered")


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
    new_answers: str | None = None,
    allow_unpriced: bool = False,
    progress: Notify | None = None,
    announce: Callable[[str], None] | None = None,
) -> Comparison:
    """Judge the candidate of a job against its best baseline, and write the evidence down.

    Args:
        job: Contenders, scorers, margin and gate.
        run: Whose model is the tuned one, where a tuned contender names no run; by default the
            newest succeeded run of this training, and of a sweep that which is best on dev.
        out: Folder for the files, `Comparison.folder`; by default that of the run, or of the job.
        deploy_seconds: Where a tuned model answers only from a deployment and there is none:
            start one for at most so long, and end it afterwards. Each costs money.
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
        new_answers: Why a candidate whose answers are sampled is asked again on the same cases.
            The reason is recorded, and the comparison counts as another one. Without a reason it is
            refused, since it could be repeated until it comes out better.
        allow_unpriced: Go on although a price is unknown or old; what has none is in no budget.
        progress: Called as answers come; with batches about once a second, too. By default a
            notebook shows a line below its cell.
        announce: Called before any request: what so many cases can show, what no batch answers.

    Returns:
        The comparison, which stands in the history too (`unitune.comparisons`) under its `id`;
        replays of a folder that the user names do not.

    Raises:
        UserError: The job cannot be compared as it is; its kinds are JobError, DataError, Leak,
            Mismatch, NotFoundError, OverBudget and Unsupported.
        BackendError: Candidate or baseline gave no answer at all, or a batch has failed.
        LockTimeout: Another process compares in this folder.
        Interrupted: The user pressed Ctrl-C; the same call goes on.
    """
    choices = _Choices(
        out=out,
        deploy_seconds=deploy_seconds,
        deploy_options=deploy_options,
        batch=batch,
        replay=replay,
        use_cache=use_cache,
        update_baseline=update_baseline,
        limit=limit,
        new_answers=new_answers,
        allow_unpriced=allow_unpriced,
        progress=progress or _in_notebook(),
        announce=announce or ignore,
    )
    return _compared(preflight(job), run, choices)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choices:
    """What the caller of `compare` has chosen, by the same names."""

    out: str | os.PathLike[str] | None
    deploy_seconds: float | None
    deploy_options: Mapping[str, JsonValue] | None
    batch: bool
    replay: bool
    use_cache: bool
    update_baseline: bool
    limit: int | None
    new_answers: str | None
    allow_unpriced: bool
    progress: Notify
    announce: Callable[[str], None]


def _compared(resolved: ResolvedJob, run: Run | None, choices: _Choices) -> Comparison:
    _refuse(resolved, run, choices)
    selection = _selection(resolved, run, choices)
    resolved, run = selection.resolved, selection.run
    tuned = _tuned_runs(resolved, run, replay=choices.replay)
    runs = {name: each.run for name, each in tuned.items()}
    sources = resolve_sources(
        resolved, runs, allow_unpriced=choices.allow_unpriced, replay=choices.replay
    )
    task = _task(resolved, tuned, choices.limit)
    required = Requirements()
    if not task.omitted:
        required = requirements(resolved.job, task, accepting=choices.update_baseline)
    _announce(resolved, task, sources, choices)
    history = TestHistory(task, resolved.job.name)
    if not task.omitted:
        history = TestHistory.of(
            task, resolved.job.name, choices.new_answers, replay=choices.replay
        )
    config = EvaluationConfig(
        task=task,
        contenders=build(resolved.job.evaluate, resolved.job.tuning, resolved.splits.train),
        sources=sources,
        folder=results_folder(choices.out, resolved.job, judged_run(resolved.job, runs)),
        budget=Budget.of(resolved.job.evaluate, selection.spent),
        concurrency=resolved.job.evaluate.concurrency,
        batch=choices.batch,
        replay=choices.replay,
        use_cache=choices.use_cache,
        announce=choices.announce,
        history=history,
    )
    with open_journals(config) as journals:
        if config.replay:
            known = _with_recorded_runs(config.sources, runs, journals.test)
            config = replace(config, sources=known)
        with _deployed(tuned, config, choices) as ready:
            config = replace(config, sources=ready)
            answered = selection.noted(collect_responses(config, journals, choices.progress))
        spent = config.budget.spent
        comparison = conclude(resolved, answered, tuned, required, history, spent=spent)
        notes = (*_recorded_before(answered, journals.test), *comparison.notes)
    comparison = comparison.model_copy(update={"sweep": selection.runs, "notes": notes})
    if choices.update_baseline and comparison.exit_code == 0:
        accept(resolved.job, task, comparison)
    if not task.omitted and not (choices.replay and choices.out):
        comparison = keep(comparison)
        history.record(comparison, answered)
        if not choices.replay and comparison.candidate in tuned:
            tuned[comparison.candidate].record_gate(resolved.job, comparison)
    folder = report_folder(comparison, config.folder)
    write_verdict(comparison, folder)
    return comparison.model_copy(update={"folder": folder})


def _refuse(resolved: ResolvedJob, run: Run | None, choices: _Choices) -> None:
    if choices.new_answers is not None and not choices.new_answers.strip():
        raise UserError("new answers of a known candidate need a reason, which is recorded.")
    if choices.limit is not None and choices.update_baseline:
        raise UserError(
            "a first look (--limit) has the scores of some cases alone. Update the baseline "
            "without it."
        )
    for refusal in refusals(resolved.job, resolved.rows.read, run and run.id):
        raise refusal
    if choices.batch:
        check_batches(resolved.job, deploys=choices.deploy_seconds is not None)


def _selection(resolved: ResolvedJob, run: Run | None, choices: _Choices) -> Selection:
    """Return the run of a sweep that dev chooses; of another job the job as it is."""
    if not resolved.job.sweep or run is not None or not selects(resolved):
        return unselected(resolved, run)
    from unitune.evaluate.prompts.tuned_run import TunedRun, find_sweep_runs  # noqa: PLC0415

    runs = find_sweep_runs(resolved, replay=choices.replay)
    task = _task(resolved, {}, choices.limit)
    (of_sweep,) = resolve_sources(
        tuned_alone(resolved), {}, allow_unpriced=choices.allow_unpriced, replay=choices.replay
    ).values()
    contenders = {each.setting: Contender(Tuned(name=each.setting)) for each in resolved.runs}
    config = EvaluationConfig(
        task=task,
        contenders=tuple(contenders.values()),
        sources=sources_of(resolved, of_sweep, contenders),
        folder=results_folder(choices.out, resolved.job, None) / SELECTION,
        budget=Budget.of(resolved.job.evaluate),
        concurrency=resolved.job.evaluate.concurrency,
        replay=choices.replay,
        use_cache=choices.use_cache,
        announce=choices.announce,
        dev_only=True,
    )
    trials: dict[str, Trial] = {}
    with open_journals(config) as journals:
        for name, contender in contenders.items():
            recorded = journals.dev.model_of(config.sources[name].origin) is not None
            if not (recorded if choices.replay else name in runs):
                continue
            # One model, and where need be one deployment, at a time.
            tuned = {name: TunedRun.of(runs[name])} if name in runs else {}
            with _deployed(tuned, config, choices) as ready:
                alone = replace(config, contenders=(contender,), sources=ready)
                (answered,) = collect_responses(alone, journals, choices.progress)
            (trials[name],) = answered.choice.trials
    return select(resolved, runs, trials, config.budget.spent)


def _task(resolved: ResolvedJob, tuned: Mapping[str, TunedRun], limit: int | None) -> Task:
    """Return what is to be answered, none of it trained on by any of the runs."""
    backends = {name: each.run.backend_name for name, each in tuned.items()}
    rows = {each.run.id: each.rows for each in tuned.values()}
    task = prepare(resolved, chain.from_iterable(rows.values()), backends, limit=limit)
    for spec in resolved.job.evaluate.contenders:
        if isinstance(spec, Tuned) and spec.name in tuned:
            trained = tuned[spec.name].rows or (resolved.splits.train,)
            check_prompts(spec, trained, task.cases)
    return task


def _announce(
    resolved: ResolvedJob, task: Task, sources: Mapping[str, Source], choices: _Choices
) -> None:
    """Say what so many cases can show, and what no batch answers."""
    evaluate = resolved.job.evaluate
    if task.omitted:
        choices.announce(first_look(task).reason)
    else:
        choices.announce(foresight(len(task.cases), evaluate.margin, graded=evaluate.graded))
    for sentence in without_batches(sources) if choices.batch else ():
        choices.announce(sentence)


def _tuned_runs(resolved: ResolvedJob, run: Run | None, *, replay: bool) -> dict[str, TunedRun]:
    if not any(isinstance(spec, Tuned) for spec in resolved.job.evaluate.contenders):
        return {}
    from unitune.evaluate.prompts.tuned_run import find_tuned_runs  # noqa: PLC0415 - the ledger

    return find_tuned_runs(resolved, run, replay=replay)


def _recorded_before(contenders: Sequence[Answered], rows: Journal) -> Iterator[str]:
    """Yield how many answers no model gave in this call, where there are any."""
    asked = [each for each in contenders if not isinstance(each.choice.contender.spec, Recorded)]
    records = [record for each in asked for record in each.records]
    if earlier := sum(map(rows.is_earlier, records)):
        yield f"{earlier:,} of {len(records):,} answers were recorded before this call."


def _with_recorded_runs(
    sources: Mapping[str, Source], runs: Mapping[str, Run], rows: Journal
) -> dict[str, Source]:
    """Return the sources of a replay: a run that the ledger does not know is that of the rows."""
    return {
        name: replace(source, origin=rows.origin_of(name, source.origin) or source.origin)
        if isinstance(source.spec, Tuned) and source.spec.run is not None and name not in runs
        else source
        for name, source in sources.items()
    }


def _deployed(
    tuned: Mapping[str, TunedRun], config: EvaluationConfig, choices: _Choices
) -> AbstractContextManager[Mapping[str, Source]]:
    """Return who answers, with the tuned models deployed meanwhile where need be."""
    if not tuned or config.replay:
        return nullcontext(config.sources)
    from unitune.evaluate.prompts.tuned_run import answering  # noqa: PLC0415 - the ledger

    return answering(
        tuned,
        config.sources,
        config.budget,
        choices.deploy_seconds,
        choices.deploy_options,
        unpriced=choices.allow_unpriced,
    )
