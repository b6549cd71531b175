"""Create the job of a run exactly once and record it.

The state is `submitting` while a create call is open and `uploading` once it is known that the call
created nothing. It is `uncertain` where only the user can know which job is the run's.

A create call may still be delivered twice or late. So unitune searches for jobs with the run's key
when its own job is known, after the settle time, and when the job has ended. It reports a second
job as a warning with the command that cancels it, because a user may have created it on purpose.
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
    launch_key_in,
    recover,
    run_of,
    search,
)
from unitune.backends.protocol import SAFE_TO_REPEAT, Event, Launch, State
from unitune.backends.retry import retry_rate_limited
from unitune.errors import BackendError, LockTimeout, UnituneError, UserError
from unitune.ledger import Ledger, RunRecord, budgeting
from unitune.ledger.leases import LONGEST_LEASE_SECONDS

# Longest duration of a create call; this process keeps the run's lease at least that long
CREATE_SECONDS = LONGEST_LEASE_SECONDS
# Key prefix of the warning that a resumed process cancelled its own late job
CANCELLED_LATE = "submit.cancelled:"
DUPLICATE = "submit.duplicate:"  # key prefix of a warning; the job's id follows
# Key of the event that records the search after the settle time
SEARCHED = "submit.searched"
INTERRUPTED = "the launch was interrupted while it created the job"


class _JobCall(CreateCall):
    def __init__(self, ledger: Ledger, record: RunRecord) -> None:
        self.ledger = ledger
        self.record = record
        self.created: str | None = None
        """Id of the job that this process created."""
        self._launch: Launch | None = None
        self._backend = registry.backend(record.backend)
        self.guarantee = (
            self._backend.guarantee_of(ledger.job(record.id))
            if isinstance(self._backend, GuaranteesByServer)
            else self._backend.guarantee
        )
        self.settle_seconds = registry.offer(record.backend).settle_seconds

    def announce(self) -> None:
        """Reserve the money, record that the call is sent and hold the lease."""
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
        """True if the attempt's last create call was rate-limited."""
        return self.record.state is State.UPLOADING and any(
            seen.state is State.SUBMITTING and seen.attempt == self.record.attempt
            for seen in self.ledger.transitions(self.record.id)
        )


