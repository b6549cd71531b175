"""Move a run from state to state so that its backend gets exactly one job.

Each function takes the ledger and a record and returns the current record. The caller holds the
run's lease (`Ledger.acting`). Every state is recorded before it is acted on, so the record of a
process that dies shows how far it may have come:

    planned, uploading   nothing was created: continue (uploads are found by their hash)
    submitting           the create call may have been sent: search for the launch key first
    uncertain            only the user can know: `adopt` or `attempt_again`
    others               there is a job: `poll`
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path

from pydantic import JsonValue

from unitune.backends import registry
from unitune.backends.capabilities import Pauses
from unitune.backends.protocol import Event, State
from unitune.backends.retry import retry_rate_limited
from unitune.errors import (
    BackendError,
    Interrupted,
    UnituneError,
    Unreachable,
    Unsupported,
    UserError,
)
from unitune.ledger import Ledger, RunRecord, budgeting
from unitune.ledger.metering import billing_events
from unitune.models import TunedModel
from unitune.observability.logs import Log
from unitune.run.creating import adopt_named, cancel_submit, create, events_of_poll, search_again

log = Log(__name__)
# States in which the backend may have no job yet
BEFORE_JOB = (State.PLANNED, State.UPLOADING, State.SUBMITTING)
# How long a rate-limited poll is retried; other processes may act on the run after that
POLL_SECONDS = 10.0
UPLOAD_SECONDS = 120.0  # how long a rate-limited upload is retried
# Folder for the run's rows in the backend's own format, if that is not canonical
WIRE = "wire"
OVERRUN = "run.over_budget"  # key of the event that explains why a run was cancelled for its cost


def advance(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Continue a run until its backend has exactly one job.

    Raises:
        Unreachable: The backend did not answer; `advance` can be called again.
        Interrupted: The user pressed Ctrl-C; `advance` can be called again.
        UnituneError: The backend refused; the run has failed, unless it was rate-limited.
    """
    resume = f"`unitune runs resume {record.id}`"
    try:
        return _advance(ledger, record)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted while launching run {record.id}. Its progress is recorded: {resume} "
            f"continues and `unitune runs cancel {record.id}` cancels it."
        ) from None
    except BackendError as error:
        if error.is_rate_limited:
            raise BackendError(
                f"{error} Nothing is lost: {resume} continues the launch.",
                status=error.status,
                request_id=error.request_id,
                retry_after=error.retry_after,
            ) from error
        if not error.is_ambiguous:
            raise
        raise Unreachable(
            f"{error} Nothing is lost: {resume} checks the outcome of the request and continues."
        ) from error


def _advance(ledger: Ledger, record: RunRecord) -> RunRecord:
    if record.state is State.PLANNED:
        record = ledger.write(replace(record, state=State.UPLOADING))
    if record.state is State.UPLOADING:
        files = files_to_upload(ledger, record)
        try:
            upload(ledger, record, files)
        except UnituneError as error:
            if not error.is_retryable:
                ledger.write(replace(record, state=State.FAILED, error=str(error)))
            raise
    if record.state in (State.UPLOADING, State.SUBMITTING):
        return create(ledger, record)
    return record


def files_to_upload(ledger: Ledger, record: RunRecord) -> list[Path]:
    """Return a run's files here, if not all are uploaded; raise `UserError` if they are missing."""
    folder = ledger.run_folder(record.id)
    folder = folder / WIRE if (folder / WIRE).exists() else folder
    training, validation = folder / "train.jsonl", folder / "validation.jsonl"
    if training.exists():
        return [file for file in (training, validation) if file.exists()]
    if any(seen.state is State.SUBMITTING for seen in ledger.transitions(record.id)):
        return []  # an attempt announced a create call, so all were uploaded
    raise _missing(ledger, record)


