"""One job at the backend, whatever happens in between: how a run gets from state to state.

Each function takes the ledger and a record and returns the record as it then stands. The caller
acts for the run (`Ledger.acting`). Every state is written before it is acted on, so a process that
dies leaves a record that says how far it may have come:

    planned, uploading   nothing was created: go on (uploads are known by their hash)
    submitting           the create call may have been sent: look for the launch key first
    uncertain            nobody but the user can know: `adopt` or `attempt_again`
    others               there is a job: `poll`

What is not here: the handle that users hold (`unitune.runs.handle`), the search for a job whose
create call got no clear answer (`unitune.runs.settling`), and how rows are handed over
(`unitune.runs.uploading`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

from pydantic import JsonValue

from unitune import budgeting, registry
from unitune.abilities import Pauses
from unitune.backend import Event, Guarantee, Launch, State, Status
from unitune.errors import (
    BackendError,
    Busy,
    Interrupted,
    UnituneError,
    Unreachable,
    Unsupported,
    UserError,
)
from unitune.ledger import Ledger, RunRecord
from unitune.patience import (
    LONGEST_WISH_SECONDS,
    outcome_open,
    passes,
    patiently,
    pauses,
    rate_limited,
    wait,
    wished,
)
from unitune.runs.settling import adopt, locate, note_silence, settle, uncertain
from unitune.runs.uploading import files_to_hand_over, hand_over, uploads

__all__ = ["BEFORE_JOB", "adopt", "advance", "attempt_again", "cancel", "pause", "poll", "unpause"]

BEFORE_JOB = (State.PLANNED, State.UPLOADING, State.SUBMITTING)
"""States in which the backend may have no job yet."""
SAFE_TO_REPEAT = (Guarantee.TOKEN, Guarantee.OWN_ID)
"""Backends that make one job of two create calls with the same key."""
CREATE_CALLS = 2
"""Create calls without a clear answer before the user is told to resume later."""
RATE_LIMITED_TRIES = 5
"""How often a create call that was refused for its rate is sent again."""
CREATE_SECONDS = 120.0
"""How long a create call may take: that long at least, the run is in this process's hands."""
POLL_PATIENCE_SECONDS = 10.0
"""Likewise a poll; less, because others may want to act meanwhile."""
INTERRUPTED = "the launch was interrupted while it created the job"
OVERRUN = "unitune:overrun"
"""Key of the event that says why a run was cancelled for its cost."""


