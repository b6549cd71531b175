"""Launch runs once and find them from any process.

`launch` checks a job, records what it will do, and does it; `runs` and `find_run` read the ledger.
The files of a run are in ``.unitune/runs/RUN/``: the job and the rows exactly as uploaded. The
ledger has the job too, so other machines that share it can continue a run whose rows are uploaded.
"""

from __future__ import annotations

import logging
import shutil
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal

from unitune.backends.formats import wire_text
from unitune.backends.launch_keys import run_id
from unitune.errors import (
    UnituneError,
    UserError,
)
from unitune.files.filesystem import private_folder, replacing
from unitune.job.contenders import NEWEST
from unitune.job.job import Job
from unitune.ledger import Ledger, RunRecord, budgeting
from unitune.ledger.finding import find_record
from unitune.planning import saved
from unitune.planning.money import Money, money_of
from unitune.planning.plan import Plan, plan_of
from unitune.planning.preflight import ResolvedJob, preflight, refuse
from unitune.run import launching
from unitune.run.handle import Run
from unitune.run.launching import WIRE
from unitune.workspace.home import artifact_folder, home, make_home

__all__ = ["Run", "find_run", "launch", "runs"]


def launch(
    job: Job | ResolvedJob,
    *,
    budget: Decimal | float | None = None,
    allow_duplicate: bool = False,
    allow_unpriced: bool = False,
    plan: Plan | None = None,
) -> Run:
    """Start the training of a job once, and return without waiting for its end.

    It is launched only once, even if this process is killed and the call is repeated.

    Examples:
        >>> run = unitune.launch(job, budget=5).wait()
        >>> print(run.model.ask("Where is my parcel?"))

    Args:
        job: Job to launch.
        budget: Maximum cost of the training in US dollars; None for the job's own.
        allow_duplicate: Train even if the same training is running or done.
        allow_unpriced: Train even if the price is unknown, whatever the budget.
        plan: A saved plan, which must still hold; its estimate limits the cost.

    Returns:
        The run. Its backend has the job; after a create call without an answer, the state is
        uncertain.

    Raises:
        UserError: The job is a sweep; use `unitune.launch_sweep`.
        Unsupported: The backend does not support the job.
        MissingExtra: The backend's packages are not installed.
        DataError: The data cannot be used.
        Leak: Test cases are in the training rows, so the model could not be evaluated.
        Mismatch: Job, rows or prices have changed since the plan.
        OverBudget: The cost may exceed a budget, or the price is unknown.
        DuplicateRunError: The same training is running or done.
        UnituneError: The backend refused, so the run failed, or it did not answer.
    """
    resolved = preflight(job)
    if resolved.is_sweep:
        raise UserError(
            f"job {resolved.job.name!r} is a sweep of {len(resolved.runs)} runs (lists of "
            f"{', '.join(resolved.runs[0].settings)}). Launch it with unitune.launch_sweep(job)."
        )
    if budget is not None:
        resolved = replace(resolved, job=resolved.job.with_budget(Decimal(str(budget))))
    money = money_of(resolved.job, unpriced=allow_unpriced)
    made = plan_of(resolved, money)
    if plan is not None and made.bound is not None:
        saved.refuse_changes(plan, made)
    refuse(made.findings)
    _ = resolved.backend  # a missing package is an error before anything is written or sent
    files = _files(resolved)
    ledger = Ledger(home())
    record = _planned(resolved)
    approval = _approval(resolved, made, money, plan)
    with _files_of_a_recorded_run(ledger, record):
        text = _write_files(ledger, record, resolved.job, files)
        ledger.add(record, job=text, approval=approval, again=allow_duplicate)
    with ledger.acting(record.id) as planned:
        return Run(ledger, launching.advance(ledger, planned))


def _approval(resolved: ResolvedJob, made: Plan, money: Money, plan: Plan | None) -> str | None:
    if made.estimate is None or made.bound is None:
        return None
    job, book, usd = resolved.job, resolved.book, made.estimate.launch_usd
    allowed = [job.budget.usd] if job.budget else []
    allowed += [usd.high] if plan and usd else []
    return budgeting.Approval(
        estimate=made.estimate,
        files=made.bound.files,
        budget_usd=min(allowed, default=None),
        hours=job.budget and job.budget.hours,
        project=money.project,
        own_prices=tuple(row for row in book.own if row.backend == job.backend),
        discount=book.discounts.get(job.backend),
        unpriced=money.unpriced,
    ).model_dump_json()


def runs(limit: int | None = None, *, everywhere: bool = False) -> list[Run]:
    """Return the runs of the current project, the newest first; unreadable ones are logged.

    Args:
        limit: Limit, beyond which nothing is read; None for all.
        everywhere: Include the runs of all other projects in the ledger.
    """
    ledger, listed = Ledger(home()), list[Run]()
    for record in ledger.newest(limit, everywhere=everywhere):
        if isinstance(record, RunRecord):
            listed.append(Run(ledger, record))
        else:
            logging.getLogger("unitune").warning("%s", record)
    return listed


def find_run(name: str = NEWEST) -> Run:
    """Return a run by its id or an unambiguous prefix; by default the newest run.

    Args:
        name: Id, prefix, or version of a registered model: ``triage:3`` or ``triage@production``.

    Raises:
        NotFoundError: No run or version has this name.
        UserError: Several runs match, or there are no runs.
    """
    ledger = Ledger(home())
    return Run(ledger, find_record(ledger, name))


def _planned(resolved: ResolvedJob) -> RunRecord:
    now, job = time.time(), resolved.job
    return RunRecord(
        id=run_id(now),
        name=f"{job.name} {resolved.setting}".strip(),
        backend=job.backend,
        base_model=job.base_model,
        method=job.method,
        fingerprint=resolved.fingerprint,
        created=now,
        updated=now,
        host=socket.gethostname(),
        start=resolved.start,
    )


def _files(resolved: ResolvedJob) -> dict[str, str]:
    """Return the rows of a launch by file name, canonical and in the backend's format."""
    job, splits = resolved.job, resolved.splits
    parts = {"train.jsonl": splits.train, "validation.jsonl": splits.validation}
    given = {name: rows for name, rows in parts.items() if len(rows)}
    files = {name: rows.jsonl for name, rows in given.items()}
    if form := resolved.terms.formats.get(job.method):
        wired = resolved.uploads.items()
        files |= {f"{WIRE}/{name}": wire_text(rows, form) for name, rows in wired}
    if redaction := resolved.rows.read.redaction:
        files["redaction.json"] = redaction.text  # not uploaded: uploads are listed one by one
    return files


@contextmanager
def _files_of_a_recorded_run(ledger: Ledger, record: RunRecord) -> Generator[None]:
    """Delete the run's files if the ledger, which is read first, does not record the run."""
    make_home(ledger.folder)
    artifact_folder("runs")
    ledger.now()
    try:
        yield
    except BaseException:
        if not _may_be_recorded(ledger, record):
            shutil.rmtree(ledger.run_folder(record.id), ignore_errors=True)
        raise


def _may_be_recorded(ledger: Ledger, record: RunRecord) -> bool:
    try:
        return record.id in ledger.run_ids(record.id)
    except UnituneError:
        return True


def _write_files(ledger: Ledger, record: RunRecord, job: Job, files: dict[str, str]) -> str:
    folder = ledger.run_folder(record.id)
    private_folder(folder)
    job.save(folder / "job.yaml")
    for name, text in files.items():
        private_folder((folder / name).parent)
        with replacing(folder / name) as file:
            file.write(text)
    return (folder / "job.yaml").read_text(encoding="utf-8")
