"""The job of a run: created exactly once (`unitune.backends.exactly_once`), and written down.

The state `submitting` is on record before a create call is sent, `uploading` once it is known that
it has created nothing. Where only the user can know which job is the run's, it is `uncertain`.

No search before a create call can exclude that it is delivered twice, or after we gave it up. So
the jobs that carry the run's key are searched for when its own job is known, once more when the
settle time is over, and when the job has ended. A second job is reported as a warning with the
command that cancels it, and not cancelled: someone may have made it at the vendor on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from pydantic import JsonValue

from unitune.backends import registry
from unitune.backends.capabilities import DescribesJobs, GuaranteesByServer, JobDescription
from unitune.backends.exactly_once import (
    FIND_SECONDS,
    CreateCall,
    Uncertain,
    exactly_once,
    recover,
    search,
)
from unitune.backends.launch_keys import launch_key_in, run_of
from unitune.backends.protocol import SAFE_TO_REPEAT, Event, Launch, State
from unitune.backends.retry import retry_rate_limited
from unitune.errors import BackendError, LockTimeout, UnituneError, UserError
from unitune.ledger import Ledger, RunRecord, budgeting
from unitune.ledger.leases import LONGEST_LEASE_SECONDS

# How long a create call may take: that long at least, this process acts for the run
CREATE_SECONDS = LONGEST_LEASE_SECONDS
# Beginning of the key of a warning: a process that stood still has cancelled its own job
CANCELLED_LATE = "submit.cancelled:"
DUPLICATE = "submit.duplicate:"  # beginning of the key of a warning; the job's id follows
# Key of the event that says that the search after the settle time is done
SEARCHED = "submit.searched"
INTERRUPTED = "the launch was interrupted while it created the job"


class _JobCall(CreateCall):
    def __init__(self, ledger: Ledger, record: RunRecord) -> None:
        self.ledger = ledger
        self.record = record
        self.created: str | None = None
        """The id of the job that this process has created."""
        self._launch: Launch | None = None
        self._backend = registry.backend(record.backend)
        self.guarantee = (
            self._backend.guarantee_of(ledger.job(record.id))
            if isinstance(self._backend, GuaranteesByServer)
            else self._backend.guarantee
        )
        self.settle_seconds = registry.offer(record.backend).settle_seconds

    def announce(self) -> None:
        """Set the money aside, write down that the call is sent, and keep the lease meanwhile."""
        files = self.ledger.uploads(self.record.id)
        self._launch = Launch(
            key=self.record.launch_key,
            job=self.ledger.job(self.record.id),
            training=files["train.jsonl"],
            validation=files.get("validation.jsonl"),
            folder=self.ledger.run_folder(self.record.id),
            start=self.record.start,
        )
        budgeting.reserve(self.ledger, self.record)
        self.record = self.ledger.write(replace(self.record, state=State.SUBMITTING))
        self.ledger.hold(self.record, CREATE_SECONDS)

    def create(self) -> str:
        assert self._launch is not None, "the call was announced"
        self.created = self._backend.submit(self._launch)
        return self.created

    def find(self) -> list[str]:
        return self._backend.find(self.record.launch_key, self.ledger.run_folder(self.record.id))

    def cancel_submit(self) -> None:
        self.record = self.ledger.write(replace(self.record, state=State.UPLOADING))

    def refuse(self, error: UnituneError) -> None:
        self.ledger.write(replace(self.record, state=State.FAILED, error=str(error)))

    def note(self, key: str, text: str) -> None:
        event = Event(f"{key}:{self.record.version}", "message", self.ledger.now(), {"text": text})
        self.record = self.ledger.write(self.record, [event])

    @property
    def was_rate_limited(self) -> bool:
        """Whether the last create call of the attempt was refused for its rate."""
        return self.record.state is State.UPLOADING and any(
            seen.state is State.SUBMITTING and seen.attempt == self.record.attempt
            for seen in self.ledger.transitions(self.record.id)
        )


def create(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Create the job of a run whose files are uploaded, or go on where a process has died.

    Raises:
        UnituneError: As of `exactly_once`.
    """
    call = _JobCall(ledger, record)
    rate_limited = call.was_rate_limited
    try:
        job_id = recover(call, INTERRUPTED) if record.state is State.SUBMITTING else None
        if job_id is None:
            job_id = exactly_once(call, rate_limited=rate_limited)
    except Uncertain as uncertain:
        return _uncertain(ledger, call.record, uncertain)
    if job_id != call.created:
        return adopt(ledger, call.record, job_id)
    try:
        return report_duplicates(ledger, adopt(ledger, call.record, job_id))
    except LockTimeout as error:
        raise LockTimeout(f"{error} {_cancel_created(ledger, call.record, job_id)}") from error


