"""Comparing a job's contenders on the same cases, and the candidate with the best baseline.

`compare` goes from top to bottom, each step in a module of its own:

    splits ──► tuned_run  which run made the tuned model
           ──► task       cases and scorers; leaks refused
           ──► build      the contenders, with the prompts that they may choose from
           ──► runner     dev chooses prompts, then test; dev.jsonl and rows.jsonl
           ──► conclude   scores, statistics, verdict, gate

It ends with ``verdict.json``; a report is made from the `Comparison` (`unitune.report.files`).
Killed at any moment, the same call goes on where it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from unitune.cost.budget import HostingBudget
from unitune.errors import JobError, NotFoundError, UserError
from unitune.evaluate import baseline
from unitune.evaluate.conclude import conclude
from unitune.evaluate.evidence import requirements
from unitune.evaluate.inference.batch_submit import batching_backend, supports_batches
from unitune.evaluate.inference.budget import Budget, ScorerBudget
from unitune.evaluate.inference.pricing import answer_prices
from unitune.evaluate.inference.sources import check_sources
from unitune.evaluate.prompts.build import build, check_roles, needs_train
from unitune.evaluate.responses import EvaluationConfig
from unitune.evaluate.results import REPORTS, VERDICT, Comparison
from unitune.evaluate.runner import Notify, collect_responses, open_journals
from unitune.evaluate.statistics.sample_size import foresight
from unitune.evaluate.task import Task, prepare
from unitune.job.contenders import Model, Recorded, Server, Tuned
from unitune.job.job import Job, TokenPrice
from unitune.planning.preflight import ResolvedJob, preflight
from unitune.workspace.filesystem import private_folder, replacing
from unitune.workspace.home import EVALUATION, home, make_home

if TYPE_CHECKING:
    from unitune.evaluate.prompts.tuned_run import TunedRun
    from unitune.run.run import Run


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
    allow_unpriced: bool = False,
    progress: Notify | None = None,
    announce: Callable[[str], None] | None = None,
) -> Comparison:
    """Judge the candidate of a job against its best baseline, and write the evidence down.

    Args:
        job: Contenders, scorers, margin and gate.
        run: Whose model is the tuned one; by default the newest succeeded run of this training.
        out: Folder for the files; `default_folder` by default.
        deploy_seconds: Where the tuned model answers only from a deployment and there is none:
            start one for at most so long, and end it afterwards. It costs money.
        deploy_options: The backend's own for that deployment: hardware, capacity, …
        batch: Have test cases answered in batches, wherever a contender's backend can: within a
            day, for about half the price. The same call collects what an earlier call submitted.
        replay: Judge by the answers that are recorded in the folder, without any request: at no
            cost, without keys, without the ledger that knows the run.
        use_cache: Take answers that the same model gave to the same request in any comparison of
            this ledger's folder. A vendor may have changed a model under its name since.
        update_baseline: Make the candidate's scores the gate's baseline file, if it passes whatever
            else the gate checks.
        allow_unpriced: Go on although a price is unknown or old; what has none is in no budget.
        progress: Called as answers come; with batches about once a second, too.
        announce: Called, before any request, with what so many cases can show, and with what no
            batch can answer.

    Raises:
        UserError: The job cannot be compared as it is; its kinds are JobError, DataError, Leak,
            Mismatch, NotFoundError, OverBudget and Unsupported.
        BackendError: Candidate or baseline gave no answer at all, or a batch has failed.
        LockTimeout: Another process compares in this folder.
        Interrupted: The user pressed Ctrl-C; the same call goes on.
    """
    resolved = preflight(job)
    job = resolved.job
    _check(job, run, deploy_seconds, batch=batch, replay=replay)
    tuned = _tuned_run(resolved, run, replay=replay)
    prices = answer_prices(job, resolved.book, allow_unpriced=allow_unpriced or replay)
    scorers = ScorerBudget(Budget(job.evaluate.budget and job.evaluate.budget.usd), prices.scorers)
    task = _task(resolved, tuned, prices.contenders, scorers, replay=replay)
    required = requirements(job, task, accepting=update_baseline)
    for sentence in _foresight(job, task, batch=batch):
        (announce or _ignore)(sentence)
    config = EvaluationConfig(
        job=job,
        contenders=build(job.evaluate, job.tuning, resolved.splits.train),
        task=task,
        folder=_results_folder(out, job.name, tuned and tuned.run.id),
        prices=prices,
        budget=scorers.budget,
        training=tuned.run.fingerprint if tuned else resolved.fingerprint,
        batch=batch,
        replay=replay,
        use_cache=use_cache,
        announce=announce,
    )
    with open_journals(config, scorers) as journals:
        with _tuned_model(config, tuned, deploy_seconds, deploy_options, allow_unpriced) as ready:
            responses = collect_responses(ready, journals, progress or _ignore)
        comparison = conclude(job, task, responses, tuned, required)
    if update_baseline and comparison.exit_code == 0:
        _accept(job, task, comparison)
    with replacing(config.folder / VERDICT) as file:
        file.write(comparison.verdict_json())
    return comparison


@contextmanager
def _tuned_model(
    config: EvaluationConfig,
    tuned: TunedRun | None,
    seconds: float | None,
    options: Mapping[str, JsonValue] | None,
    unpriced: bool,  # noqa: FBT001 - one caller
) -> Generator[EvaluationConfig]:
    """Give the configuration with the tuned model, deployed while the body runs where need be."""
    if tuned is None:
        yield config
        return
    from unitune.run.deploying import standing  # noqa: PLC0415 - the ledger
    from unitune.run.deployment import answering  # noqa: PLC0415 - the ledger

    run, budget = tuned.run, config.budget
    assert run.tuned_model is not None, "`find_tuned_run` sees to it"
    left = None if budget.cap is None else max(Decimal(0), budget.cap - budget.spent)
    hosting, nothing = HostingBudget(left, unpriced), nullcontext(Decimal(0))
    with standing(run, seconds, hosting, options) if seconds else nothing as usd:
        budget.spent += usd
        yield config if config.replay else replace(config, tuned=answering(run.id, run.tuned_model))


def _task(
    resolved: ResolvedJob,
    tuned: TunedRun | None,
    prices: Mapping[str, TokenPrice],
    scorers: ScorerBudget,
    *,
    replay: bool,
) -> Task:
    """Return the cases, none of which the tuned model may have seen, with their scorers."""
    rows = tuned.rows if tuned else ()
    task = prepare(resolved, rows, prices, paid=scorers, replay=replay)
    if tuned:
        from unitune.evaluate.prompts.tuned_run import check_prompts  # noqa: PLC0415 - the ledger

        check_prompts(resolved.job, rows or (resolved.splits.train,), task.cases)
    return task


def _ignore(_: object) -> None:
    pass


def _check(
    job: Job, run: Run | None, deploy_seconds: float | None, *, batch: bool, replay: bool
) -> None:
    """Refuse what needs no rows, no ledger and no prices to be refused."""
    specs = job.evaluate.contenders
    check_roles(specs)
    from_train = [
        spec.name
        for spec in specs
        if needs_train(spec, job.evaluate) or (isinstance(spec, Tuned) and run is None)
    ]
    if job.data.train is None and from_train:
        raise JobError(
            f"job {job.name!r} names no training rows, and {', '.join(from_train)} "
            "cannot be made without. Set data.train, or leave them out of evaluate.contenders."
        )
    if not replay:
        check_sources(job.evaluate)
    if batch and not any(map(supports_batches, _backends_of(job).values())):
        batching_backend(job.backend)  # says which backends can
    if batch and deploy_seconds is not None:
        raise UserError(
            "--deploy and --batch are both given: a batch takes up to a day, and a deployment is "
            "paid by the hour meanwhile. Leave one of them out."
        )


def _backends_of(job: Job) -> dict[str, str]:
    """Return the backends that answer, by contender."""
    return {
        spec.name: spec.backend if isinstance(spec, Model) else job.backend
        for spec in job.evaluate.contenders
        if not isinstance(spec, Server | Recorded)
    }


def _foresight(job: Job, task: Task, *, batch: bool) -> Iterator[str]:
    """Yield what so many cases can show, and what no batch answers."""
    yield foresight(len(task.cases), job.evaluate.margin, graded=job.evaluate.graded)
    if not batch:
        return
    single = {
        name: f"{backend} does not answer in batches"
        for name, backend in _backends_of(job).items()
        if not supports_batches(backend)
    }
    servers = [spec.name for spec in job.evaluate.contenders if isinstance(spec, Server)]
    single |= dict.fromkeys(servers, "a server does not answer in batches")
    for name, why in single.items():
        yield f"Contender {name} takes single requests, at the full price: {why}."


def default_folder(comparison: Comparison) -> Path:
    """Return where `compare` writes when it is given no folder."""
    return _folder(comparison.job, comparison.run)


def _folder(job: str, run: str | None) -> Path:
    return home() / "runs" / run / EVALUATION if run else home() / "evaluations" / job


def _results_folder(out: str | os.PathLike[str] | None, job: str, run: str | None) -> Path:
    """Return the folder for the files, unless it holds results that are no comparison's."""
    if not out:
        make_home(home())
        folder = _folder(job, run)
        private_folder(folder)
        return folder
    folder = Path(out)
    if folder.is_symlink():
        raise UserError(
            f"{folder} is a symbolic link to {folder.readlink()}, and no results are written "
            "through one. Name the folder itself."
        )
    taken = [name for name in (*REPORTS, VERDICT) if (folder / name).exists()]
    if taken and not (folder / "rows.jsonl").exists():
        raise UserError(
            f"{folder / taken[0]} is of no comparison, and is not overwritten. Name another "
            "folder for the results."
        )
    return folder