def upload(ledger: Ledger, record: RunRecord, files: Sequence[Path]) -> None:
    """Upload files that the ledger does not list as uploaded."""
    backend = registry.backend(record.backend)
    known = ledger.uploads(record.id)
    for path in files:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.name not in known or known[path.name].sha256 != sha256:
            uploaded = retry_rate_limited(partial(backend.upload, path, sha256), UPLOAD_SECONDS)
            log.info("uploaded %s as %s", path.name, uploaded.ref)
            ledger.add_upload(record, path.name, replace(uploaded, sha256=sha256))


def _missing(ledger: Ledger, record: RunRecord) -> UserError:
    if record.host not in ("", socket.gethostname()):
        return UserError(
            f"run {record.id} cannot continue here, because the files it must upload are on the "
            f"machine {record.host!r}. Run `unitune runs resume {record.id}` there, or cancel "
            f"it with `unitune runs cancel {record.id}` and launch the job file again."
        )
    return UserError(
        f"run {record.id} cannot continue: it must upload its rows, but "
        f"{ledger.run_folder(record.id)} has no train.jsonl. Cancel it with `unitune runs cancel "
        f"{record.id}` and launch the job file again."
    )


def has_open_job(record: RunRecord) -> bool:
    """Return whether a run has a job that has not ended."""
    return not (record.state.ended or record.state in (*BEFORE_JOB, State.UNCERTAIN))


