"""Launch runs once and find them from any process.

`launch` checks a job, records what it will do, and does it; `runs` and `find_run` read the ledger.
The files of a run are in ``.unitune/runs/RUN/``: the job and the rows exactly as uploaded. The
ledger has the job too, so other machines that share it can continue a run whose rows are uploaded.

The total cost of a sweep is checked against every budget before its first launch. Each run gets a
share of the job's budget in proportion to its maximum cost. Runs that are running or done are not
launched again, so repeating the call continues where a killed one stopped.
"""

from __future__ import annotations

import logging
import shutil
import socket
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import ROUND_FLOOR, Decimal

from unitune.backends.exactly_once import run_id
from unitune.backends.formats import wire_text
from unitune.backends.protocol import State
from unitune.cost.spread import CENT
from unitune.errors import DuplicateRunError, UnituneError, UserError
from unitune.files.filesystem import private_folder, replacing
from unitune.job.contenders import NEWEST
from unitune.job.job import Job, TrainingBudget
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
        UserError: Several runs match, or none.
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


def launch_sweep(
    job: Job | ResolvedJob,
    *,
    budget: Decimal | float | None = None,
    allow_duplicate: bool = False,
    allow_unpriced: bool = False,
    plan: Plan | None = None,
) -> Iterator[Run]:
    """Launch the runs of a sweep, one for each combination of its values, each once.

    Everything that would be refused is refused before the first launch. Existing runs are returned,
    interrupted launches finished, paused trainings resumed, and failed runs launched again.

    Examples:
        >>> runs = list(unitune.launch_sweep(job, budget=20))
        >>> print(unitune.compare(job).verdict)  # compares the run that is best on validation rows

    Args:
        job: Job with lists of values under `tuning`; without lists, its only run is launched.
        budget: Maximum cost of all runs together, in US dollars; None for the job's own.
        allow_duplicate: Launch every run again, even if it exists.
        allow_unpriced: Train even if prices are unknown, whatever the budget.
        plan: A saved plan, which must still hold.

    Returns:
        The launched runs, in the order of the lists, the last changing fastest. On this
        machine, each is launched when the previous one is at rest.

    Raises:
        UnituneError: As in `unitune.launch`.
    """
    resolved = preflight(job)
    if budget is not None:
        resolved = replace(resolved, job=resolved.job.with_budget(Decimal(str(budget))))
    made = plan_of(resolved, money_of(resolved.job, unpriced=allow_unpriced))
    if plan is not None and made.bound is not None:
        saved.refuse_changes(plan, made)
    refuse(made.findings)
    return _launched(
        _with_shares(resolved, made, plan),
        here=resolved.offer.trains_here,
        allow_duplicate=allow_duplicate,
        allow_unpriced=allow_unpriced,
    )


def _launched(
    runs: Iterable[ResolvedJob], *, here: bool, allow_duplicate: bool, allow_unpriced: bool
) -> Iterator[Run]:
    earlier: Run | None = None
    for each in runs:
        for _ in earlier.watch() if earlier and here else ():
            pass
        try:
            earlier = launch(each, allow_duplicate=allow_duplicate, allow_unpriced=allow_unpriced)
        except DuplicateRunError as duplicate:
            earlier = find_run(duplicate.run_id)
            if here:
                earlier.refresh()  # its worker may have died with its launcher
            if earlier.interrupted or earlier.state is State.PAUSED:
                earlier.resume()
        yield earlier


def _with_shares(resolved: ResolvedJob, made: Plan, plan: Plan | None) -> Iterator[ResolvedJob]:
    """Yield the job of each run with its share of the budget and of a saved plan's estimate.

    A share is at least the maximum cost of its run; if that is unknown, all shares are equal.
    """
    budget, saved_usd = resolved.job.budget, plan and plan.estimate and plan.estimate.launch_usd
    limits = [budget.usd] if budget else []
    limits += [saved_usd.high] if saved_usd else []
    if not limits or not made.runs:
        yield from resolved.runs
        return
    whole, hours = min(limits), budget and budget.hours
    usd = [each.estimate and each.estimate.launch_usd for each in made.runs]
    highs = [each.high for each in usd if each is not None]
    is_known = len(highs) == len(usd) and sum(highs) > 0
    for at, run in enumerate(resolved.runs):
        least = highs[at] if is_known else Decimal(0)
        share = whole * least / sum(highs) if is_known else whole / len(usd)
        part = TrainingBudget(usd=max(least, share.quantize(CENT, ROUND_FLOOR)), hours=hours)
        yield replace(run, job=run.job.model_copy(update={"budget": part}))
