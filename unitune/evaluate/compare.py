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
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
from unitune.evaluate.inference.journal import open_journal
from unitune.evaluate.inference.pricing import AnswerPrices, answer_prices
from unitune.evaluate.inference.sources import check_sources
from unitune.evaluate.prompts.build import build, check_roles, needs_train
from unitune.evaluate.prompts.training import check_prompts
from unitune.evaluate.responses import EvaluationConfig, EvaluationResponses
from unitune.evaluate.results import REPORTS, VERDICT, Comparison
from unitune.evaluate.runner import Notify, collect_responses
from unitune.evaluate.statistics.sample_size import foresight
from unitune.evaluate.task import Task, prepare
from unitune.job.contenders import Model, Recorded, Server, Tuned
from unitune.job.job import Job
from unitune.planning.preflight import ResolvedJob, preflight
from unitune.workspace.filesystem import private_folder, replacing
from unitune.workspace.home import EVALUATION, home, make_home

if TYPE_CHECKING:
    from unitune.evaluate.prompts.training import Training
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
        deploy_seconds: Where the tuned model answers only from a deployment and none stands: start
            one for so long at most, and end it afterwards. It costs money.
        deploy_options: The backend's own for that deployment: hardware, capacity, …
        batch: Have test cases answered in batches, wherever a contender's backend can: within a
            day, for about half the price. The same call collects what an earlier one submitted.
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
        Interrupted: The user pressed Ctrl-C; the same call goes on.
    """
    resolved = preflight(job)
    job = resolved.job
    _check(job, run, deploy_seconds, batch=batch, replay=replay)
    splits = resolved.splits
    tuned = _known_here(resolved, run) if replay else _tuned_by(resolved, run)
    training = tuned and tuned.training
    contenders = build(job.evaluate, job.tuning, splits.train)
    prices = answer_prices(job, resolved.book, allow_unpriced=allow_unpriced or replay)
    budget = Budget(job.evaluate.budget.usd if job.evaluate.budget else None)
    guard = ScorerBudget(budget, prices.scorers)
    task = _task(resolved, training, prices, guard, replay=replay)
    required = requirements(job, task, accepting=update_baseline)
    for sentence in _foresight(job, task, batch=batch):
        (announce or _ignore)(sentence)
    run_id = training.run if training else None
    folder = _given_folder(out) if out else _made_folder(job.name, run_id)
    config = EvaluationConfig(
        job=job,
        contenders=contenders,
        task=task,
        folder=folder,
        prices=prices,
        budget=budget,
        training=_training_fingerprint(resolved, training),
        batch=batch,
        replay=replay,
        use_cache=use_cache,
        announce=announce,
    )
    hosting = _hosting(config, deploy_seconds, unpriced=allow_unpriced)
    with _paid_before(guard, folder):
        standing = _standing(tuned, deploy_seconds, hosting, deploy_options)
        responses = _responses(config, tuned, standing, progress or _ignore)
        comparison = conclude(job, task, responses, training, required)
    if update_baseline and comparison.exit_code == 0:
        _accept(job, task, comparison)
    with replacing(folder / VERDICT) as file:
        file.write(comparison.verdict_json())
    return comparison


def _task(
    resolved: ResolvedJob,
    training: Training | None,
    prices: AnswerPrices,
    guard: ScorerBudget,
    *,
    replay: bool,
) -> Task:
    """Return the cases, none of which the tuned model may have seen, with their scorers."""
    rows = training.rows if training else ()
    task = prepare(resolved, rows, prices.contenders, paid=guard, replay=replay)
    if training:
        check_prompts(resolved.job, training.rows or (resolved.splits.train,), task.cases)
    return task


def _responses(
    config: EvaluationConfig,
    tuned: TunedRun | None,
    standing: AbstractContextManager[Decimal],
    progress: Notify,
) -> EvaluationResponses:
    """Collect all answers while the tuned model's deployment stands, where it needs one."""
    with standing as most:
        config.budget.spent += most
        if tuned and not config.replay:
            config = replace(config, tuned=tuned.model())
        return collect_responses(config, progress)


def _standing(
    tuned: TunedRun | None,
    seconds: float | None,
    budget: HostingBudget,
    options: Mapping[str, JsonValue] | None,
) -> AbstractContextManager[Decimal]:
    return tuned.standing(seconds, budget, options) if tuned else nullcontext(Decimal(0))


def _check(
    job: Job, run: Run | None, deploy_seconds: float | None, *, batch: bool, replay: bool
) -> None:
    """Refuse what needs no rows, no ledger and no prices to be refused."""
    check_roles(job.evaluate.contenders)
    _check_train(job, run)
    if not replay:
        check_sources(job.evaluate)
    if batch:
        _check_batches(job, deploy_seconds)


