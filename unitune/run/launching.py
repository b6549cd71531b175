"""One job at the backend, whatever happens in between: how a run gets from state to state.

Each function takes the ledger and a record and returns the record as it then stands. The caller
acts for the run (`Ledger.acting`). Every state is written before it is acted on, so a process that
dies leaves a record that says how far it may have come:

    planned, uploading   nothing was created: go on (uploads are known by their hash)
    submitting           the create call may have been sent: look for the launch key first
    uncertain            only the user can know: `adopt` or `attempt_again`
    others               there is a job: `poll`

Files are known by their hash: what the ledger has as uploaded, or the backend has from another run,
is not uploaded again. Not here: the handle that users hold (`unitune.run.handle`), and the create
call (`unitune.run.creating`).
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
from unitune.run.creating import (
    adopt_named,
    cancel_submit,
    create,
    events_of_poll,
    search_again,
)

# States in which the backend may have no job yet
BEFORE_JOB = (State.PLANNED, State.UPLOADING, State.SUBMITTING)
# How long a poll is repeated while it is refused for its rate; others may act after that
POLL_SECONDS = 10.0
UPLOAD_SECONDS = 120.0  # how long an upload is repeated while it is refused for its rate
# Folder within a run's for its rows in the backend's own format, where that is not canonical
WIRE = "wire"
OVERRUN = "run.over_budget"  # key of the event that says why a run was cancelled for its cost


def advance(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Take a run on from where it stands until its backend has exactly one job.

    Raises:
        Unreachable: No answer came; `advance` can be called again.
        Interrupted: The user pressed Ctrl-C; `advance` can be called again.
        UnituneError: The backend refused; the run has failed, unless for its rate alone.
    """
    resume = f"`unitune resume {record.id}`"
    try:
        return _advance(ledger, record)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped while run {record.id} was being launched. How far it came is on record: "
            f"{resume} goes on, and `unitune cancel {record.id}` ends it."
        ) from None
    except BackendError as error:
        if error.is_rate_limited:
            raise BackendError(
                f"{error} Nothing is lost: {resume} goes on.",
                status=error.status,
                request_id=error.request_id,
                retry_after=error.retry_after,
            ) from error
        if not error.is_ambiguous:
            raise
        raise Unreachable(
            f"{error} Nothing is lost: {resume} finds out what became of the request and goes on."
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
    """Return a run's files that are here; none when all were uploaded, wherever they are.

    Raises:
        UserError: They still have to be uploaded, and are on another machine or gone.
    """
    folder = ledger.run_folder(record.id)
    folder = folder / WIRE if (folder / WIRE).exists() else folder
    training, validation = folder / "train.jsonl", folder / "validation.jsonl"
    if training.exists():
        return [file for file in (training, validation) if file.exists()]
    if any(seen.state is State.SUBMITTING for seen in ledger.transitions(record.id)):
        return []  # a create call was announced, in whichever attempt, so all were uploaded
    raise _missing(ledger, record)


def upload(ledger: Ledger, record: RunRecord, files: Sequence[Path]) -> None:
    """Upload files, except those that the ledger knows to be there."""
    backend = registry.backend(record.backend)
    known = ledger.uploads(record.id)
    for path in files:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.name not in known or known[path.name].sha256 != sha256:
            uploaded = retry_rate_limited(partial(backend.upload, path, sha256), UPLOAD_SECONDS)
            ledger.add_upload(record, path.name, replace(uploaded, sha256=sha256))


def _missing(ledger: Ledger, record: RunRecord) -> UserError:
    if record.host not in ("", socket.gethostname()):
        return UserError(
            f"run {record.id} cannot go on here: it still has to upload its files, which are "
            f"on the machine {record.host!r}. Go on there with `unitune resume {record.id}`, or "
            f"end it with `unitune cancel {record.id}` and launch the job file again."
        )
    return UserError(
        f"run {record.id} cannot go on, because it still has to upload its rows and "
        f"{ledger.run_folder(record.id)} has no train.jsonl any more. End it with `unitune cancel "
        f"{record.id}` and launch the job file again."
    )


def has_open_job(record: RunRecord) -> bool:
    """Return whether the backend has a job of a run that has not ended."""
    return not (record.state.ended or record.state in (*BEFORE_JOB, State.UNCERTAIN))


def refresh(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Poll the job of a run, or search for that of an uncertain one."""
    if record.state is State.UNCERTAIN:
        return search_again(ledger, record)
    return poll(ledger, record) if has_open_job(record) else record


def resume(
    ledger: Ledger, record: RunRecord, adopt_id: str | None = None, *, resubmit: bool = False
) -> RunRecord:
    """Let a run go on from wherever it stopped; arguments as of `unitune.run.handle.Run.resume`."""
    if record.state is State.UNCERTAIN:
        return _decided(ledger, record, adopt_id, resubmit=resubmit)
    if resubmit or adopt_id not in (None, record.job_id):
        raise UserError(
            f"run {record.id} is {record.state}; adopt and resubmit are for uncertain runs only."
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
            raise UserError(f"run {record.id} was cancelled; launch its job file again.")
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
    """Begin the next attempt, under a launch key of its own, and take it on.

    If the backend turns out to have a job of the attempt before that the run did not know, that
    one is adopted instead.
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
    """Request the status of a job from its backend once, and write down what is new."""
    request = partial(registry.backend(record.backend).poll, job_of(record), record.cursor)
    status = retry_rate_limited(request, POLL_SECONDS)
    # A cancel that has not reached the backend yet must not be forgotten.
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
    """Return a model with the base of its run: vendors name what a training has gone on from."""
    if model is None or record.start is None:
        return model
    return model.model_copy(update={"base": record.base_model})


def within_limits(ledger: Ledger, record: RunRecord) -> RunRecord:
    """End a run that costs more than it may; settle the money of one that has ended.

    What it costs is what is known without asking the backend: by the clock, and by its last poll.
    """
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
    """Send a cancel for cost again: the process that decided on it may have died before."""
    if ledger.events(record.id, record.attempt, key=OVERRUN):
        with suppress(BackendError):  # the job may just have ended, or not listen twice
            registry.backend(record.backend).cancel(job_of(record))
    return record


def pause(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Ask a job to stop for now; raises as `unitune.run.handle.Run.pause` does."""
    if not has_open_job(record):
        raise UserError(
            f"run {record.id} is {record.state}; what can be paused is a job that its backend has "
            "and that has not ended."
        )
    if record.state is State.PAUSED:
        return record
    backend = registry.backend(record.backend)
    if not isinstance(backend, Pauses):
        raise Unsupported(
            f"run {record.id} cannot be paused: backend {record.backend!r} only ends a job "
            f"(unitune cancel {record.id})."
        )
    backend.pause(job_of(record))
    return poll(ledger, record)


def _unpause(ledger: Ledger, record: RunRecord) -> RunRecord:
    backend = registry.backend(record.backend)
    if not isinstance(backend, Pauses):
        raise Unsupported(
            f"run {record.id} is paused, and backend {record.backend!r} cannot resume a job. "
            f"Resume it at the vendor, or end it with `unitune cancel {record.id}`."
        )
    record = ledger.write(replace(record, state=State.QUEUED))
    backend.resume(job_of(record))
    return record


def cancel(ledger: Ledger, record: RunRecord) -> RunRecord:
    """End a run that has not ended.

    Raises:
        UserError: It has ended otherwise, or is uncertain, so that it may have an unknown job.
    """
    if record.state in (State.SUCCEEDED, State.FAILED):
        raise UserError(f"run {record.id} has {record.state} already; nothing is left to end.")
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
    """Return the id of a run's job; a UserError where it has none."""
    if record.job_id is None:
        raise UserError(f"run {record.id} is {record.state} and has no job at {record.backend}.")
    return record.job_id
