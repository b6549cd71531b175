from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import pytest

from unitune.backends import registry
from unitune.backends.capabilities import JobPage
from unitune.backends.protocol import State, Status
from unitune.errors import BackendError, UnituneError, Unreachable
from unitune.ledger import Ledger, Standing
from unitune.run import watching
from unitune.run.run import Run, find_run, launch
from unitune.run.watching import watch_all
from unitune.testing import FakeBackend
from unitune.workspace.home import home

from .conftest import MakeJob

INTERVAL = 5.0
PAGE = 2


@dataclass
class Time:
    """Goes on only where somebody waits; something may be done at a moment."""

    now: float = 1000.0
    at: dict[float, Callable[[], object]] = field(default_factory=dict[float, Callable[[], object]])

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for moment in [moment for moment in self.at if moment <= self.now]:
            self.at.pop(moment)()


class Quiet(FakeBackend):
    """A vendor without lists, whose jobs run until their time has come."""

    def __init__(self, time: Time) -> None:
        self.time = time
        self.ends: dict[str, float] = {}
        self.polled: list[tuple[float, str]] = []
        self.refuses: dict[str, UnituneError] = {}

    def state(self, job_id: str) -> State:
        return State.SUCCEEDED if self.time.now >= self.ends[job_id] else State.RUNNING

    def poll(self, job_id: str, cursor: str) -> Status:
        self.polled.append((self.time.now, job_id))
        if job_id in self.refuses:
            raise self.refuses[job_id]
        return Status(self.state(job_id), "word", cursor=cursor)


class Lister(Quiet):
    """A vendor that lists its jobs, the newest first, and others that nobody waits for."""

    def __init__(self, time: Time) -> None:
        super().__init__(time)
        self.hidden: set[str] = set()
        self.old: list[str] = []
        self.pages: list[tuple[float, str]] = []
        self.fails: list[UnituneError] = []

    def list_jobs(self, cursor: str) -> JobPage:
        self.pages.append((self.time.now, cursor))
        if self.fails:
            raise self.fails.pop()
        states: Mapping[str, State] = {job: self.state(job) for job in reversed(self.ends)}
        shown = [job for job in [*states, *self.old] if job not in self.hidden]
        start = int(cursor or 0)
        page = {job: states.get(job, State.SUCCEEDED) for job in shown[start : start + PAGE]}
        return JobPage(page, str(start + PAGE) if start + PAGE < len(shown) else "")


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(watching, "time", made)
    monkeypatch.setattr(watching, "sleep", made.wait)
    return made


@pytest.fixture
def lister(time: Time, monkeypatch: pytest.MonkeyPatch) -> Lister:
    made = Lister(time)
    monkeypatch.setattr(registry, "backend", lambda _: made)
    return made


@pytest.fixture
def quiet(time: Time, monkeypatch: pytest.MonkeyPatch) -> Quiet:
    made = Quiet(time)
    monkeypatch.setattr(registry, "backend", lambda _: made)
    return made


@pytest.fixture
def launched(make_job: MakeJob) -> Callable[[Quiet, float], Run]:
    """Launch a run whose job ends so many seconds after the beginning."""

    def one(vendor: Quiet, end: float) -> Run:
        run = launch(make_job({}), allow_duplicate=True)
        vendor.ends[str(run.job_id)] = 1000.0 + end
        return run

    return one


Launched = Callable[[Quiet, float], Run]


def noticed(time: Time) -> Iterator[tuple[float, Run]]:
    """Yield each finish with the time of its notice."""
    for run in watch_all(INTERVAL):
        if run.state is State.SUCCEEDED:
            yield time.now - 1000.0, run


def polls_of(vendor: Quiet, run: Run) -> int:
    return [job for _, job in vendor.polled].count(str(run.job_id))


def test_a_vendor_is_asked_for_one_page_an_interval(
    lister: Lister, launched: Launched, time: Time
) -> None:
    ends = {launched(lister, end).id: end for end in (3.0, 21.0, 22.0, 43.0, 44.0)}
    seen = {run.id: at for at, run in noticed(time)}
    moments = [at for at, _ in lister.pages]
    assert moments == sorted(set(moments))
    assert all((at - 1000.0) % INTERVAL == 0 for at in moments)
    assert seen.keys() == ends.keys()
    assert all(0 <= seen[run] - end <= 3 * INTERVAL for run, end in ends.items())


def test_only_runs_that_have_moved_are_polled(
    lister: Lister, launched: Launched, time: Time
) -> None:
    run = launched(lister, 500.0)
    assert [seen.id for _, seen in noticed(time)] == [run.id]
    assert polls_of(lister, run) == 2, "once running, once done"
    assert len(lister.pages) >= 100


