"""A second job of one launch: its create call was delivered twice, or after we gave it up.

No search before a create call can exclude that. So the jobs that carry the run's key are looked
for when its own job is known, once more when the settle time is over, and when the job has ended.
A second one is reported as a warning with the command that cancels it. It is not cancelled by
itself: someone may have made it at the vendor on purpose, from the first job.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import JsonValue

from unitune.backends import registry
from unitune.backends.exactly_once import FIND_SECONDS
from unitune.backends.protocol import SAFE_TO_REPEAT, Event, State
from unitune.backends.retry import retry_rate_limited
from unitune.errors import BackendError, UserError
from unitune.ledger import Ledger, RunRecord

DUPLICATE = "submit.duplicate:"
"""Beginning of the key of a warning; the job's id follows."""
SEARCHED = "submit.searched"
"""Key of the event that says that the search after the settle time is done."""


def searched_after_launch(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Look for a second job of a run whose own one has just become known."""
    if _creates_single_job(record):
        return record
    try:
        events = list(_warnings(ledger, record))
    except BackendError:
        return record  # the job is there; polls search again
    return ledger.write(record, events) if events else record


def events_of_poll(ledger: Ledger, record: RunRecord, *, ended: bool) -> Iterator[Event]:
    """Yield a warning for each second job, when it is time to look.

    Args:
        ledger: Where the run is written down.
        record: With its own job.
        ended: Whether that has ended: then it is time, for the last time.
    """
    if _creates_single_job(record) or not (ended or _settle_time_is_over(ledger, record)):
        return
    try:
        yield from _warnings(ledger, record)
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
    """End a second job of a run, and leave the run's own alone.

    Raises:
        UserError: It is the run's own job, or does not carry the run's key.
        BackendError: The backend refused.
    """
    if job_id == record.job_id:
        raise UserError(
            f"job {job_id} is run {record.id}'s own. To end it: unitune cancel {record.id}"
        )
    others = [job for job in jobs_with_key(ledger, record) if job != record.job_id]
    if job_id not in others:
        listed = f"these do: {', '.join(others)}" if others else "no second job does"
        raise UserError(
            f"job {job_id} does not carry the key {record.launch_key!r} of run {record.id} at "
            f"{record.backend}; {listed}."
        )
    registry.backend(record.backend).cancel(job_id)


def jobs_with_key(ledger: Ledger, record: RunRecord) -> list[str]:
    """Return the jobs at the backend that carry the run's launch key.

    Raises:
        BackendError: The search got no response.
    """
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


def _warnings(ledger: Ledger, record: RunRecord) -> Iterator[Event]:
    for job in jobs_with_key(ledger, record):
        if job == record.job_id:
            continue
        text = (
            f"{record.backend} has a second job for this run, {job}, beside its own "
            f"({record.job_id}): the create call was delivered twice, or late. It is charged as "
            f"well. Cancel it: unitune cancel {record.id} --job {job}"
        )
        data: dict[str, JsonValue] = {"text": text, "job": job}
        yield Event(f"{DUPLICATE}{job}", "warning", ledger.now(), data)