def refresh(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Poll the job of a run, or search for the job of an uncertain run."""
    if record.state is State.UNCERTAIN:
        return search_again(ledger, record)
    return poll(ledger, record) if has_open_job(record) else record


def resume(
    ledger: Ledger, record: RunRecord, adopt_id: str | None = None, *, resubmit: bool = False
) -> RunRecord:
    """Continue a run from where it stopped; see `unitune.run.handle.Run.resume`."""
    if record.state is State.UNCERTAIN:
        return _decided(ledger, record, adopt_id, resubmit=resubmit)
    if resubmit or adopt_id not in (None, record.job_id):
        raise UserError(
            f"run {record.id} is {record.state}; use adopt and resubmit only for uncertain runs."
        )
    if has_open_job(record):
        record = poll(ledger, record)
    match record.state:
        case State.PLANNED | State.UPLOADING | State.SUBMITTING:
            return advance(ledger, record)
        case State.PAUSED:
            return _unpause(ledger, record)
        case State.CANCELLING:
            return cancel(ledger, record)
        case State.FAILED:
            return attempt_again(ledger, record)
        case State.CANCELLED:
            raise UserError(f"run {record.id} was cancelled. Launch its job file again.")
        case _:
            return record


def _decided(
    ledger: Ledger, record: RunRecord, adopt_id: str | None, *, resubmit: bool
) -> RunRecord:
    if (adopt_id is None) != resubmit:
        raise UserError(f"run {record.id} is uncertain: {record.error}")
    if adopt_id is None:
        return attempt_again(ledger, record)
    return adopt_named(ledger, record, adopt_id)


def attempt_again(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Begin the next attempt, with its own launch key, and advance it.

    If the backend has an unknown job of the previous attempt, that job is adopted instead.
    """
    if record.job_id is None:
        record = search_again(ledger, record)
        if record.job_id is not None:
            return record
    fresh = replace(
        record,
        state=State.PLANNED,
        attempt=record.attempt + 1,
        raw="",
        error=None,
        job_id=None,
        cursor="",
    )
    return advance(ledger, ledger.write(fresh))


def poll(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Poll a job once and record what is new."""
    request = partial(registry.backend(record.backend).poll, job_of(record), record.cursor)
    status = retry_rate_limited(request, POLL_SECONDS)
    log.debug("polled job %s: %s, %d new events", record.job_id, status.raw, len(status.events))
    # Keep a cancel that has not reached the backend yet.
    cancelling = record.state is State.CANCELLING and not status.state.ended
    polled = replace(
        record,
        state=State.CANCELLING if cancelling else status.state,
        raw=status.raw,
        error=status.error,
        cursor=status.cursor,
        model=_on_its_base(status.model, record),
    )
    duplicates = events_of_poll(ledger, record, ended=status.state.ended)
    events = (*status.events, *billing_events(status, ledger.now()), *duplicates)
    written = record if polled == record and not events else ledger.write(polled, events)
    if written.state is State.CANCELLING and status.state is not State.CANCELLING:
        return _cancelled_for_its_cost(ledger, written)
    return within_limits(ledger, written)


def _on_its_base(model: TunedModel | None, record: RunRecord) -> TunedModel | None:
    """Set the base model of a continued training, as vendors name its start instead."""
    if model is None or record.start is None:
        return model
    return model.model_copy(update={"base": record.base_model})


def within_limits(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Cancel a run whose known cost exceeds its limit; settle the money of one that has ended."""
    if record.state.ended:
        budgeting.reconciled(ledger, record)
        return record
    if record.state is State.CANCELLING or not has_open_job(record):
        return record
    if (reason := budgeting.overrun(ledger, record)) is None:
        return record
    data: dict[str, JsonValue] = {"text": f"cancelled by unitune: {reason}"}
    warning = Event(OVERRUN, "warning", ledger.now(), data)
    return _send_cancel(ledger, ledger.write(replace(record, state=State.CANCELLING), [warning]))


def _cancelled_for_its_cost(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Send a cancel for cost again, in case the process that decided it died before sending it."""
    if ledger.events(record.id, record.attempt, key=OVERRUN):
        with suppress(BackendError):  # the job may just have ended or refuse a second cancel
            registry.backend(record.backend).cancel(job_of(record))
    return record


def pause(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Pause a job; raises as `unitune.run.handle.Run.pause` does."""
    if not has_open_job(record):
        raise UserError(
            f"run {record.id} is {record.state} and cannot be paused. Only a job that is queued "
            "or running at its backend can be paused."
        )
    if record.state is State.PAUSED:
        return record
    backend = registry.backend(record.backend)
    if not isinstance(backend, Pauses):
        raise Unsupported(
            f"run {record.id} cannot be paused: backend {record.backend!r} can only cancel a job "
            f"(unitune runs cancel {record.id})."
        )
    backend.pause(job_of(record))
    return poll(ledger, record)


def _unpause(ledger: Ledger, record: RunRecord) -> RunRecord:
    backend = registry.backend(record.backend)
    if not isinstance(backend, Pauses):
        raise Unsupported(
            f"run {record.id} is paused, but backend {record.backend!r} cannot resume a job. "
            f"Resume it at the vendor, or cancel it with `unitune runs cancel {record.id}`."
        )
    record = ledger.write(replace(record, state=State.QUEUED))
    backend.resume(job_of(record))
    return record


def cancel(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Cancel a run; raise `UserError` if it has ended in another state or is uncertain."""
    if record.state in (State.SUCCEEDED, State.FAILED):
        raise UserError(f"run {record.id} has already {record.state}; there is nothing to cancel.")
    if record.state is State.UNCERTAIN:
        raise UserError(f"run {record.id} cannot be cancelled yet: {record.error}")
    if record.state in (State.UPLOADING, State.SUBMITTING):
        record = cancel_submit(ledger, record)
    if record.state in (State.PLANNED, State.UPLOADING):
        return ledger.write(replace(record, state=State.CANCELLED))
    if record.state.ended or record.state is State.UNCERTAIN:
        return record
    if record.state is not State.CANCELLING:
        record = ledger.write(replace(record, state=State.CANCELLING))
    return _send_cancel(ledger, record)


def _send_cancel(ledger: Ledger, record: RunRecord) -> RunRecord:
    try:
        registry.backend(record.backend).cancel(job_of(record))
    except BackendError as error:
        if error.status == HTTPStatus.GONE:
            return ledger.write(replace(record, state=State.CANCELLED))
        # The job may have ended in the meantime, which a vendor answers with an error.
        record = poll(ledger, record)
        if not record.state.ended:
            raise
        return record
    return poll(ledger, record)


def job_of(record: RunRecord) -> str:
    """Return the id of a run's job; raise a UserError if it has none."""
    if record.job_id is None:
        raise UserError(f"run {record.id} is {record.state} and has no job at {record.backend}.")
    return record.job_id
