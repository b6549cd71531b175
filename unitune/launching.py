"""One job at the backend, whatever happens in between: how a run gets from state to state.

Each function takes the ledger and a record and returns the record as it then stands. The caller
holds the run's lock. Every state is written before it is acted on, so a process that dies leaves a
record that says how far it may have come:

    planned, uploading   nothing was created: go on (uploads are known by their hash)
    submitting           the create call may have been sent: look for the launch key first
    uncertain            nobody but the user can know: `adopt` or `attempt_again`
    others               there is a job: `poll`

What is not here: the handle that users hold (`unitune.run`), and how rows are stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from unitune import registry
from unitune.abilities import Pauses
from unitune.backend import Guarantee, Launch, State, Upload
from unitune.errors import BackendError, UnituneError, Unreachable, Unsupported, UserError
from unitune.job import Job
from unitune.ledger import Artefact, Ledger, RunRecord

BEFORE_JOB = (State.PLANNED, State.UPLOADING, State.SUBMITTING)
"""States in which the backend may have no job yet."""
SAFE_TO_REPEAT = (Guarantee.TOKEN, Guarantee.OWN_ID)
"""Backends that make one job of two create calls with the same key."""
REQUEST_TIMEOUT = 408
WIRE = "wire"
"""Folder within a run's for its rows in the backend's own format, where that is not canonical."""


def advance(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Take a run on from where it stands until its backend has exactly one job.

    Raises:
        Unreachable: No answer came; `advance` can be called again.
        UnituneError: The backend refused; the run has failed.
    """
    try:
        return _advance(ledger, record)
    except UnituneError as error:
        if not _outcome_open(error):
            raise
        raise Unreachable(
            f"{error} Nothing is lost: `unitune resume {record.id}` finds out what became of the "
            "request and goes on."
        ) from error


def _advance(ledger: Ledger, record: RunRecord) -> RunRecord:
    if record.state is State.PLANNED:
        record = ledger.write(replace(record, state=State.UPLOADING))
    if record.state is State.UPLOADING:
        _upload(ledger, record)
        record = ledger.write(replace(record, state=State.SUBMITTING))
        return _submit(ledger, record)
    if record.state is State.SUBMITTING:
        return _settle(ledger, record)
    return record


def adopt(ledger: Ledger, record: RunRecord, job_id: str) -> RunRecord:
    """Write down which job at the backend is the run's."""
    return ledger.write(replace(record, state=State.QUEUED, job_id=job_id, error=None))