def advance(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Take a run on from where it stands until its backend has exactly one job.

    Raises:
        Unreachable: No answer came; `advance` can be called again.
        Interrupted: The user pressed Ctrl-C; `advance` can be called again.
        UnituneError: The backend refused; the run has failed, unless it is only asked too often.
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
        if rate_limited(error):
            raise BackendError(
                f"{error} Nothing is lost: {resume} goes on.",
                status=error.status,
                request_id=error.request_id,
                retry_after=error.retry_after,
            ) from error
        if not outcome_open(error):
            raise
        raise Unreachable(
            f"{error} Nothing is lost: {resume} finds out what became of the request and goes on."
        ) from error


def _advance(ledger: Ledger, record: RunRecord) -> RunRecord:
    if record.state is State.PLANNED:
        record = ledger.write(replace(record, state=State.UPLOADING))
    if record.state is State.UPLOADING:
        files = files_to_hand_over(ledger, record)
        with _refusal_fails(ledger, record):
            hand_over(ledger, record, files)
        return _create(ledger, record)
    if record.state is State.SUBMITTING:
        return _settle(ledger, record)
    return record


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
    ask = partial(registry.backend(record.backend).poll, _job_of(record), record.cursor)
    status = patiently(ask, POLL_PATIENCE_SECONDS)
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
    events = (*status.events, *_money(status, ledger.now))
    written = record if seen == record and not events else ledger.write(seen, events)
    if written.state is State.CANCELLING and status.state is not State.CANCELLING:
        return _cancelled_for_its_cost(ledger, written)
    return _within_limits(ledger, written)


def _money(status: Status, now: Callable[[], float]) -> Iterator[Event]:
    """Yield what the backend says of epochs, and, once the job has ended, of its bill.

    Before that the bill may still change.
    """
    if status.epochs is not None:
        data: dict[str, JsonValue] = {"epochs": status.epochs}
        yield Event(budgeting.EPOCHS, "message", now(), data)
    if status.state.ended:
        yield from budgeting.bill_events(status.billed_tokens, status.billed_usd, now())


def _within_limits(ledger: Ledger, record: RunRecord) -> RunRecord:
    """End a run that costs more than it may; settle the money of one that has ended."""
    if record.state.ended:
        budgeting.reconciled(ledger, record)
        return record
    if record.state is State.CANCELLING:
        return record
    reason = budgeting.overrun(ledger, record)
    if reason is None:
        return record
    data: dict[str, JsonValue] = {"text": f"cancelled by unitune: {reason}"}
    told = Event(OVERRUN, "warning", ledger.now(), data)
    return _send_cancel(ledger, ledger.write(replace(record, state=State.CANCELLING), [told]))


def _cancelled_for_its_cost(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Send a cancel again that nobody asked for and that nobody else would send.

    The process that decided on it may have died before it was sent.
    """
    decided = any(seen.event.key == OVERRUN for seen in ledger.events(record.id, record.attempt))
    if decided:
        with suppress(BackendError):  # the job may just have ended, or not listen twice
            registry.backend(record.backend).cancel(_job_of(record))
    return record


def pause(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Ask a job to stop for now.

    Raises:
        Unsupported: The backend cannot.
    """
    backend = registry.backend(record.backend)
    if not isinstance(backend, Pauses):
        raise Unsupported(
            f"run {record.id} cannot be paused: backend {record.backend!r} only ends a job "
            f"(unitune cancel {record.id})."
        )
    backend.pause(_job_of(record))
    return poll(ledger, record)


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
        record = _called_off(ledger, record)
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


def _create(ledger: Ledger, record: RunRecord, calls: int = CREATE_CALLS) -> RunRecord:
    """Announce and send the create call; no earlier call made a job that this one could double.

    It is sent again while it is refused for its rate, each time announced anew: what came of it is
    searched for from the last announcement on.

    Args:
        ledger: Where the run is written down.
        record: The run.
        calls: How many may be sent, as long as none gets a clear answer.
    """
    launch = _launch(ledger, record)
    budgeting.reserve(ledger, record)
    for tries, pause in enumerate(pauses()):
        record = ledger.write(replace(record, state=State.SUBMITTING))
        try:
            job_id = _sent(ledger, record, launch)
        except BackendError as error:
            if outcome_open(error):
                return _after_silence(ledger, record, error, calls - 1)
            if not rate_limited(error):
                raise
            record = _put_back(ledger, record)
            longer = wished(error, pause)
            if tries == RATE_LIMITED_TRIES or longer > LONGEST_WISH_SECONDS:
                raise
            wait(longer)
        else:
            return _adopted(ledger, record, job_id)
    raise AssertionError("pauses never end")


def _sent(ledger: Ledger, record: RunRecord, launch: Launch) -> str:
    """Send the create call, if the run is still in this process's hands; return the job's id."""
    ledger.hold(record, CREATE_SECONDS)
    with _refusal_fails(ledger, record):
        return registry.backend(record.backend).submit(launch)


def _adopted(ledger: Ledger, record: RunRecord, job_id: str) -> RunRecord:
    try:
        return adopt(ledger, record, job_id)
    except Busy as error:
        raise Busy(
            f"{error} The create call of this process was answered with job {job_id}: if that is "
            f"not the run's, cancel it at {record.backend}."
        ) from error


def _after_silence(ledger: Ledger, record: RunRecord, error: BackendError, calls: int) -> RunRecord:
    """Go on after a create call whose outcome is open; so many more may be sent."""
    record = note_silence(ledger, record, error)
    if _guarantee(record) in SAFE_TO_REPEAT:
        if calls:
            return _create(ledger, record, calls)
        raise error
    record = settle(ledger, record)
    if record.state is not State.SUBMITTING:
        return record
    if _guarantee(record) is Guarantee.SUFFIX_ONLY:
        return uncertain(ledger, record, f"the create call got no clear answer ({error})")
    if calls:
        return _create(ledger, _put_back(ledger, record), calls)
    raise error


def _settle(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Find out what became of a create call that another process may have sent, and go on."""
    guarantee = _guarantee(record)
    search = locate if guarantee in SAFE_TO_REPEAT else settle
    record = search(ledger, record)
    if record.state is not State.SUBMITTING:
        return record
    if guarantee is Guarantee.SUFFIX_ONLY:
        return uncertain(ledger, record, INTERRUPTED)
    return _create(ledger, record if guarantee in SAFE_TO_REPEAT else _put_back(ledger, record))


def _called_off(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Make sure that a create call which may have been sent has made no job, or find it."""
    search = locate if _guarantee(record) is Guarantee.OWN_ID else settle
    record = search(ledger, record)
    if record.state is State.SUBMITTING and _guarantee(record) is Guarantee.SUFFIX_ONLY:
        return uncertain(ledger, record, INTERRUPTED)
    return _put_back(ledger, record) if record.state is State.SUBMITTING else record


def _put_back(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Write down that the create call made nothing, so that the next one is the first again."""
    return ledger.write(replace(record, state=State.UPLOADING))


@contextmanager
def _refusal_fails(ledger: Ledger, record: RunRecord) -> Generator[None]:
    """Write the run down as failed when the backend says no."""
    try:
        yield
    except UnituneError as error:
        if not passes(error):
            ledger.write(replace(record, state=State.FAILED, error=str(error)))
        raise


def _launch(ledger: Ledger, record: RunRecord) -> Launch:
    there = uploads(ledger, record)
    return Launch(
        key=record.launch_key,
        job=ledger.job(record.id),
        training=there["train.jsonl"],
        validation=there.get("validation.jsonl"),
        folder=ledger.run_folder(record.id),
    )


def _guarantee(record: RunRecord) -> Guarantee:
    return registry.backend(record.backend).guarantee


def _job_of(record: RunRecord) -> str:
    if record.job_id is None:
        raise UserError(f"run {record.id} is {record.state} and has no job at {record.backend}.")
    return record.job_id
