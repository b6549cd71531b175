"""Judging a job: its contenders asked the same cases, and the candidate against the best baseline.

`compare` is the whole way, each step a module of its own beside this one:

    splits ──► under_test which run made the tuned model
           ──► task       cases and scorers; leaks refused
           ──► contenders who competes, with which prompts
           ──► examine    dev chooses prompts, then test; dev.jsonl and rows.jsonl
           ──► conclude   scores, statistics, verdict, gate
           ──► files      verdict.json, report.html, summary.md and junit.xml

Killed at any moment, the same call goes on where it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from unitune.backends import registry
from unitune.cost.budget import HostingBudget
from unitune.cost.prices.book import book_for
from unitune.data.split import Splits, load_splits
from unitune.errors import JobError, UnknownName, UserError
from unitune.evaluate import baseline
from unitune.evaluate.conclude import conclude
from unitune.evaluate.evidence import requirements
from unitune.evaluate.inference.batch_submit import batching_backend, supports_batches
from unitune.evaluate.inference.budget import Budget, ScorerBudget
from unitune.evaluate.inference.engine import EvaluationProgress
from unitune.evaluate.inference.journal import open_journal
from unitune.evaluate.inference.pricing import AnswerPrices, answer_prices
from unitune.evaluate.inference.sources import check_sources
from unitune.evaluate.prompts.build import build, check_roles, needs_train
from unitune.evaluate.prompts.training import check_prompts
from unitune.evaluate.responses import EvaluationConfig
from unitune.evaluate.results import Comparison
from unitune.evaluate.runner import Notify, collect_responses
from unitune.evaluate.statistics.sample_size import foresight
from unitune.evaluate.task import Task, prepare
from unitune.job.contenders import Model, Recorded, Server, Tuned
from unitune.job.job import Job
from unitune.planning.feasibility import on_its_own_name
from unitune.workspace.filesystem import private_folder
from unitune.workspace.home import EVALUATION, home, make_home

if TYPE_CHECKING:
    from unitune.evaluate.prompts.training import Training
    from unitune.evaluate.prompts.tuned_run import TunedRun
    from unitune.runs.run import Run


def compare(  # noqa: PLR0913 - each has a name and a default
    job: Job,
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
        deploy_seconds: Where the tuned model answers only from a deployment and none stands: bring
            one up for so long at most, and take it down at the end. It costs money.
        deploy_options: The backend's own for that deployment: hardware, capacity, …
        batch: Have test cases answered in batches, wherever a contender's backend can: within a
            day, for about half the price. The same call collects what an earlier one handed in.
        replay: Judge by the answers that are recorded in the folder, and ask nobody: at no cost,
            without keys, without the ledger that knows the run.
        use_cache: Take answers that the same model gave in any comparison of this ledger's folder
            to the same request. A vendor may have changed a model under its name since.
        update_baseline: Make the candidate's scores the gate's baseline file, if it passes whatever
            else the gate asks.
        allow_unpriced: Ask although a price is unknown or old; what has none is in no budget.
        progress: Called as answers come; with batches about once a second, too.
        announce: Called before any question is asked, with what so many cases can show, and with
            what no batch can answer.

    Returns:
        Scores, intervals, verdict and gate, with every case.

    Raises:
        JobError: The job has no test cases, its contenders cannot be compared, or the gate's
            baseline file is not there.
        UnknownName: No run is named, and none succeeded; or the gate pins no case of the test.
        DataError: Cases cannot be told apart, or an expected answer cannot be read.
        Leak: Test cases stand in training rows.
        Mismatch: The tuned model does not belong to the job's base, the cases not to the prompt
            that it was trained with, or the baseline file not to these cases; or, on replay, cases,
            prompts, models or the training have changed since they were answered.
        OverBudget: The answers may cost more than `evaluate.budget`, and those that came are kept;
            or a price is unknown that the budget needs, or the deployment costs more than is left.
        UserError: It answers only from a deployment, and none stands; or one is to be brought up
            for batches.
        Unsupported: The backend does not answer in batches.
        BackendError: Candidate or baseline gave no answer at all, or a batch has failed.
        Interrupted: The user pressed Ctrl-C; the same call goes on.
    """
    check_roles(job.evaluate.contenders)
    _check_train(job, run)
    if not replay:
        check_sources(job.evaluate)
    if batch:
        _check_batches(job, deploy_seconds)
    offer = registry.offer(job.backend)
    job = on_its_own_name(job, offer)
    splits = load_splits(job)
    tuned = _known_here(job, splits, run) if replay else _tuned_by(job, splits, run)
    training = tuned and tuned.training
    contenders = build(job.evaluate, job.tuning, splits.train)
    prices = answer_prices(job, book_for(job), allow_unpriced=allow_unpriced or replay)
    budget = Budget(job.evaluate.budget.usd if job.evaluate.budget else None)
    guard = ScorerBudget(budget, prices.scorers)
    rows = training.rows if training else ()
    task = prepare(job, splits, rows, prices.contenders, paid=guard, replay=replay)
    if training:
        check_prompts(job, training.rows or (splits.train,), task.cases)
    asked = requirements(job, task, accepting=update_baseline)
    if update_baseline:
        baseline.check_replaceable(_baseline_file(job))
    if announce is not None:
        announce(foresight(len(task.cases), job.evaluate.margin, graded=job.evaluate.graded))
    if announce is not None and batch:
        for line in _asked_singly(job):
            announce(line)
    run_id = training.run if training else None
    folder = _given_folder(out) if out else _made_folder(job.name, run_id)
    hosting = HostingBudget(unpriced=allow_unpriced)
    if deploy_seconds is not None:
        hosting = _hosting(budget, prices, folder, unpriced=allow_unpriced)
    with _paid_before(guard, folder):
        with (
            tuned.standing(deploy_seconds, hosting, deploy_options)
            if tuned
            else nullcontext(Decimal(0)) as most
        ):
            budget.spent += most
            config = EvaluationConfig(
                job=job,
                contenders=contenders,
                task=task,
                folder=folder,
                prices=prices,
                budget=budget,
                tuned=tuned.model() if tuned and not replay else None,
                training=_training_fingerprint(job, splits, training),
                batch=batch,
                replay=replay,
                use_cache=use_cache,
                announce=announce,
            )
            responses = collect_responses(config, progress or _tell_nobody)
        comparison = conclude(job, task, responses, training, asked)
    if update_baseline and comparison.exit_code == 0:
        _accept(job, task, comparison)
    _write(comparison, config.folder)
    return comparison


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


