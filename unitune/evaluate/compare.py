"""Judging a job: its contenders asked the same cases, and the candidate against the best baseline.

`compare` is the whole way, each step a module of its own beside this one:

    splits ──► training   which run made the tuned model
           ──► task       cases and scorers; leaks refused
           ──► contenders who competes, with which prompts
           ──► examine    dev chooses prompts, then test; dev.jsonl and rows.jsonl
           ──► conclude   scores, statistics, verdict, gate
           ──► files      verdict.json and report.html

Killed at any moment, the same call goes on where it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from unitune import registry
from unitune.data.split import Splits, load_splits
from unitune.deploying import answering, standing
from unitune.errors import JobError, UserError
from unitune.evaluate.batchcreate import batching_backend
from unitune.evaluate.conclude import conclude
from unitune.evaluate.contenders import build, check_roles
from unitune.evaluate.engine import Asked
from unitune.evaluate.examine import Examination, Notify, examine
from unitune.evaluate.results import Comparison
from unitune.evaluate.sample_size import foresight
from unitune.evaluate.task import prepare
from unitune.evaluate.training import describe, run_under_test
from unitune.feasibility import on_its_own_name
from unitune.home import home, make_home
from unitune.job import Job, Tuned
from unitune.run import Run


def compare(  # noqa: PLR0913 - each has a name and a default
    job: Job,
    run: Run | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    deploy_seconds: float | None = None,
    batch: bool = False,
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
        batch: Have test cases answered in batches, where the backend can: within a day, for about
            half the price. The same call collects what an earlier one handed in.
        progress: Called as answers come; with batches about once a second, too.
        announce: Called once, before any question is asked, with what so many cases can show.

    Returns:
        Scores, intervals, verdict and gate, with every case.

    Raises:
        JobError: The job has no test cases, or its contenders cannot be compared.
        UnknownName: No run is named, and none succeeded.
        DataError: Cases cannot be told apart, or an expected answer cannot be read.
        Leak: Test cases stand in training rows.
        Mismatch: The tuned model does not belong to the job's base.
        UserError: It answers only from a deployment, and none stands; or one is to be brought up
            for batches.
        Unsupported: The backend does not answer in batches.
        BackendError: Candidate or baseline gave no answer at all, or a batch has failed.
        Interrupted: The user pressed Ctrl-C; the same call goes on.
    """
    check_roles(job.evaluate.contenders)
    if batch:
        _check_batches(job.backend, deploy_seconds)
    job = on_its_own_name(job, registry.offer(job.backend))
    splits = load_splits(job)
    tuned = _tuned_by(job, splits, run)
    training = describe(job, splits, tuned) if tuned else None
    contenders = build(job.evaluate, job.tuning, splits.train)
    task = prepare(job, splits, training.rows if training else ())
    if announce is not None:
        announce(foresight(len(task.cases), job.evaluate.margin))
    with standing(tuned, deploy_seconds) if tuned and deploy_seconds else nullcontext():
        examination = Examination(
            backend=job.backend,
            base=job.base_model,
            tuned=answering(tuned) if tuned else None,
            contenders=contenders,
            task=task,
            folder=Path(out) if out else _made_folder(job.name, training.run if training else None),
            job_folder=job.folder,
            batch=batch,
        )
        answered = examine(examination, progress or _tell_nobody)
    comparison = conclude(job, task, answered, training)
    _write(comparison, examination.folder)
    return comparison


def _check_batches(backend: str, deploy_seconds: float | None) -> None:
    """Refuse batches where there are none, or where a deployment would be paid while they last."""
    batching_backend(backend)
    if deploy_seconds is not None:
        raise UserError(
            "--deploy and --batch are both given: a batch takes up to a day, and a deployment is "
            "paid by the hour meanwhile. Leave one of them out."
        )


def default_folder(comparison: Comparison) -> Path:
    """Return where `compare` writes when it is given no folder."""
    return _folder(comparison.job, comparison.run)


def _folder(job: str, run: str | None) -> Path:
    return home() / "runs" / run / "evaluation" if run else home() / "evaluations" / job


def _made_folder(job: str, run: str | None) -> Path:
    make_home(home())
    return _folder(job, run)


def _tuned_by(job: Job, splits: Splits, run: Run | None) -> Run | None:
    """Return the run that made the tuned model; None when every contender is prompted."""
    if any(isinstance(spec, Tuned) for spec in job.evaluate.contenders):
        return run_under_test(job, splits, run)
    if run is not None:
        raise JobError(
            f"run {run.id} is to be judged, but no contender of job {job.name!r} is tuned. "
            "Add `tuned` to evaluate.contenders, or name no run."
        )
    return None


def _tell_nobody(_: Asked) -> None:
    pass


def _write(comparison: Comparison, folder: Path) -> None:
    from unitune.report.html import render  # noqa: PLC0415 - the one look ahead; needs Jinja2

    _replace(folder / "verdict.json", comparison.verdict_json())
    _replace(folder / "report.html", render(comparison))


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
