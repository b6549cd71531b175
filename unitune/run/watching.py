"""Watch all runs from one process, within the vendors' rate limits.

A vendor that lists its jobs (`ListsJobs`) gets one request per interval, for the pages of its list
in turn; only runs that changed there are polled. Runs that no page lists, runs with a budget limit
and runs at other vendors are polled in turn, one per interval. Runs launched and changes seen by
other processes are included.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from unitune.backends import registry
from unitune.backends.capabilities import ListsJobs
from unitune.backends.protocol import State
from unitune.backends.retry import retry_delay, sleep
from unitune.errors import BackendError, LockTimeout, NotFoundError, UnituneError, UnreadableRecord
from unitune.ledger import Ledger, RunRecord, Standing
from unitune.ledger.budgeting import approval_of
from unitune.run.handle import Run
from unitune.run.launching import BEFORE_JOB
from unitune.run.notifying import notify_end
from unitune.tracking.feed import LATE, feeding, trackers_to_feed
from unitune.workspace.home import home

# Pause between two requests to a vendor: reads ten pages of a hundred jobs within a minute
INTERVAL_SECONDS = 5.0


@dataclass(slots=True)
class _Vendor:
    name: str  # name of the backend
    cursor: str = ""  # cursor of the next page of its list
    listed: set[str] = field(default_factory=set[str])  # jobs on the pages since the first page
    # Jobs to poll in turn, because no page listed them or a poll failed
    due: set[str] = field(default_factory=set[str])
    polled: dict[str, State] = field(default_factory=dict[str, State])
    # Order of the last polls in turn, as a count
    turns: dict[str, int] = field(default_factory=dict[str, int])
    rests_until: float = 0.0  # earliest time of the next request, on the monotonic clock

    def changed(self, waiting: Mapping[str, Standing], limited: Collection[str]) -> list[str]:
        """Send the vendor one request and return the jobs to poll, ended ones first."""
        backend = registry.backend(self.name)
        if not isinstance(backend, ListsJobs):
            return self._next(list(waiting))
        page = backend.list_jobs(self.cursor)
        changed = [
            job
            for job, listed in page.states.items()
            if job in waiting and self._differs(job, waiting[job].state, listed)
        ]
        # Continue with the next page, or with the first one when all jobs were listed.
        self.listed |= page.states.keys()
        missing = waiting.keys() - self.listed
        self.cursor = page.cursor if missing else ""
        if not self.cursor:
            self.due, self.listed = set(missing), set()
        due = [
            job
            for job, run in waiting.items()
            if job not in changed and (job in self.due or run.id in limited)
        ]
        return sorted(changed, key=lambda job: not page.states[job].ended) + self._next(due)

    def _differs(self, job: str, state: State, listed: State) -> bool:
        if listed is state:
            return False
        differs = listed.ended or self.polled.get(job) is not listed
        self.polled[job] = listed
        return differs

    def _next(self, jobs: list[str]) -> list[str]:
        if not jobs:
            return []
        job = min(jobs, key=lambda job: self.turns.get(job, 0))
        self.due.discard(job)
        self.turns[job] = max(self.turns.values(), default=0) + 1
        return [job]


@dataclass(slots=True)
class _Watch:
    ledger: Ledger  # ledger of the runs
    # State of each run when it was last yielded
    reported: dict[str, State] = field(default_factory=dict[str, State])
    vendors: dict[str, _Vendor] = field(default_factory=dict[str, _Vendor])  # backends by name
    # Errors of vendors and jobs that get no more requests, by name and id
    refused: dict[str, UnituneError] = field(default_factory=dict[str, UnituneError])
    # True for each run id that a budget limits
    limits: dict[str, bool] = field(default_factory=dict[str, bool])
    # True once trackers took too long; `unitune runs track` sends the rest
    tracking_is_late: bool = False

    def search_jobs(self) -> None:
        """Search once for the job of each uncertain run; ignore refusals."""
        for standing in self.ledger.standings():
            if standing.state is State.UNCERTAIN:
                self.reported[standing.id] = standing.state
                with suppress(UnituneError):
                    self._run(standing.id).refresh()

    def changed_elsewhere(self, standing: Standing) -> Iterator[Run]:
        """Yield a run that another process has changed."""
        if self.reported.setdefault(standing.id, standing.state) is not standing.state:
            with suppress(NotFoundError):  # another process has just deleted it
                yield from self._report(self._run(standing.id))

    def poll(self, name: str, waiting: Mapping[str, Standing]) -> Iterator[Run]:
        """Send a vendor one request, poll the jobs that changed, and yield their runs."""
        vendor = self.vendors.setdefault(name, _Vendor(name))
        limited = self._limited(waiting.values())
        if time.monotonic() < vendor.rests_until:
            for standing in waiting.values():
                if standing.id in limited:
                    with suppress(NotFoundError, BackendError, LockTimeout):  # until the next poll
                        yield from self._report(self._run(standing.id).hold_to_budget())
            return
        try:
            changed = vendor.changed(waiting, limited)
        except UnituneError as error:
            self._note(vendor, name, error)
            return
        for job in changed:
            try:
                run = self._run(waiting[job].id).refresh()
            except NotFoundError:
                continue  # another process has deleted the run
            except UnituneError as error:
                vendor.due.add(job)
                self._note(vendor, job, error)
            else:
                yield from self._report(run)

    def waiting(self, standings: Iterable[Standing]) -> dict[str, dict[str, Standing]]:
        """Return the runs with an open job, by backend and job."""
        waiting: dict[str, dict[str, Standing]] = {}
        for run in standings:
            if run.state.ended or run.state in (State.PAUSED, State.UNCERTAIN):
                continue
            if run.job_id is not None and not {run.job_id, run.backend} & self.refused.keys():
                waiting.setdefault(run.backend, {})[run.job_id] = run
        return waiting

    def _limited(self, runs: Iterable[Standing]) -> set[str]:
        """Return the runs with a budget limit; look up each run once."""
        for run in runs:
            if run.id not in self.limits:
                try:
                    approval = approval_of(self.ledger, run.id)
                    self.limits[run.id] = approval is not None and approval.is_limited
                except UnreadableRecord:
                    self.limits[run.id] = False  # its next poll raises this and is its last
        return {run_id for run_id, limited in self.limits.items() if limited}

    def _run(self, run_id: str) -> Run:
        return Run(self.ledger, self.ledger.record(run_id))

    def _report(self, run: Run) -> Iterator[Run]:
        if self.reported.get(run.id) is not run.state:
            self.reported[run.id] = run.state
            if run.state.ended:
                record = self.ledger.record(run.id)
                notify_end(self.ledger, record)
                self._track(record)
            yield run

    def _track(self, record: RunRecord) -> None:
        """Send an ended run to its trackers; do not wait for trackers that were late before."""
        names = () if self.tracking_is_late else trackers_to_feed(self.ledger, record)
        with feeding(self.ledger, record, names) as outcomes:
            pass
        self.tracking_is_late |= any(outcome.problem == LATE for outcome in outcomes)

    def _note(self, vendor: _Vendor, refused: str, error: UnituneError) -> None:
        if not (isinstance(error, LockTimeout) or error.is_retryable):
            self.refused[refused] = error
        elif isinstance(error, BackendError):
            vendor.rests_until = time.monotonic() + retry_delay(error, 0.0)


def watch_all(
    interval_seconds: float = INTERVAL_SECONDS, *, only: Collection[str] = ()
) -> Iterator[Run]:
    """Yield each run whose state has changed, until every run of the ledger is at rest.

    A vendor or a job that refuses requests gets no more; the others are still watched.

    Args:
        interval_seconds: Pause between two requests to each vendor.
        only: Ids of the runs to watch; empty for all.

    Raises:
        UnituneError: The first refusal, once the other runs are at rest.
    """
    watch = _Watch(Ledger(home()))
    watch.search_jobs()
    while True:
        started = time.monotonic()
        standings = [each for each in watch.ledger.standings() if not only or each.id in only]
        for standing in standings:
            yield from watch.changed_elsewhere(standing)
        if not (waiting := watch.waiting(standings)):
            break
        for name, jobs in waiting.items():
            yield from watch.poll(name, jobs)
        sleep(max(0.0, interval_seconds - (time.monotonic() - started)))
    for error in watch.refused.values():
        raise error


def goes_on(run: Run) -> bool:
    """Return whether a run has a queued or running job."""
    return not (run.state.ended or run.state in (*BEFORE_JOB, State.PAUSED, State.UNCERTAIN))


def refresh_local(ledger: Ledger, records: Iterable[RunRecord]) -> None:
    """Record the state of the runs that train on this machine, without calling vendors."""
    for run in filter(goes_on, (Run(ledger, record) for record in records)):
        with suppress(UnituneError, OSError):  # keep its last known state
            if registry.offer(run.backend_name).trains_here:
                run.refresh()


def tell_end(run_id: str) -> None:
    """Watch a run that has just ended, and notify the user once."""
    ledger = Ledger(home())
    for _ in Run(ledger, ledger.record(run_id)).watch():
        pass
    notify_end(ledger, ledger.record(run_id))


if __name__ == "__main__":
    tell_end(sys.argv[1])