def cancel_submit(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Make sure that no create call of a run has created a job, or adopt it."""
    call = _JobCall(ledger, record)
    job_id = None
    try:
        if record.state is State.SUBMITTING:
            job_id = recover(call, INTERRUPTED, repeatable=False)
        elif call.was_rate_limited and call.guarantee not in SAFE_TO_REPEAT:
            job_id = search(call)
    except Uncertain as uncertain:
        return _uncertain(ledger, call.record, uncertain)
    return call.record if job_id is None else adopt(ledger, call.record, job_id)


def adopt(ledger: Ledger, record: RunRecord, job_id: str) -> RunRecord:
    """Write down which job at the backend is the run's."""
    return ledger.write(replace(record, state=State.QUEUED, job_id=job_id, error=None))


def search_again(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Search once more for the job of an uncertain run, and adopt it if it is the only one."""
    ids = _jobs_with_key(ledger, record)
    return adopt(ledger, record, ids[0]) if len(ids) == 1 else record


def adopt_named(ledger: Ledger, record: RunRecord, job_id: str) -> RunRecord:
    """Adopt the job that the user names for an uncertain run, unless it cannot be the run's.

    A run that took another's job would report another training as its own, and its real job would
    be lost.

    Raises:
        UserError: Another run has it, or its key, base model or training file is not the run's.
        BackendError: The backend knows no such job.
    """
    owner = ledger.run_of_job(record.backend, job_id)
    backend = registry.backend(record.backend)
    reasons: list[str] = []
    if owner not in (None, record.id):
        reasons = [f"it is the job of run {owner}"]
    elif isinstance(backend, DescribesJobs):
        reasons = [*_differences(ledger, record, backend.describe_job(job_id))]
    else:
        backend.poll(job_id, "")  # an id that it does not know is refused
    if reasons:
        raise UserError(
            f"job {job_id} cannot be that of run {record.id}: {'; '.join(reasons)}. "
            f"{_how_to_decide(record)}"
        )
    return report_duplicates(ledger, adopt(ledger, record, job_id))


def report_duplicates(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Search for a second job of a run whose own job has just become known."""
    if _creates_single_job(record):
        return record
    try:
        events = list(_duplicate_warnings(ledger, record))
    except BackendError:
        return record  # the job is there; polls search again
    return ledger.write(record, events) if events else record


def events_of_poll(ledger: Ledger, record: RunRecord, *, ended: bool) -> Iterator[Event]:
    """Yield a warning for each second job, when it is time to search: at the end for the last."""
    if _creates_single_job(record) or not (ended or _settle_time_is_over(ledger, record)):
        return
    try:
        yield from _duplicate_warnings(ledger, record)
    except BackendError as error:
        if ended:
            text = (
                f"whether {record.backend} has a second job for this run is not known: {error} "
                f"Look there for jobs that carry the key {record.launch_key!r}."
            )
            yield Event(f"{SEARCHED}:failed", "warning", ledger.now(), {"text": text})
        return
    if not ended:
        yield Event(SEARCHED, "message", ledger.now())


def cancel_duplicate(ledger: Ledger, record: RunRecord, job_id: str) -> None:
    """End a second job of a run; see `unitune.run.handle.Run.cancel_duplicate`."""
    if job_id == record.job_id:
        raise UserError(
            f"job {job_id} is run {record.id}'s own. To end it: unitune cancel {record.id}"
        )
    others = [job for job in _jobs_with_key(ledger, record) if job != record.job_id]
    if job_id not in others:
        listed = f"these do: {', '.join(others)}" if others else "no second job does"
        raise UserError(
            f"job {job_id} does not carry the key {record.launch_key!r} of run {record.id} at "
            f"{record.backend}; {listed}."
        )
    registry.backend(record.backend).cancel(job_id)


def _jobs_with_key(ledger: Ledger, record: RunRecord) -> list[str]:
    backend, folder = registry.backend(record.backend), ledger.run_folder(record.id)
    return retry_rate_limited(lambda: backend.find(record.launch_key, folder), FIND_SECONDS)


def _creates_single_job(record: RunRecord) -> bool:
    """Return whether the backend makes one job of several create calls with one key."""
    return registry.backend(record.backend).guarantee in SAFE_TO_REPEAT


def _settle_time_is_over(ledger: Ledger, record: RunRecord) -> bool:
    """Return whether a list must show by now what was created, and was not searched since."""
    if ledger.events(record.id, record.attempt, key=SEARCHED):
        return False
    known_since = max(
        (
            seen.time
            for seen in ledger.transitions(record.id)
            if seen.attempt == record.attempt and seen.state in (State.SUBMITTING, State.UNCERTAIN)
        ),
        default=record.created,
    )
    return ledger.now() >= known_since + registry.offer(record.backend).settle_seconds


def _duplicate_warnings(ledger: Ledger, record: RunRecord) -> Iterator[Event]:
    for job in _jobs_with_key(ledger, record):
        if job == record.job_id:
            continue
        text = (
            f"{record.backend} has a second job for this run, {job}, beside its own "
            f"({record.job_id}): the create call was delivered twice, or late. It is charged as "
            f"well. Cancel it: unitune cancel {record.id} --job {job}"
        )
        data: dict[str, JsonValue] = {"text": text, "job": job}
        yield Event(f"{DUPLICATE}{job}", "warning", ledger.now(), data)


def _differences(ledger: Ledger, record: RunRecord, job: JobDescription) -> Iterator[str]:
    key = launch_key_in(job.key or "")
    if key and run_of(key) != record.id:
        yield f"it carries the key {key!r} of another run"
    start = record.start and record.start.model.name
    if (
        job.base_model
        and not _same_model(job.base_model, record.base_model)
        and not (start and _same_model(job.base_model, start))
    ):
        yield f"it trains {job.base_model!r}, and the run {record.base_model!r}"
    uploaded = ledger.uploads(record.id).get("train.jsonl")
    if job.training and uploaded and job.training != uploaded.ref:
        yield f"its training file is {job.training!r}, and the run's {uploaded.ref!r}"


def _same_model(name: str, other: str) -> bool:
    """Return whether two names may be of one model: vendors add dates, owners and paths."""
    name, other = name.casefold(), other.casefold()
    return name in other or other in name


def _uncertain(ledger: Ledger, record: RunRecord, uncertain: Uncertain) -> RunRecord:
    """Write down that only the user can know which job is the run's, and what to do."""
    advice = f"{uncertain.reason}. {_how_to_decide(record)}"
    return ledger.write(replace(record, state=State.UNCERTAIN, error=advice))


def _how_to_decide(record: RunRecord) -> str:
    return (
        f"Search {record.backend} for a job with {record.launch_key!r} in its name: if there is "
        f"one, `unitune resume {record.id} --adopt ITS_ID`, else `unitune resume {record.id} "
        "--resubmit`."
    )


def _cancel_created(ledger: Ledger, record: RunRecord, job_id: str) -> str:
    """Cancel the job that this process has created, if the run has another job by now."""
    current = ledger.record(record.id).job_id
    if current == job_id:
        return f"It has found the job that this process created ({job_id})."
    if current is not None:
        with suppress(BackendError):
            registry.backend(record.backend).cancel(job_id)
            text = f"The run's job is {current}; this process created {job_id}, and cancelled it."
            event = Event(f"{CANCELLED_LATE}{job_id}", "warning", ledger.now(), {"text": text})
            with suppress(UnituneError):  # the user reads it in any case
                ledger.note(record, event)
            return text
    return (
        f"The create call of this process has created job {job_id}: if that is not the run's, "
        f"cancel it: unitune cancel {record.id} --job {job_id}"
    )