def test_pages_behind_the_last_run_that_is_waited_for_are_not_asked_for(
    lister: Lister, launched: Launched, time: Time
) -> None:
    lister.old = [f"old-{number}" for number in range(50)]
    for _ in range(3):
        launched(lister, 60.0)
    assert len(list(noticed(time))) == 3
    assert {cursor for _, cursor in lister.pages} == {"", "2"}


def test_a_run_that_no_page_shows_is_polled_in_its_turn(
    lister: Lister, launched: Launched, time: Time
) -> None:
    hidden = [launched(lister, 30.0) for _ in range(3)]
    lister.hidden = {str(run.job_id) for run in hidden}
    launched(lister, 500.0)
    first, second, third, _ = [at for at, _ in noticed(time)]
    assert first < second < third <= 30.0 + 3 * INTERVAL


def test_a_vendor_without_lists_is_polled_once_an_interval(
    quiet: Quiet, launched: Launched, time: Time
) -> None:
    for _ in range(4):
        launched(quiet, 40.0)
    assert len(list(noticed(time))) == 4
    moments = [at for at, _ in quiet.polled]
    assert moments == sorted(set(moments))


def test_runs_that_are_launched_meanwhile_join(
    lister: Lister, launched: Launched, time: Time
) -> None:
    first = launched(lister, 20.0)
    time.at[1010.0] = lambda: launched(lister, 30.0)
    seen = [run.id for _, run in noticed(time)]
    assert len(seen) == 2
    assert first.id == seen[0]


def test_what_another_process_has_noticed_is_told(
    lister: Lister, launched: Launched, time: Time
) -> None:
    run = launched(lister, 7.0)
    time.at[1010.0] = lambda: find_run(run.id).refresh()
    assert [seen.id for _, seen in noticed(time)] == [run.id]


@pytest.mark.parametrize(
    ("error", "rest"),
    [(Unreachable("gone"), 0.0), (BackendError("slow down", status=429, retry_after=30.0), 30.0)],
)
def test_a_vendor_that_fails_for_a_while_is_asked_again_when_it_wishes(
    lister: Lister, launched: Launched, time: Time, error: UnituneError, rest: float
) -> None:
    launched(lister, 10.0)
    lister.fails = [error]
    assert len(list(noticed(time))) == 1
    first, second, *_ = [at for at, _ in lister.pages]
    assert max(rest, INTERVAL) == second - first


def test_what_refuses_is_told_in_the_end_and_does_not_stop_the_others(
    lister: Lister, launched: Launched, time: Time
) -> None:
    gone, other = launched(lister, 10.0), launched(lister, 40.0)
    lister.refuses[str(gone.job_id)] = BackendError("there is no such job", status=404)
    seen: list[str] = []
    with pytest.raises(BackendError, match="no such job"):
        seen.extend(run.id for _, run in noticed(time))
    assert polls_of(lister, gone) == 1
    assert State.SUCCEEDED is find_run(other.id).state


def test_a_poll_that_fails_is_repeated_in_the_next_interval(
    lister: Lister, launched: Launched, time: Time
) -> None:
    run = launched(lister, 0.0)
    for number in range(6):
        launched(lister, 100.0 + number)
    lister.refuses[str(run.job_id)] = Unreachable("no answer")
    time.at[1020.0] = lister.refuses.clear
    at, _ = next(noticed(time))
    assert at <= 25.0


def test_a_run_that_is_deleted_between_list_and_poll_is_waited_for_no_more(
    lister: Lister, launched: Launched, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, other = launched(lister, 0.0), launched(lister, 0.0)
    listed = lister.list_jobs

    def list_jobs(cursor: str) -> JobPage:
        ledger = Ledger(home())
        if gone.id in {record.id for record in ledger.records()}:
            ledger.delete(ledger.record(gone.id))
        return listed(cursor)

    monkeypatch.setattr(lister, "list_jobs", list_jobs)
    assert [run.id for _, run in noticed(time)] == [other.id]
    assert polls_of(lister, gone) == 0


def test_a_run_that_is_deleted_once_it_was_seen_to_have_ended_is_not_told(
    lister: Lister, launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, other = launched(lister, 500.0), launched(lister, 20.0)
    standings = Ledger.standings
    looks = 0

    def seen(ledger: Ledger) -> list[Standing]:
        nonlocal looks
        looks += 1
        if looks == 2:
            ledger.write(replace(ledger.record(gone.id), state=State.CANCELLED))
        found = standings(ledger)
        if looks == 2:
            ledger.delete(ledger.record(gone.id))
        return found

    monkeypatch.setattr(Ledger, "standings", seen)
    told = [(run.id, run.state) for run in watch_all(INTERVAL)]
    assert (gone.id, State.CANCELLED) not in told
    assert told[-1] == (other.id, State.SUCCEEDED)
