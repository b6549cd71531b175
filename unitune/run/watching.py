"""Watching all runs from one process, within the vendors' rate limits.

`watch_all` asks a vendor that lists its jobs (`ListsJobs`) for one page an interval, going through
the pages in turn, and polls only runs whose state has changed there. Runs that no page shows, and
runs at other vendors, are polled in turn, one an interval; so are those that a budget limits,
because a list does not tell how far they are. So a thousand runs cost a vendor one request an
interval, and one poll for each run that has moved.

The ledger says each time which runs there are: those that other processes launch join, and what
others have noticed is told, too.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from unitune.backends import registry
from unitune.backends.capabilities import JobPage, ListsJobs
from unitune.backends.protocol import State
from unitune.backends.retry import retry_delay, sleep
from unitune.errors import BackendError, LockTimeout, NotFoundError, UnituneError, UnreadableRecord
from unitune.ledger import Ledger, Standing
from unitune.ledger.budgeting import is_limited
from unitune.run.handle import Run
from unitune.workspace.home import home

INTERVAL_SECONDS = 5.0
"""Between two requests to a vendor: ten pages of a hundred jobs are seen within a minute."""


@dataclass(slots=True)
class _Vendor:
    """What a watcher remembers of one backend.

    Args:
        name: The backend's.
        cursor: JobPage of its list that is asked for next.
        listed: Jobs that the pages since the first one have shown.
        due: Jobs to be polled in turn: the last time through all pages has not shown them, or a
            poll has failed.
        polled: State that the list showed when a job was last polled.
        turns: When a job was last polled in its turn, by a count.
        rests_until: When it may be asked again, on the monotonic clock.
    """

    name: str
    cursor: str = ""
    listed: set[str] = field(default_factory=set[str])
    due: set[str] = field(default_factory=set[str])
    polled: dict[str, State] = field(default_factory=dict[str, State])
    turns: dict[str, int] = field(default_factory=dict[str, int])
    rests_until: float = 0.0

    def moved(self, waiting: Mapping[str, Standing], limited: Collection[str]) -> list[str]:
        """Ask the vendor once, and return the jobs that are to be polled, ended ones first.

        Args:
            waiting: The runs there that have not ended, by job.
            limited: Those of them that a budget limits.
        """
        backend = registry.backend(self.name)
        if not isinstance(backend, ListsJobs):
            return self._next(list(waiting))
        page = backend.list_jobs(self.cursor)
        moved = [job for job in page.states if job in waiting and self._differs(waiting[job], page)]
        self._turn_page(page, waiting)
        due = [
            job
            for job, run in waiting.items()
            if job not in moved and (job in self.due or run.id in limited)
        ]
        return sorted(moved, key=lambda job: not page.states[job].ended) + self._next(due)

    def _differs(self, run: Standing, page: JobPage) -> bool:
        job = str(run.job_id)
        listed = page.states[job]
        if listed is run.state:
            return False
        news = listed.ended or self.polled.get(job) is not listed
        self.polled[job] = listed
        return news

    def _turn_page(self, page: JobPage, waiting: Mapping[str, Standing]) -> None:
        """Go on to the next page, or to the first one once all that is waited for was shown."""
        self.listed |= page.states.keys()
        missing = waiting.keys() - self.listed
        self.cursor = page.cursor if missing else ""
        if not self.cursor:
            self.due = set(missing)
            self.listed = set()

    def _next(self, jobs: list[str]) -> list[str]:
        """Return the job whose turn it is, if there is any."""
        if not jobs:
            return []
        job = min(jobs, key=lambda one: self.turns.get(one, 0))
        self.due.discard(job)
        self.turns[job] = max(self.turns.values(), default=0) + 1
        return [job]


@dataclass(slots=True)
class _Watch:
    """What a watcher knows.

    Args:
        ledger: Where the runs are.
        told: State of each run that was told last.
        vendors: By name.
        refused: What vendors and jobs that are asked no more have said, by name and id.
        limits: Whether a budget limits a run, by its id.
    """

    ledger: Ledger
    told: dict[str, State] = field(default_factory=dict[str, State])
    vendors: dict[str, _Vendor] = field(default_factory=dict[str, _Vendor])
    refused: dict[str, UnituneError] = field(default_factory=dict[str, UnituneError])
    limits: dict[str, bool] = field(default_factory=dict[str, bool])

    def news(self, seen: Standing) -> Iterator[Run]:
        """Yield a run that has changed since it was told last."""
        if self.told.setdefault(seen.id, seen.state) is not seen.state:
            with suppress(NotFoundError):  # another process has just deleted it
                yield self._tell(self._run(seen.id))

    def look_for_jobs(self) -> None:
        """Look once for the job of each uncertain run; a vendor that refuses leaves it as it is."""
        for seen in self.ledger.standings():
            if seen.state is State.UNCERTAIN:
                self.told[seen.id] = seen.state
                with suppress(UnituneError):
                    self._run(seen.id).refresh()

    def look(self, name: str, waiting: Mapping[str, Standing]) -> Iterator[Run]:
        """Ask a vendor once, and poll what has moved there."""
        vendor = self.vendors.setdefault(name, _Vendor(name))
        if name in self.refused:
            return
        if time.monotonic() < vendor.rests_until:
            yield from self._held_to_budget(waiting)
            return
        try:
            moved = vendor.moved(waiting, self._limited(waiting.values()))
        except UnituneError as error:
            self._note(vendor, name, error)
            return
        for job in moved:
            try:
                run = self._run(waiting[job].id).refresh()
            except NotFoundError:
                continue  # another process has deleted the run
            except UnituneError as error:
                vendor.due.add(job)
                self._note(vendor, job, error)
            else:
                if self.told[run.id] is not run.state:
                    yield self._tell(run)

    def _held_to_budget(self, waiting: Mapping[str, Standing]) -> Iterator[Run]:
        """Hold runs to their budgets while their vendor is not asked how they stand."""
        limited = self._limited(waiting.values())
        for seen in waiting.values():
            if seen.id in limited:
                with suppress(NotFoundError, BackendError, LockTimeout):  # the next look tells
                    run = self._run(seen.id).hold_to_budget()
                    if self.told[run.id] is not run.state:
                        yield self._tell(run)

    def _limited(self, runs: Iterable[Standing]) -> set[str]:
        """Return the runs that are cancelled when they cost too much; each is looked up once."""
        for run in runs:
            if run.id not in self.limits:
                try:
                    self.limits[run.id] = is_limited(self.ledger, run.id)
                except UnreadableRecord:
                    self.limits[run.id] = False  # its next poll says so, and is its last
        return {run_id for run_id, limited in self.limits.items() if limited}

    def _run(self, run_id: str) -> Run:
        return Run(self.ledger, self.ledger.record(run_id))

    def _tell(self, run: Run) -> Run:
        self.told[run.id] = run.state
        return run

    def _note(self, vendor: _Vendor, asked: str, error: UnituneError) -> None:
        """Ask again when that can help, and not before the vendor wishes; else no more."""
        if not (isinstance(error, LockTimeout) or error.is_retryable):
            self.refused[asked] = error
        elif isinstance(error, BackendError):
            vendor.rests_until = time.monotonic() + retry_delay(error, 0.0)


def watch_all(interval_seconds: float = INTERVAL_SECONDS) -> Iterator[Run]:
    """Yield each run whose state has changed, until every run of the ledger is at rest.

    A vendor or a job that refuses to be asked is asked no more, and the others are watched on.

    Args:
        interval_seconds: Between two looks at each vendor.

    Raises:
        UnituneError: What the first that refused has said, once the others are at rest.
    """
    watch = _Watch(Ledger(home()))
    watch.look_for_jobs()
    while True:
        started = time.monotonic()
        found = watch.ledger.standings()
        for seen in found:
            yield from watch.news(seen)
        waiting = _waiting(found, watch.refused)
        if not waiting:
            break
        for name, jobs in waiting.items():
            yield from watch.look(name, jobs)
        sleep(max(0.0, interval_seconds - (time.monotonic() - started)))
    for error in watch.refused.values():
        raise error


def _waiting(
    found: list[Standing], refused: Mapping[str, UnituneError]
) -> dict[str, dict[str, Standing]]:
    """Return the runs that go on, by backend and job."""
    waiting: dict[str, dict[str, Standing]] = {}
    for run in found:
        job, name = run.job_id, run.backend
        if job is not None and not _rests(run) and not {job, name} & refused.keys():
            waiting.setdefault(name, {})[job] = run
    return waiting


def _rests(run: Standing) -> bool:
    return run.state.ended or run.state in (State.PAUSED, State.UNCERTAIN)
