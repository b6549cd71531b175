"""What became of a create call without a clear answer: the search for its job.

A vendor's list may show a job only some time after it was made. So the search goes on for the
offer's settle time, by a clock that nobody can set: whoever searches waits that long itself,
however long ago the ledger says that the create call was sent. While it waits, the state is on
record, and the run has an event that says so.

What follows when nothing is found is the business of `unitune.run.launching`.
"""

from __future__ import annotations

import time
from dataclasses import replace

from unitune.backends import registry
from unitune.backends.protocol import Event, State
from unitune.backends.retry import delays, retry_delay, retry_rate_limited, sleep
from unitune.errors import BackendError, UnituneError
from unitune.ledger import Ledger, RunRecord

FIND_PATIENCE_SECONDS = 60.0
"""How long one search bears that the vendor is asked too often."""
SILENCE, SETTLING = "unitune:silence:", "unitune:settling:"
"""Beginnings of the keys of events."""


def adopt(ledger: Ledger, record: RunRecord, job_id: str) -> RunRecord:
    """Write down which job at the backend is the run's."""
    return ledger.write(replace(record, state=State.QUEUED, job_id=job_id, error=None))


def settle(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Search for the job of an unclear create call until it would have shown.

    Args:
        ledger: Where the run is written down.
        record: In the state submitting.

    Returns:
        The run with its job; uncertain when there are several; submitting still when there is none.

    Raises:
        BackendError: The last search got no answer, so nothing is known.
    """
    seconds = registry.offer(record.backend).settle_seconds
    end = time.monotonic() + seconds
    for tries, pause in enumerate(delays()):
        over = time.monotonic() >= end  # looked at first: the last search starts after the window
        longer = pause
        try:
            record = locate(ledger, record)
        except BackendError as error:
            if over or not error.is_retryable:
                raise
            longer = retry_delay(error, pause)
        if record.state is not State.SUBMITTING or over:
            break
        if tries == 0:
            record = _tell(ledger, record, seconds)
        sleep(min(longer, max(end - time.monotonic(), 0.0)))
    return record


def locate(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Search once for a job that carries the launch key, and adopt it.

    Returns:
        As for `settle`.
    """
    found = jobs_of(ledger, record)
    if len(found) > 1:
        return uncertain(ledger, record, f"several jobs carry its key ({', '.join(found)})")
    return adopt(ledger, record, found[0]) if found else record


def look_again(ledger: Ledger, record: RunRecord) -> RunRecord:
    """Search once more for the job of an uncertain run, and adopt it if it is the only one."""
    found = jobs_of(ledger, record)
    return adopt(ledger, record, found[0]) if len(found) == 1 else record


def jobs_of(ledger: Ledger, record: RunRecord) -> list[str]:
    """Return the jobs at the backend that carry the run's launch key.

    Raises:
        BackendError: The backend does not say.
    """
    backend, folder = registry.backend(record.backend), ledger.run_folder(record.id)
    return retry_rate_limited(
        lambda: backend.find(record.launch_key, folder), FIND_PATIENCE_SECONDS
    )


def uncertain(ledger: Ledger, record: RunRecord, why: str) -> RunRecord:
    """Write down that only the user can know which job is the run's, and what to do."""
    advice = (
        f"{why}. Look at {record.backend} for a job with {record.launch_key!r} in its name: if "
        f"there is one, `unitune resume {record.id} --adopt ITS_ID`, else "
        f"`unitune resume {record.id} --resubmit`."
    )
    return ledger.write(replace(record, state=State.UNCERTAIN, error=advice))


def note_silence(ledger: Ledger, record: RunRecord, error: UnituneError) -> RunRecord:
    """Write down that a create call got no clear answer, and when that was."""
    text = f"the create call got no clear answer: {error}"
    return ledger.write(
        record, [Event(f"{SILENCE}{record.version}", "message", ledger.now(), {"text": text})]
    )


def _tell(ledger: Ledger, record: RunRecord, seconds: float) -> RunRecord:
    """Let watchers know, once for each search, why nothing happens."""
    text = (
        f"waiting up to {seconds:.0f} s for the list of {record.backend} to show the job that the "
        "create call may have made"
    )
    key = f"{SETTLING}{record.version}"
    return ledger.write(record, [Event(key, "message", ledger.now(), {"text": text})])