def _tuned_run(resolved: ResolvedJob, run: Run | None, *, replay: bool) -> TunedRun | None:
    """Return the run that made the tuned model; None when every contender is prompted.

    A replay needs no ledger: None, too, where this ledger does not know the run.
    """
    job = resolved.job
    if any(isinstance(spec, Tuned) for spec in job.evaluate.contenders):
        from unitune.evaluate.prompts.tuned_run import find_tuned_run  # noqa: PLC0415 - the ledger

        try:
            return find_tuned_run(resolved, run)
        except NotFoundError:
            if run is None and replay:
                return None
            raise
    if run is not None:
        raise JobError(
            f"run {run.id} is to be judged, but no contender of job {job.name!r} is tuned. "
            "Add `tuned` to evaluate.contenders, or name no run."
        )
    return None


def _accept(job: Job, task: Task, comparison: Comparison) -> None:
    """Write the candidate's scores as the baseline file.

    Cases without a whole answer are left out: as zeros they would be gains of later candidates.
    """
    gate = job.evaluate.gate
    assert gate is not None
    assert gate.baseline is not None, "`requirements` sees to it"
    answers = {case.id: case.answers[comparison.candidate] for case in comparison.cases}
    answers = {case: answer for case, answer in answers.items() if answer.known}
    cases = [case for case in task.cases if case.case_id in answers]
    baseline.write(job.path(gate.baseline), task.primary, task.scorers, cases, answers)
