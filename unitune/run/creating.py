"""The create call of a launch: announced, sent, and what follows from its answer.

A call that got no clear answer is searched for (`unitune.run.recovery`) before another is sent or
the run is given up. So is one that was refused in a way that proves little: for its rate, or for a
conflict. Which searches suffice depends on what the backend promises (`Guarantee`).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace

from unitune.backends import registry
from unitune.backends.capabilities import GuaranteesByServer
from unitune.backends.protocol import SAFE_TO_REPEAT, Event, Guarantee, Launch, State
from unitune.backends.retry import (
    delays,
    is_delay_too_long,
    retry_delay,
    sleep,
)
from unitune.errors import BackendError, LockTimeout, UnituneError
from unitune.ledger import Ledger, RunRecord, budgeting
from unitune.ledger.leases import LONGEST_LEASE_SECONDS
from unitune.run.duplicates import searched_after_launch
from unitune.run.recovery import adopt, locate, note_silence, settle, uncertain
from unitune.run.uploading import uploads

CREATE_CALLS = 2
"""Create calls without a clear answer before the user is told to resume later."""
CONFLICT = 409
RATE_LIMITED_TRIES = 5
"""How often a create call that was refused for its rate is sent again."""
CREATE_SECONDS = LONGEST_LEASE_SECONDS
"""How long a create call may take: that long at least, the run is in this process's hands."""
CANCELLED_LATE = "submit.cancelled:"
"""Beginning of the key of a warning: a process that stood still has cancelled its own job."""
INTERRUPTED = "the launch was interrupted while it created the job"


def create(ledger: Ledger, record: RunRecord, calls: int = CREATE_CALLS) -> RunRecord:
    """Announce and send the create call; no earlier call made a job that this one could double.

    It is sent again while it is refused for its rate, each time announced anew.

    Args:
        ledger: Where the run is written down.
        record: The run.
        calls: How many may be sent, as long as none gets a clear answer.
    """
    launch = _launch(ledger, record)
    budgeting.reserve(ledger, record)
    for tries, pause in enumerate(delays()):
        record = ledger.write(replace(record, state=State.SUBMITTING))
        ledger.hold(record, CREATE_SECONDS)
        try:
            job_id = registry.backend(record.backend).submit(launch)
        except UnituneError as error:
            if error.is_ambiguous:
                return _after_silence(ledger, record, error, calls - 1)
            if not error.is_rate_limited:
                return _refused(ledger, record, error)
            record = put_back(ledger, record)
            if tries == RATE_LIMITED_TRIES or is_delay_too_long(error):
                raise
            sleep(retry_delay(error, pause))
            record = located(ledger, record)
            if record.state is not State.UPLOADING:
                return record
        else:
            return _adopted(ledger, record, job_id)
    raise AssertionError("delays never end")


def find_out(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Find out what became of a create call that another process may have sent, and go on."""
    guarantee = _guarantee(ledger, record)
    search = locate if guarantee in SAFE_TO_REPEAT else settle
    record = search(ledger, record)
    if record.state is not State.SUBMITTING:
        return record
    if guarantee is Guarantee.SUFFIX_ONLY:
        return uncertain(ledger, record, INTERRUPTED)
    return create(ledger, record if guarantee in SAFE_TO_REPEAT else put_back(ledger, record))


def call_off(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Make sure that a create call which may have been sent has made no job, or find it."""
    guarantee = _guarantee(ledger, record)
    search = locate if guarantee is Guarantee.OWN_ID else settle
    record = search(ledger, record)
    if record.state is State.SUBMITTING and guarantee is Guarantee.SUFFIX_ONLY:
        return uncertain(ledger, record, INTERRUPTED)
    return put_back(ledger, record) if record.state is State.SUBMITTING else record


def located(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Search once for the job of a create call that was refused for its rate, if one was sent.

    Such a refusal is no proof: a proxy may have sent the call twice, and told of the second one.
    """
    announced = any(
        seen.state is State.SUBMITTING and seen.attempt == record.attempt
        for seen in ledger.transitions(record.id)
    )
    safe = registry.backend(record.backend).guarantee in SAFE_TO_REPEAT
    return locate(ledger, record) if announced and not safe else record


@contextmanager
def refusal_fails(ledger: Ledger, record: RunRecord) -> Generator[None]:
    """Write the run down as failed when the backend says no."""
    try:
        yield
    except UnituneError as error:
        if not error.is_retryable:
            ledger.write(replace(record, state=State.FAILED, error=str(error)))
        raise


def put_back(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Write down that the create call made nothing, so that the next one is the first again."""
    return ledger.write(replace(record, state=State.UPLOADING))


def _after_silence(ledger: Ledger, record: RunRecord, error: UnituneError, calls: int) -> RunRecord:
    """Go on after a create call whose outcome is open; so many more may be sent."""
    record = note_silence(ledger, record, error)
    guarantee = _guarantee(ledger, record)
    if guarantee in SAFE_TO_REPEAT:
        if calls:
            return create(ledger, record, calls)
        raise error
    record = settle(ledger, record)
    if record.state is not State.SUBMITTING:
        return record
    if guarantee is Guarantee.SUFFIX_ONLY:
        return uncertain(ledger, record, f"the create call got no clear answer ({error})")
    if calls:
        return create(ledger, put_back(ledger, record), calls)
    raise error


def _refused(ledger: Ledger, record: RunRecord, error: UnituneError) -> RunRecord:
    """Write the run down as failed, unless a conflict turns out to be with its own job.

    Raises:
        UnituneError: The refusal.
    """
    if isinstance(error, BackendError) and error.status == CONFLICT:
        record = locate(ledger, record)
        if record.state is not State.SUBMITTING:
            return record
    ledger.write(replace(record, state=State.FAILED, error=str(error)))
    raise error


def _adopted(ledger: Ledger, record: RunRecord, job_id: str) -> RunRecord:
    try:
        return searched_after_launch(ledger, adopt(ledger, record, job_id))
    except LockTimeout as error:
        raise LockTimeout(f"{error} {_made_in_vain(ledger, record, job_id)}") from error


def _made_in_vain(ledger: Ledger, record: RunRecord, job_id: str) -> str:
    """End the job that this process has just made, if the run has another one by now."""
    theirs = ledger.record(record.id).job_id
    if theirs == job_id:
        return f"It has found the job that this process made ({job_id})."
    if theirs is not None:
        with suppress(BackendError):
            registry.backend(record.backend).cancel(job_id)
            told = f"The run's job is {theirs}; this process made {job_id}, and has cancelled it."
            event = Event(f"{CANCELLED_LATE}{job_id}", "warning", ledger.now(), {"text": told})
            with suppress(UnituneError):  # it is told to the user in any case
                ledger.note(record, event)
            return told
    return (
        f"The create call of this process was answered with job {job_id}: if that is not the "
        f"run's, cancel it: unitune cancel {record.id} --job {job_id}"
    )


def _launch(ledger: Ledger, record: RunRecord) -> Launch:
    there = uploads(ledger, record)
    return Launch(
        key=record.launch_key,
        job=ledger.job(record.id),
        training=there["train.jsonl"],
        validation=there.get("validation.jsonl"),
        folder=ledger.run_folder(record.id),
    )


def _guarantee(ledger: Ledger, record: RunRecord) -> Guarantee:
    """Return what the backend promises at the server that the run's job is sent to."""
    backend = registry.backend(record.backend)
    if isinstance(backend, GuaranteesByServer):
        return backend.guarantee_of(ledger.job(record.id))
    return backend.guarantee
