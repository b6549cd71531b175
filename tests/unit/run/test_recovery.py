"""After a create call without a clear answer: the search for its job, and what follows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from unitune.backends import retry
from unitune.backends.protocol import Guarantee, Launch, State
from unitune.errors import BackendError, Interrupted, Unreachable
from unitune.run.run import Run, launch, runs
from unitune.testing import FakeBackend

from .conftest import Clock, MakeJob

SEARCHED = (Guarantee.FINDABLE, Guarantee.SUFFIX_ONLY)
SETTLE_SECONDS = 120


@dataclass
class Vendor:
    """A vendor with one job a create call, whose list shows a job late and whose answers are lost.

    Args:
        clock: Its and ours.
        late_seconds: How long its list does not show a job.
        create_seconds: How long a create call takes.
        answers: What comes of each create call: an error before there is a job; None: a job, and
            no answer.
        searches: What comes of each look at its list: an error, or None for the list; None after.
    """

    clock: Clock
    late_seconds: float = 0
    create_seconds: float = 0
    answers: list[BackendError | None] = field(default_factory=list[BackendError | None])
    searches: list[BackendError | None] = field(default_factory=list[BackendError | None])
    made: list[float] = field(default_factory=list[float])
    searched: list[float] = field(default_factory=list[float])

    def submit(self, _: Launch) -> str:
        self.clock.now += self.create_seconds
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        self.made.append(self.clock.now)
        raise Unreachable("the answer was lost.")

    def find(self, _key: str, _folder: Path) -> list[str]:
        self.searched.append(self.clock.now)
        answer = self.searches.pop(0) if self.searches else None
        if answer is not None:
            raise answer
        shown = (made for made in self.made if self.clock.now >= made + self.late_seconds)
        return [f"job-{number}" for number, _ in enumerate(shown)]


@pytest.fixture
def vendor(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Vendor:
    made = Vendor(clock)
    monkeypatch.setattr(FakeBackend, "guarantee", Guarantee.FINDABLE)
    monkeypatch.setattr(FakeBackend, "submit", lambda _, launch: made.submit(launch))
    monkeypatch.setattr(FakeBackend, "find", lambda _, key, folder: made.find(key, folder))
    return made


def too_often(retry_after: float | None = None) -> BackendError:
    return BackendError("too often.", status=429, retry_after=retry_after)


def messages(run: Run) -> list[str]:
    return [str(event.data["text"]) for event in run.events()]


@pytest.mark.parametrize("guarantee", SEARCHED)
@pytest.mark.parametrize("late_seconds", [0, 30, SETTLE_SECONDS])
def test_a_job_that_the_list_shows_late_is_adopted_and_not_made_again(
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
    vendor: Vendor,
    guarantee: Guarantee,
    late_seconds: float,
) -> None:
    monkeypatch.setattr(FakeBackend, "guarantee", guarantee)
    vendor.late_seconds = late_seconds
    run = launch(make_job({}))
    assert (run.state, run.job_id) == (State.QUEUED, "job-0")
    assert len(vendor.made) == 1


def test_a_create_call_that_made_nothing_is_sent_again_only_after_the_settle_time(
    make_job: MakeJob, vendor: Vendor
) -> None:
    vendor.answers = [Unreachable("the request was lost.")]
    begun = vendor.clock.now
    run = launch(make_job({}))
    assert (run.state, run.job_id) == (State.QUEUED, "job-0")
    assert vendor.made == [begun + SETTLE_SECONDS]


def test_the_settle_time_of_a_slow_create_call_begins_when_its_answer_is_given_up(
    make_job: MakeJob, vendor: Vendor
) -> None:
    vendor.create_seconds, vendor.late_seconds = SETTLE_SECONDS - 10, 30
    assert launch(make_job({})).job_id == "job-0"
    assert len(vendor.made) == 1


def test_the_settle_time_begins_with_the_last_of_several_refused_create_calls(
    make_job: MakeJob, vendor: Vendor
) -> None:
    vendor.answers = [too_often(55), too_often(55), too_often(55)]
    vendor.late_seconds = 30
    run = launch(make_job({}))
    assert run.job_id == "job-0"
    assert len(vendor.made) == 1
    again = [State.UPLOADING, State.SUBMITTING]
    assert [at.state for at in run.transitions()] == [State.PLANNED, *again * 4, State.QUEUED]


def test_a_create_call_that_is_refused_for_its_rate_again_and_again_leaves_a_run_to_resume(
    make_job: MakeJob, vendor: Vendor
) -> None:
    vendor.answers = [too_often() for _ in range(9)]
    with pytest.raises(BackendError, match=r"too often\. Nothing is lost: `unitune runs resume r"):
        launch(make_job({}))
    (run,) = runs()
    assert State.UPLOADING is run.state
    assert vendor.clock.slept == [1, 2, 4, 8, 15]
    once_before_each_repeated_call = 5
    assert once_before_each_repeated_call == len(vendor.searched)


def test_a_vendor_that_wants_a_long_pause_is_not_waited_for(
    make_job: MakeJob, vendor: Vendor
) -> None:
    vendor.answers = [too_often(retry.MAX_RETRY_AFTER_SECONDS + 1)]
    with pytest.raises(BackendError, match="too often"):
        launch(make_job({}))
    assert vendor.clock.slept == []


@pytest.fixture
def interrupted(make_job: MakeJob, vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose launch was stopped some seconds into the search for its job."""
    sleep = vendor.clock.sleep

    def stop(seconds: float) -> None:
        sleep(seconds)
        if len(vendor.clock.slept) == 3:
            raise KeyboardInterrupt

    vendor.answers = [Unreachable("the request was lost.")]
    with monkeypatch.context() as stopping:
        stopping.setattr(vendor.clock, "sleep", stop)
        with pytest.raises(Interrupted, match="unitune runs resume r"):
            launch(make_job({}))
    (run,) = runs()
    return run