def _check_train(job: Job, run: Run | None) -> None:
    """Refuse contenders that are made from training rows where the job names none."""
    if job.data.train is not None:
        return
    made_from_train = [
        spec.name
        for spec in job.evaluate.contenders
        if needs_train(spec, job.evaluate) or (isinstance(spec, Tuned) and run is None)
    ]
    if made_from_train:
        raise JobError(
            f"job {job.name!r} names no training rows, and {', '.join(made_from_train)} "
            "cannot be made without. Set data.train, or leave them out of evaluate.contenders."
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
        yield f"Contender {name} is asked one question at a time, at the full price: {why}."


def _check_batches(job: Job, deploy_seconds: float | None) -> None:
    """Refuse batches where there are none, or where a deployment would be paid while they last."""
    if not any(map(supports_batches, _backends_of(job).values())):
        batching_backend(job.backend)
    if deploy_seconds is not None:
        raise UserError(
            "--deploy and --batch are both given: a batch takes up to a day, and a deployment is "
            "paid by the hour meanwhile. Leave one of them out."
        )


def default_folder(comparison: Comparison) -> Path:
    """Return where `compare` writes when it is given no folder."""
    return _folder(comparison.job, comparison.run)


def _folder(job: str, run: str | None) -> Path:
    return home() / "runs" / run / EVALUATION if run else home() / "evaluations" / job


def _made_folder(job: str, run: str | None) -> Path:
    make_home(home())
    folder = _folder(job, run)
    private_folder(folder)
    return folder


def _given_folder(out: str | os.PathLike[str]) -> Path:
    """Return the folder for the files, unless one of them there is somebody else's."""
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


def _tuned_by(resolved: ResolvedJob, run: Run | None) -> TunedRun | None:
    """Return the run that made the tuned model; None when every contender is prompted."""
    job = resolved.job
    if any(isinstance(spec, Tuned) for spec in job.evaluate.contenders):
        from unitune.evaluate.prompts.tuned_run import find_tuned_run  # noqa: PLC0415 - loads the ledger

        return find_tuned_run(resolved, run)
    if run is not None:
        raise JobError(
            f"run {run.id} is to be judged, but no contender of job {job.name!r} is tuned. "
            "Add `tuned` to evaluate.contenders, or name no run."
        )
    return None


def _known_here(resolved: ResolvedJob, run: Run | None) -> TunedRun | None:
    """Return the run behind recorded answers, where this ledger knows it."""
    try:
        return _tuned_by(resolved, run)
    except NotFoundError:
        if run is not None:
            raise
        return None


def _training_fingerprint(resolved: ResolvedJob, training: Training | None) -> str:
    """Return which training the tuned model must be of; empty where no contender is tuned."""
    if training is not None:
        return training.fingerprint
    tuned = any(isinstance(spec, Tuned) for spec in resolved.job.evaluate.contenders)
    return resolved.fingerprint if tuned else ""


@contextmanager
def _paid_before(guard: ScorerBudget, folder: Path) -> Generator[None]:
    """Count what scorers asked in earlier calls, and keep what they ask while the body runs."""
    if not guard.prices:
        yield
        return
    with open_journal(folder / "scoring.jsonl") as journal:
        guard.budget.charge(journal, guard.prices)
        guard.journal = journal
        yield


def _hosting(config: EvaluationConfig, seconds: float | None, *, unpriced: bool) -> HostingBudget:
    """Return what a deployment may cost that is started for the comparison: what is left."""
    cap, prices = config.budget.cap, config.prices
    if seconds is None or cap is None:
        return HostingBudget(unpriced=unpriced)
    before = Budget(None)
    files = {
        "dev": prices.contenders,
        "rows": prices.contenders,
        "probes": prices.retention,
        "scoring": prices.scorers,
    }
    for name, theirs in files.items():
        path = config.folder / f"{name}.jsonl"
        if path.exists():
            with open_journal(path) as journal:
                before.charge(journal, theirs)
    return HostingBudget(max(Decimal(0), cap - before.spent), unpriced)


def _ignore(_: object) -> None:
    pass


def _accept(job: Job, task: Task, comparison: Comparison) -> None:
    """Write the candidate's scores as the baseline file.

    What has no whole answer is left out: as a zero it would be a gain of every later candidate.
    """
    given = {case.id: case.answers[comparison.candidate] for case in comparison.cases}
    answers = {case: answer for case, answer in given.items() if answer.known}
    cases = [case for case in task.cases if case.case_id in answers]
    baseline.write(_baseline_file(job), task.primary, task.scorers, cases, answers)


def _baseline_file(job: Job) -> Path:
    gate = job.evaluate.gate
    assert gate is not None
    assert gate.baseline is not None, "`requirements` sees to it"
    return job.path(gate.baseline)
