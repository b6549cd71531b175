"""Compare a job's contenders on the same cases, and the candidate with the best baseline."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from pydantic import JsonValue

from unitune.errors import UserError
from unitune.evaluate.collecting import answer_in_turn, collect_responses
from unitune.evaluate.documents.history import keep, report_folder, results_folder, write_verdict
from unitune.evaluate.documents.results import Comparison, judged_run
from unitune.evaluate.inference.budget import Budget
from unitune.evaluate.inference.dialogues import user_result
from unitune.evaluate.inference.engine import CompareOptions, Notify, ignore
from unitune.evaluate.inference.journal import Journal
from unitune.evaluate.inference.sources import (
    Source,
    check_batches,
    resolve_sources,
    without_batches,
)
from unitune.evaluate.judging.collecting import judge_answers
from unitune.evaluate.prompts.contenders import Contender, build
from unitune.evaluate.prompts.prompts import check_prompts
from unitune.evaluate.prompts.tuned_run import TunedRun, answering, find_sweep_runs, find_tuned_runs
from unitune.evaluate.readiness import refusals
from unitune.evaluate.retention import RetentionTask
from unitune.evaluate.runner import EvaluationConfig, open_journals
from unitune.evaluate.scoring.grading import Answered
from unitune.evaluate.statistics.sample_size import foresight
from unitune.evaluate.sweep import FOLDER as SELECTION
from unitune.evaluate.sweep import Selection, select, selects, sources_of, tuned_alone, unselected
from unitune.evaluate.task import Task, prepare
from unitune.evaluate.verdict.baseline import Requirements, accept, requirements
from unitune.evaluate.verdict.conclude import conclude, first_look
from unitune.evaluate.verdict.looks import TestHistory
from unitune.job.contenders import Recorded, Tuned
from unitune.job.job import Job
from unitune.observability.logs import Log
from unitune.observability.traces import Attributes, report_evaluations
from unitune.planning.preflight import ResolvedJob, preflight
from unitune.run.run import Run
from unitune.workspace.progress import live

log = Log(__name__)


def _in_notebook() -> Notify:
    show = live()
    if show is None:
        return ignore
    return lambda at: show(f"{at.phase}: {at.contender}, {at.done} of {at.total} answered")


def compare(  # noqa: PLR0913 - every option has a default
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
    """Compare the candidate of a job with its best baseline, and record the evidence.

    Args:
        job: Contenders, scorers, margin and gate.
        run: Run of a tuned contender that names none. By default the newest succeeded run of this
            training or, for a sweep, the run that scores best on dev rows.
        out: Folder for the files, `Comparison.folder`; by default that of the run, or of the job.
        deploy_seconds: If a tuned model needs a deployment, start one for at most this long and
            delete it afterwards. Each deployment costs money.
        deploy_options: Backend-specific options of the deployment, such as hardware or capacity.
        batch: Answer test cases in batches where the backend supports it: within a day, for about
            half the price. The same call collects batches submitted earlier.
        replay: Use only the answers recorded in the folder: no request, cost, key or ledger.
        use_cache: Reuse answers of the same model to the same request from any comparison in this
            ledger's folder. The vendor may have changed the model since.
        update_baseline: Make the candidate's scores the gate's baseline file, if all other checks
            of the gate pass.
        limit: Preview with this many test cases, the same each time, and at most as many dev rows.
            It has no verdict and passes no gate; the full comparison reuses its answers.
        new_answers: Reason for requesting new answers from a sampled candidate on the same cases.
            It is recorded, and the comparison counts as another one. Without a reason the request
            is refused, because it could be repeated until the result is better.
        allow_unpriced: Continue although a price is unknown or old. Budgets do not limit answers
            without a price.
        progress: Called as answers arrive and, with batches, about once a second. By default a
            notebook shows a line below its cell.
        announce: Called before any request with what the cases can show and what is not batched.

    Returns:
        The comparison. It is also in the history (`unitune.comparisons`) under its `id`, unless it
        is a replay of a folder given as `out`.

    Raises:
        UserError: The job cannot be compared as is. The subclasses are JobError, DataError, Leak,
            Mismatch, NotFoundError, OverBudget and Unsupported.
        BackendError: The candidate or a baseline gave no answer at all, or a batch failed.
        LockTimeout: Another process compares in this folder.
        Interrupted: The user pressed Ctrl-C; the same call resumes.
    """
    options = CompareOptions(
        out=out,
        deploy_seconds=deploy_seconds,
        deploy_options=deploy_options or {},
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
    return run_comparison(preflight(job), run, options)


def run_comparison(resolved: ResolvedJob, run: Run | None, options: CompareOptions) -> Comparison:
    """Compare the contenders of a resolved job (see `compare`)."""
    _refuse(resolved, run, options)
    selection = _selection(resolved, run, options)
    resolved, run = selection.resolved, selection.run
    tuned = find_tuned_runs(resolved, run, replay=options.replay)
    runs = {name: each.run for name, each in tuned.items()}
    sources = resolve_sources(resolved, runs, options)
    task = _task(resolved, tuned, options.limit)
    required, history = Requirements(), TestHistory(task, resolved.job.name)
    if not task.omitted:
        required = requirements(resolved.job, task, accepting=options.update_baseline)
        history = TestHistory.of(task, resolved.job.name, options)
    config = EvaluationConfig(
        task=task,
        contenders=build(resolved.job.evaluate, resolved.job.tuning, resolved.splits.train),
        sources=sources,
        folder=results_folder(options.out, resolved.job, judged_run(resolved.job, runs)),
        budget=Budget.of(resolved.job.evaluate, selection.spent),
        concurrency=resolved.job.evaluate.concurrency,
        options=options,
        history=history,
        retention=RetentionTask.of(resolved, runs, task, options),
    )
    _announce(resolved, config)
    with open_journals(config) as journals:
        if options.replay:
            known = _with_recorded_runs(config.sources, runs, journals.test)
            config = replace(config, sources=known)
        with answering(tuned, config) as ready:
            answered = selection.noted(collect_responses(replace(config, sources=ready), journals))
        judgings = judge_answers(config, journals, answered)
        retained = ()
        if config.retention and journals.general:
            retained = config.retention.results(journals.general, config.all_sources)
        user, spent = resolved.job.evaluate.user, config.budget.spent
        source = user and config.sources[user.name]
        comparison = conclude(
            resolved,
            answered,
            tuned,
            required,
            history,
            judgings=judgings,
            spent=spent,
            retained=retained,
            user=user_result(user, journals[:2], source.origin, source.price)
            if user and source
            else None,
        )
        notes = (*_recorded_before(answered, journals.test), *comparison.notes)
    comparison = comparison.model_copy(update={"sweep": selection.runs, "notes": notes})
    if options.update_baseline and comparison.exit_code == 0:
        accept(resolved.job, task, comparison)
    if not task.omitted and not (options.replay and options.out):
        comparison = keep(comparison)
        history.record(comparison, answered)
        if not options.replay and comparison.candidate in tuned:
            tuned[comparison.candidate].record_gate(resolved.job, comparison)
    folder = report_folder(comparison, config.folder)
    write_verdict(comparison, folder)
    report_evaluations(_evaluations(comparison))
    log.info("comparison %s: %s, %d cases", comparison.id, comparison.verdict, comparison.n)
    return comparison.model_copy(update={"folder": folder})


def _evaluations(comparison: Comparison) -> Iterator[Attributes]:
    """Yield the score of each answer by the deciding metric, as attributes of an event."""
    of_comparison = {"unitune.comparison.id": comparison.id, "unitune.job": comparison.job}
    for case in comparison.cases:
        for name, answer in case.answers.items():
            yield {
                **of_comparison,
                "unitune.case.id": case.id,
                "unitune.contender": name,
                "gen_ai.evaluation.name": comparison.metric,
                "gen_ai.evaluation.score.value": answer.scores.get(comparison.metric),
                "error.type": "no answer" if answer.error else None,
            }


def _refuse(resolved: ResolvedJob, run: Run | None, options: CompareOptions) -> None:
    if options.new_answers is not None and not options.new_answers.strip():
        raise UserError("new answers of a known candidate need a reason, which is recorded.")
    if options.limit is not None and options.update_baseline:
        raise UserError(
            "a preview (--limit) has scores of some cases only. Update the baseline without it."
        )
    for refusal in refusals(resolved.job, resolved.rows.read, run and run.id):
        raise refusal
    if options.batch:
        check_batches(resolved.job, deploys=options.deploy_seconds is not None)


def _selection(resolved: ResolvedJob, run: Run | None, options: CompareOptions) -> Selection:
    """Return the run of a sweep that scores best on dev rows; other jobs are unchanged."""
    if not resolved.job.sweep or run is not None or not selects(resolved):
        return unselected(resolved, run)
    runs = find_sweep_runs(resolved, replay=options.replay)
    of_sweep, *others = resolve_sources(tuned_alone(resolved), {}, options).values()
    contenders = {each.setting: Contender(Tuned(name=each.setting)) for each in resolved.runs}
    config = EvaluationConfig(
        task=_task(resolved, {}, options.limit),
        contenders=tuple(contenders.values()),
        sources={
            **sources_of(resolved, of_sweep, contenders),
            **{each.spec.name: each for each in others},  # such as the simulated user
        },
        folder=results_folder(options.out, resolved.job, None) / SELECTION,
        budget=Budget.of(resolved.job.evaluate),
        concurrency=resolved.job.evaluate.concurrency,
        options=replace(options, batch=False),
        dev_only=True,
    )
    with open_journals(config) as journals:
        known = {
            each.origin: journals.dev.model_of(each.origin) for each in config.sources.values()
        }
        answers = [
            each
            for name, each in contenders.items()
            if (known[config.sources[name].origin] if options.replay else name in runs)
        ]
        answered = answer_in_turn(replace(config, contenders=tuple(answers)), journals, runs)
    trials = {name: each.choice.trials[0] for name, each in answered.items()}
    return select(resolved, runs, trials, config.budget.spent)


def _task(resolved: ResolvedJob, tuned: Mapping[str, TunedRun], limit: int | None) -> Task:
    """Return the task, checked for cases that any of the runs was trained on."""
    backends = {name: each.run.backend_name for name, each in tuned.items()}
    rows = {each.run.id: each.rows for each in tuned.values()}
    task = prepare(resolved, chain.from_iterable(rows.values()), backends, limit=limit)
    for spec in resolved.job.evaluate.contenders:
        if isinstance(spec, Tuned) and spec.name in tuned:
            trained = tuned[spec.name].rows or (resolved.splits.train,)
            check_prompts(spec, trained, task.cases)
    return task


def _announce(resolved: ResolvedJob, config: EvaluationConfig) -> None:
    evaluate, task, options = resolved.job.evaluate, config.task, config.options
    announce = options.announce
    if task.omitted:
        announce(first_look(task).reason)
    else:
        announce(foresight(len(task.cases), evaluate.margin, graded=evaluate.graded))
    for sentence in without_batches(config.sources) if options.batch and not options.replay else ():
        announce(sentence)


def _recorded_before(contenders: Sequence[Answered], rows: Journal) -> Iterator[str]:
    asked = [each for each in contenders if not isinstance(each.choice.contender.spec, Recorded)]
    records = [record for each in asked for record in each.records]
    if earlier := sum(map(rows.is_earlier, records)):
        yield f"{earlier:,} of {len(records):,} answers were recorded before this call."


def _with_recorded_runs(
    sources: Mapping[str, Source], runs: Mapping[str, Run], rows: Journal
) -> dict[str, Source]:
    """Return the sources of a replay, with runs that are not in the ledger taken from the rows."""
    return {
        name: replace(source, origin=rows.origin_of(name, source.origin) or source.origin)
        if isinstance(source.spec, Tuned) and source.spec.run is not None and name not in runs
        else source
        for name, source in sources.items()
    }
