"""The job of a run: created exactly once (`unitune.backends.exactly_once`), and written down.

The state `submitting` is on record before a create call is sent, `uploading` once it is known that
it has created nothing. Where only the user can know which job is the run's, it is `uncertain`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from unitune.backends import registry
from unitune.backends.capabilities import GuaranteesByServer
from unitune.backends.exactly_once import CreateCall, Uncertain, exactly_once, recover, search
from unitune.backends.protocol import SAFE_TO_REPEAT, Event, Launch, State
from unitune.errors import BackendError, LockTimeout, UnituneError
from unitune.ledger import Ledger, RunRecord, budgeting
from unitune.ledger.leases import LONGEST_LEASE_SECONDS
from unitune.run.duplicates import jobs_with_key, searched_after_launch

CREATE_SECONDS = LONGEST_LEASE_SECONDS
"""How long a create call may take: that long at least, this process acts for the run."""
CANCELLED_LATE = "submit.cancelled:"
"""Beginning of the key of a warning: a process that stood still has cancelled its own job."""
INTERRUPTED = "the launch was interrupted while it created the job"


class _JobCall(CreateCall):
    """The create call of a run's attempt; `record` is the run as it was last written."""

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
    return _adopt_created(ledger, call.record, job_id)


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
    ids = jobs_with_key(ledger, record)
    return adopt(ledger, record, ids[0]) if len(ids) == 1 else record


def _uncertain(ledger: Ledger, record: RunRecord, uncertain: Uncertain) -> RunRecord:
    """Write down that only the user can know which job is the run's, and what to do."""
    advice = (
        f"{uncertain.reason}. Search {record.backend} for a job with {record.launch_key!r} in its "
        f"name: if there is one, `unitune resume {record.id} --adopt ITS_ID`, else "
        f"`unitune resume {record.id} --resubmit`."
    )
    return ledger.write(replace(record, state=State.UNCERTAIN, error=advice))


def _adopt_created(ledger: Ledger, record: RunRecord, job_id: str) -> RunRecord:
    """Adopt the job that this process has created, and look for a second one."""
    try:
        return searched_after_launch(ledger, adopt(ledger, record, job_id))
    except LockTimeout as error:
        raise LockTimeout(f"{error} {_cancel_created(ledger, record, job_id)}") from error


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