@pytest.mark.parametrize("set_forward", [0, 3600, -3600])
def test_who_takes_a_search_over_waits_the_whole_window_whatever_the_time_of_day(
    interrupted: Run, vendor: Vendor, set_forward: float
) -> None:
    vendor.clock.set_forward = set_forward
    begun = vendor.clock.now
    assert interrupted.resume().job_id == "job-0"
    assert vendor.made == [begun + SETTLE_SECONDS]


def test_a_clock_that_is_set_forward_between_kill_and_resume_makes_no_second_job(
    make_job: MakeJob, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list lags: a search that trusted the time of day would end before it shows the job."""
    vendor.late_seconds = 6

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(vendor.clock, "sleep", stop)
        with pytest.raises(Interrupted):
            launch(make_job({}))
    vendor.clock.set_forward = 3600
    (run,) = runs()
    assert run.resume().job_id == "job-0"
    assert len(vendor.made) == 1


def test_watchers_are_told_once_for_each_search_why_nothing_happens(interrupted: Run) -> None:
    interrupted.resume()
    silence = "the create call got no clear response (the"
    waiting = "searching for up to 120 s, because the vendor's list may "
    told = messages(interrupted)
    assert [
        next(beginning for beginning in (silence, waiting) if text.startswith(beginning))
        for text in told
    ] == [silence, waiting, waiting, silence]


def test_a_search_bears_a_vendor_that_fails_or_is_asked_too_often(
    make_job: MakeJob, vendor: Vendor
) -> None:
    vendor.searches = [Unreachable("gone."), BackendError("stumbled.", status=503), too_often(7)]
    assert launch(make_job({})).job_id == "job-0"
    assert vendor.clock.slept == [1, 2, 7]


def test_a_search_that_is_never_answered_leaves_the_run_to_be_resumed_and_makes_no_second_job(
    make_job: MakeJob, vendor: Vendor
) -> None:
    vendor.searches = [Unreachable("gone.") for _ in range(99)]
    with pytest.raises(Unreachable, match=r"gone\. Nothing is lost: `unitune runs resume r"):
        launch(make_job({}))
    (run,) = runs()
    assert State.SUBMITTING is run.state
    vendor.searches = []
    assert run.resume().job_id == "job-0"
    assert len(vendor.made) == 1


def test_a_search_that_is_refused_is_told_at_once(make_job: MakeJob, vendor: Vendor) -> None:
    vendor.searches = [BackendError("the key has expired.", status=401)]
    with pytest.raises(BackendError, match="expired"):
        launch(make_job({}))
    assert vendor.clock.slept == []
    assert State.SUBMITTING is runs()[0].state