def create(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Create the job of a run with uploaded files, or continue an interrupted creation."""
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
    """Adopt the job that a create call of the run has made, if there is one."""
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
    """Record which job at the backend belongs to the run."""
    return ledger.write(replace(record, state=State.QUEUED, job_id=job_id, error=None))


def search_again(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Search once more for the job of an uncertain run, and adopt it if it is the only one."""
    ids = _jobs_with_key(ledger, record)
    return adopt(ledger, record, ids[0]) if len(ids) == 1 else record


def adopt_named(ledger: Ledger, record: RunRecord, job_id: str) -> RunRecord:
    """Adopt the job that the user names for an uncertain run, or raise `UserError`."""
    owner = ledger.run_of_job(record.backend, job_id)
    backend = registry.backend(record.backend)
    reasons: list[str] = []
    if owner not in (None, record.id):
        reasons = [f"it is the job of run {owner}"]
    elif isinstance(backend, DescribesJobs):
        reasons = [*_differences(ledger, record, backend.describe_job(job_id))]
    else:
        backend.poll(job_id, "")  # raises for an unknown id
    if reasons:
        raise UserError(
            f"job {job_id} cannot be that of run {record.id}: {'; '.join(reasons)}. "
            f"{_how_to_decide(record)}"
        )
    return report_duplicates(ledger, adopt(ledger, record, job_id))


def report_duplicates(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Search for further jobs of a run whose own job has just become known."""
    if _creates_single_job(record):
        return record
    try:
        events = list(_duplicate_warnings(ledger, record))
    except BackendError:
        return record  # the job exists; polls search again
    return ledger.write(record, events) if events else record


def events_of_poll(ledger: Ledger, record: RunRecord, *, ended: bool) -> Iterator[Event]:
    """Yield a warning for each second job; search after the settle time and at the end."""
    if _creates_single_job(record) or not (ended or _settle_time_is_over(ledger, record)):
        return
    try:
        yield from _duplicate_warnings(ledger, record)
    except BackendError as error:
        if ended:
            text = (
                f"{record.backend} may have a second job for this run, but the search failed: "
                f"{error} Look there for jobs with the key {record.launch_key!r}."
            )
            yield Event(f"{SEARCHED}:failed", "warning", ledger.now(), {"text": text})
        return
    if not ended:
        yield Event(SEARCHED, "message", ledger.now())


def cancel_duplicate(ledger: Ledger, record: RunRecord, job_id: str) -> None:
    """Cancel a second job of a run; see `unitune.run.handle.Run.cancel_duplicate`."""
    if job_id == record.job_id:
        raise UserError(
            f"job {job_id} is run {record.id}'s own. To cancel it, run: unitune runs cancel "
            f"{record.id}"
        )
    others = [job for job in _jobs_with_key(ledger, record) if job != record.job_id]
    if job_id not in others:
        listed = f"jobs with it: {', '.join(others)}" if others else "no second job carries it"
        raise UserError(
            f"job {job_id} does not carry the key {record.launch_key!r} of run {record.id} at "
            f"{record.backend}; {listed}."
        )
    registry.backend(record.backend).cancel(job_id)


def _jobs_with_key(ledger: Ledger, record: RunRecord) -> list[str]:
    backend, folder = registry.backend(record.backend), ledger.run_folder(record.id)
    return retry_rate_limited(lambda: backend.find(record.launch_key, folder), FIND_SECONDS)


def _creates_single_job(record: RunRecord) -> bool:
    return registry.backend(record.backend).guarantee in SAFE_TO_REPEAT


def _settle_time_is_over(ledger: Ledger, record: RunRecord) -> bool:
    """Return whether job lists are complete by now and were not searched since."""
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
            f"{record.backend} has a second job for this run, {job}, besides its own "
            f"({record.job_id}): the create call was delivered twice or late. The second job is "
            f"charged too. Cancel it: unitune runs cancel {record.id} --job {job}"
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
        yield f"it trains {job.base_model!r}, but the run trains {record.base_model!r}"
    uploaded = ledger.uploads(record.id).get("train.jsonl")
    if job.training and uploaded and job.training != uploaded.ref:
        yield f"its training file is {job.training!r}, but the run's is {uploaded.ref!r}"


def _same_model(name: str, other: str) -> bool:
    """Return whether two names may mean one model; vendors add dates, owners and paths."""
    name, other = name.casefold(), other.casefold()
    return name in other or other in name


def _uncertain(ledger: Ledger, record: RunRecord, uncertain: Uncertain) -> RunRecord:
    advice = f"{uncertain.reason}. {_how_to_decide(record)}"
    return ledger.write(replace(record, state=State.UNCERTAIN, error=advice))


def _how_to_decide(record: RunRecord) -> str:
    return (
        f"Search {record.backend} for a job with {record.launch_key!r} in its name. If you find "
        f"one, run `unitune runs resume {record.id} --adopt ITS_ID`; otherwise run `unitune "
        f"runs resume {record.id} --resubmit`."
    )


def _cancel_created(ledger: Ledger, record: RunRecord, job_id: str) -> str:
    current = ledger.record(record.id).job_id
    if current == job_id:
        return f"The other process found the job that this process created ({job_id})."
    if current is not None:
        with suppress(BackendError):
            registry.backend(record.backend).cancel(job_id)
            text = f"The run's job is {current}; this process created {job_id} and cancelled it."
            event = Event(f"{CANCELLED_LATE}{job_id}", "warning", ledger.now(), {"text": text})
            with suppress(UnituneError):  # the error shows the text too
                ledger.note(record, event)
            return text
    return (
        f"The create call of this process created job {job_id}. If it is not the run's job, "
        f"cancel it: unitune runs cancel {record.id} --job {job_id}"
    )
