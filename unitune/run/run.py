"""Runs: launched once, found again from any process.

`launch` checks a job, writes down what it will do, and does it; `runs` and `find_run`
read the ledger. Files of a run stand in ``.unitune/runs/RUN/``: the job and the rows exactly as
they were uploaded. The job is in the ledger, too, so that other machines that share it can go on
with a run whose rows are uploaded.

What one can do with a run is in `unitune.run.handle`; how it gets from state to state without ever
making two jobs, in `unitune.run.launching`.
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
from typing import NamedTuple

from unitune.backends.formats import wire_text
from unitune.backends.launch_keys import run_id
from unitune.errors import (
    UnituneError,
    UnreadableRecord,
    UserError,
)
from unitune.job.contenders import NEWEST
from unitune.job.job import Job
from unitune.ledger import Ledger, RunRecord, budgeting
from unitune.ledger.finding import SHOWN_RUNS, find_record
from unitune.planning import saved
from unitune.planning.money import Money, money_of
from unitune.planning.plan import Plan, plan_of
from unitune.planning.preflight import ResolvedJob, preflight, refuse
from unitune.run import launching
from unitune.run.handle import Run
from unitune.run.launching import WIRE
from unitune.workspace.filesystem import private_folder, replacing
from unitune.workspace.home import artifact_folder, home, make_home

__all__ = ["SHOWN_RUNS", "Run", "find_run", "launch", "run_count", "runs"]


def launch(
    job: Job | ResolvedJob,
    *,
    budget: Decimal | float | None = None,
    allow_duplicate: bool = False,
    allow_unpriced: bool = False,
    plan: Plan | None = None,
) -> Run:
    """Start the training of a job, once, and return without waiting for its end.

    It is launched once even if this process is killed and the call is made again.

    Examples:
        >>> run = unitune.launch(job, budget=5).wait()
        >>> print(run.model.ask("Where is my parcel?"))

    Args:
        job: What to tune and how.
        budget: The most that the training may cost, in US dollars; None: as the job says.
        allow_duplicate: Train even if the same training is going on or done.
        allow_unpriced: Train even if its price is not known, whatever the budget says.
        plan: A saved one, which must still hold; its estimate is the most that may be spent.

    Returns:
        The run, whose job its backend now has (or, after a create call without an answer, may
        have: then the state is uncertain).

    Raises:
        UserError: The job is a sweep, whose runs `unitune.launch_sweep` launches.
        Unsupported: The backend cannot do what the job asks for.
        MissingExtra: The backend's packages are not installed.
        DataError: The data cannot be used.
        Leak: Test cases stand in training rows; what is learned could not be judged.
        Mismatch: Job, rows or prices are not those of the plan any more.
        OverBudget: It may cost more than a budget leaves, or its price is not known.
        DuplicateRunError: The same training is going on or done.
        UnituneError: The backend refused, and the run has failed; or did not answer.
    """
    resolved = preflight(job)
    if resolved.is_sweep:
        raise UserError(
            f"job {resolved.job.name!r} is a sweep of {len(resolved.runs)} runs (lists of "
            f"{', '.join(resolved.runs[0].settings)}): launch them with unitune.launch_sweep(job)."
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
    """Return what the launch is allowed to cost, as the ledger keeps it; None: nothing."""
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


class RunListing(NamedTuple):
    """Runs, newest first, and what stands in the ledger in place of others."""

    runs: list[Run]
    unreadable: list[UnreadableRecord]


def runs(limit: int | None = None, *, everywhere: bool = False) -> list[Run]:
    """Return the runs of the current project, the newest first; unreadable ones are logged.

    Args:
        limit: Limit, beyond which nothing is read; None for all.
        everywhere: Include the runs of all other projects in the ledger.
    """
    result = run_listing(limit, everywhere=everywhere)
    for problem in result.unreadable:
        logging.getLogger("unitune").warning("%s", problem)
    return result.runs


def run_listing(limit: int | None = None, *, everywhere: bool = False) -> RunListing:
    """Return runs as `runs` does, and those that cannot be read."""
    ledger = Ledger(home())
    records = ledger.newest(limit, everywhere=everywhere)
    return RunListing(
        [Run(ledger, record) for record in records if isinstance(record, RunRecord)],
        [problem for problem in records if isinstance(problem, UnreadableRecord)],
    )


def run_count(*, everywhere: bool = False) -> int:
    """Return the number of runs of the current project, or of all projects."""
    return Ledger(home()).run_count(everywhere=everywhere)


def find_run(name: str = NEWEST) -> Run:
    """Return a run by its id or an unambiguous beginning of it, or the newest.

    Args:
        name: Also a version of a registered model: ``triage:3``, or by its alias
            ``triage@production``.

    Raises:
        NotFoundError: No run's id begins so, or there is no such version.
        UserError: Several do, or there is none at all.
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
    """Return the rows of a launch by file name: canonical, and as the backend takes them."""
    job, splits = resolved.job, resolved.splits
    parts = {"train.jsonl": splits.train, "validation.jsonl": splits.validation}
    given = {name: rows for name, rows in parts.items() if len(rows)}
    files = {name: rows.jsonl for name, rows in given.items()}
    if form := resolved.terms.formats.get(job.method):
        wired = resolved.uploads.items()
        files |= {f"{WIRE}/{name}": wire_text(rows, form) for name, rows in wired}
    if redaction := resolved.rows.read.redaction:
        files["redaction.json"] = redaction.text  # stays here: uploads are named one by one
    return files


@contextmanager
def _files_of_a_recorded_run(ledger: Ledger, record: RunRecord) -> Generator[None]:
    """Leave no files behind of a run that the ledger does not get to know.

    It is read once before, so that a ledger that does not answer is noticed first. Where its last
    response is missing, the run may be on record, and then needs its files.
    """
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
    """Write what the launch uploads, before the run is on record.

    Returns:
        The text of the job file.
    """
    folder = ledger.run_folder(record.id)
    private_folder(folder)
    job.save(folder / "job.yaml")
    for name, text in files.items():
        private_folder((folder / name).parent)
        with replacing(folder / name) as file:
            file.write(text)
    return (folder / "job.yaml").read_text(encoding="utf-8")