def _asked_singly(job: Job) -> list[str]:
    """Return, for each contender that no batch answers, a sentence that says so."""
    hosted = {
        name: f"{backend} does not answer in batches"
        for name, backend in _backends_of(job).items()
        if not supports_batches(backend)
    }
    servers = {
        spec.name: "a server does not answer in batches"
        for spec in job.evaluate.contenders
        if isinstance(spec, Server)
    }
    return [
        f"Contender {name} is asked one question at a time, at the full price: {why}."
        for name, why in (hosted | servers).items()
    ]


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
    from unitune.report.files import NAMES  # noqa: PLC0415 - as in `_write`

    folder = Path(out)
    if folder.is_symlink():
        raise UserError(
            f"{folder} is a symbolic link to {folder.readlink()}, and no results are written "
            "through one. Name the folder itself."
        )
    taken = [name for name in NAMES if (folder / name).exists()]
    if taken and not (folder / "rows.jsonl").exists():
        raise UserError(
            f"{folder / taken[0]} is of no comparison, and is not overwritten. Name another "
            "folder for the results."
        )
    return folder


def _tuned_by(job: Job, splits: Splits, run: Run | None) -> TunedRun | None:
    """Return the run that made the tuned model; None when every contender is prompted."""
    if any(isinstance(spec, Tuned) for spec in job.evaluate.contenders):
        from unitune.evaluate.prompts.tuned_run import find_tuned_run  # noqa: PLC0415 - loads the ledger

        return find_tuned_run(job, splits, run)
    if run is not None:
        raise JobError(
            f"run {run.id} is to be judged, but no contender of job {job.name!r} is tuned. "
            "Add `tuned` to evaluate.contenders, or name no run."
        )
    return None


def _known_here(job: Job, splits: Splits, run: Run | None) -> TunedRun | None:
    """Return the run behind recorded answers, where this ledger knows it."""
    try:
        return _tuned_by(job, splits, run)
    except UnknownName:
        if run is not None:
            raise
        return None


def _training_fingerprint(job: Job, splits: Splits, training: Training | None) -> str:
    """Return which training the tuned model must be of; empty where no contender is tuned."""
    if training is not None:
        return training.fingerprint
    if not any(isinstance(spec, Tuned) for spec in job.evaluate.contenders):
        return ""
    from unitune.runs.run import training_fingerprint  # noqa: PLC0415 - loads the ledger

    return training_fingerprint(job, splits)


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


def _hosting(
    budget: Budget, prices: AnswerPrices, folder: Path, *, unpriced: bool
) -> HostingBudget:
    """Return what a deployment may cost that is brought up for the comparison: what is left."""
    if budget.cap is None:
        return HostingBudget(unpriced=unpriced)
    before = Budget(None)
    files = {
        "dev": prices.contenders,
        "rows": prices.contenders,
        "probes": prices.retention,
        "scoring": prices.scorers,
    }
    for name, theirs in files.items():
        path = folder / f"{name}.jsonl"
        if path.exists():
            with open_journal(path) as journal:
                before.charge(journal, theirs)
    return HostingBudget(max(Decimal(0), budget.cap - before.spent), unpriced)


def _tell_nobody(_: EvaluationProgress) -> None:
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


def _write(comparison: Comparison, folder: Path) -> None:
    from unitune.report.files import write  # noqa: PLC0415 - the one look ahead; needs Jinja2

    write(comparison, folder)