def attempt_again(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Begin the next attempt, under a launch key of its own, and take it on."""
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
    """Ask the backend once how its job stands, and write down what is new."""
    status = registry.backend(record.backend).poll(_job_of(record), record.cursor)
    # A cancel that has not reached the backend yet must not be forgotten.
    asked = record.state is State.CANCELLING and not status.state.ended
    seen = replace(
        record,
        state=State.CANCELLING if asked else status.state,
        raw=status.raw,
        error=status.error,
        cursor=status.cursor,
        model=status.model,
    )
    return record if seen == record and not status.events else ledger.write(seen, status.events)


def unpause(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Let a paused job go on.

    Raises:
        Unsupported: The backend cannot.
    """
    backend = registry.backend(record.backend)
    if not isinstance(backend, Pauses):
        raise Unsupported(
            f"run {record.id} is paused, and backend {record.backend!r} cannot resume a job. "
            f"Resume it at the vendor, or end it with `unitune cancel {record.id}`."
        )
    record = ledger.write(replace(record, state=State.QUEUED))
    backend.resume(_job_of(record))
    return record


def cancel(ledger: Ledger, record: RunRecord) -> RunRecord:
    """End a run that has not ended.

    Raises:
        UserError: It is uncertain, so that there may be a job that nobody knows.
    """
    if record.state is State.UNCERTAIN:
        raise UserError(f"run {record.id} cannot be cancelled yet: {record.error}")
    if record.state is State.SUBMITTING:
        record = _locate(ledger, record) or _not_there(ledger, record)
    if record.state in (State.PLANNED, State.UPLOADING):
        return ledger.write(replace(record, state=State.CANCELLED))
    if record.state.ended or record.state is State.UNCERTAIN:
        return record
    if record.state is not State.CANCELLING:
        record = ledger.write(replace(record, state=State.CANCELLING))
    return _send_cancel(ledger, record)


def _send_cancel(ledger: Ledger, record: RunRecord) -> RunRecord:
    try:
        registry.backend(record.backend).cancel(_job_of(record))
    except BackendError:
        # The job may have ended in the meantime, which a vendor answers with an error.
        record = poll(ledger, record)
        if not record.state.ended:
            raise
        return record
    return poll(ledger, record)


def _upload(ledger: Ledger, record: RunRecord) -> None:
    """Hand over the run's files, except those that the ledger knows to be there."""
    backend = registry.backend(record.backend)
    for path in _data_files(ledger, record):
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        known = ledger.artefact(record.id, "upload", path.name)
        if known is None or known.sha256 != sha256:
            with _refusal_fails(ledger, record):
                upload = backend.upload(path, sha256)
            ledger.add_artefact(record.id, Artefact("upload", path.name, upload.ref, sha256))


def _submit(ledger: Ledger, record: RunRecord, *, repeated: bool = False) -> RunRecord:
    """Send the create call; the state is submitting, and no earlier call made a job."""
    backend = registry.backend(record.backend)
    launch = _launch(ledger, record)
    try:
        with _refusal_fails(ledger, record):
            job_id = backend.submit(launch)
    except UnituneError as error:
        if not _outcome_open(error):
            raise
        return _after_silence(ledger, record, error, repeated=repeated)
    return adopt(ledger, record, job_id)


def _after_silence(
    ledger: Ledger, record: RunRecord, error: UnituneError, *, repeated: bool
) -> RunRecord:
    """Go on after a create call whose outcome is open."""
    found = _locate(ledger, record)
    if found is not None:
        return found
    if _guarantee(record) not in SAFE_TO_REPEAT:
        return _uncertain(ledger, record, f"the create call got no clear answer ({error})")
    if repeated:
        raise error
    return _submit(ledger, record, repeated=True)


def _settle(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Find out what became of a create call that another process may have sent."""
    found = _locate(ledger, record)
    if found is not None:
        return found
    if _guarantee(record) is Guarantee.SUFFIX_ONLY:
        return _uncertain(ledger, record, "the launch was interrupted while it created the job")
    return _submit(ledger, record)


def _locate(ledger: Ledger, record: RunRecord) -> RunRecord | None:
    """Adopt the job that carries the launch key; None when there is none."""
    backend = registry.backend(record.backend)
    found = backend.find(record.launch_key, ledger.run_folder(record.id))
    if len(found) > 1:
        return _uncertain(ledger, record, f"several jobs carry its key ({', '.join(found)})")
    return adopt(ledger, record, found[0]) if found else None


def _not_there(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Cancel a run for whose launch key no job is found."""
    if _guarantee(record) is Guarantee.SUFFIX_ONLY:
        return _uncertain(ledger, record, "the launch was interrupted while it created the job")
    return ledger.write(replace(record, state=State.CANCELLED))


def _uncertain(ledger: Ledger, record: RunRecord, why: str) -> RunRecord:
    advice = (
        f"{why}. Look at {record.backend} for a job with {record.launch_key!r} in its name: if "
        f"there is one, `unitune resume {record.id} --adopt ITS_ID`, else "
        f"`unitune resume {record.id} --resubmit`."
    )
    return ledger.write(replace(record, state=State.UNCERTAIN, error=advice))


@contextmanager
def _refusal_fails(ledger: Ledger, record: RunRecord) -> Generator[None]:
    """Write the run down as failed when the backend says no."""
    try:
        yield
    except UnituneError as error:
        if not _outcome_open(error):
            ledger.write(replace(record, state=State.FAILED, error=str(error)))
        raise


def _outcome_open(error: UnituneError) -> bool:
    """Return whether a request may have taken effect; a 4xx proves that it did not."""
    if isinstance(error, Unreachable):
        return True
    status = error.status if isinstance(error, BackendError) else None
    return status is not None and (status >= 500 or status == REQUEST_TIMEOUT)


def _launch(ledger: Ledger, record: RunRecord) -> Launch:
    folder = ledger.run_folder(record.id)
    uploads = {
        path.name: Upload(artefact.ref, artefact.sha256)
        for path in _data_files(ledger, record)
        if (artefact := ledger.artefact(record.id, "upload", path.name))
    }
    return Launch(
        key=record.launch_key,
        job=Job.load(folder / "job.yaml"),
        training=uploads["train.jsonl"],
        validation=uploads.get("validation.jsonl"),
        folder=folder,
    )


def _data_files(ledger: Ledger, record: RunRecord) -> list[Path]:
    """Return the files to hand over; there may be no validation rows."""
    folder = ledger.run_folder(record.id)
    folder = folder / WIRE if (folder / WIRE).exists() else folder
    train, validation = folder / "train.jsonl", folder / "validation.jsonl"
    if not train.exists():
        raise UserError(
            f"run {record.id} cannot go on, because its file {train} is gone. Launch the job file "
            "again with --again."
        )
    return [train, validation] if validation.exists() else [train]


def _guarantee(record: RunRecord) -> Guarantee:
    return registry.backend(record.backend).guarantee


def _job_of(record: RunRecord) -> str:
    if record.job_id is None:
        raise UserError(f"run {record.id} is {record.state} and has no job at {record.backend}.")
    return record.job_id
