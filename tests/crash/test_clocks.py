"""One job a run, also when somebody sets the clock, or a process stands still before its call."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from crash.forks import Fork, eventually, stop_here, stopped
from crash.killing import a_job, jobs_at_the_vendor
from support.known import known

from unitune.backends.protocol import Launch, State
from unitune.errors import LockTimeout
from unitune.ledger import holders, leases
from unitune.run.run import Run, launch, runs
from unitune.testing import FakeBackend

SET_FORWARD_SECONDS = 3600.0
SECONDS_IN_CALL = 1.0
real_time, real_submit = time.time, FakeBackend.submit


def launching(folder: Path, before_it_is_sent: Callable[[], None]) -> Callable[[], str]:
    """Launch in a fork, whose create call is sent once something has been done."""

    def launched() -> str:
        def submit(backend: FakeBackend, asked: Launch) -> str:
            before_it_is_sent()
            return real_submit(backend, asked)

        FakeBackend.submit = submit
        return str(launch(a_job(folder, {"steps": 99})).state)

    return launched


def submitting() -> Run | None:
    """Return the run once its create call is announced."""
    return next((run for run in runs() if run.state is State.SUBMITTING), None)


@pytest.mark.parametrize("seen", [True, False], ids=["a process here", "another container"])
def test_a_clock_that_is_set_forward_gives_nobody_a_run_whose_create_call_is_on_its_way(
    place: Path, monkeypatch: pytest.MonkeyPatch, *, seen: bool
) -> None:
    def on_its_way() -> None:
        time.sleep(SECONDS_IN_CALL)

    def launched() -> str:
        if not seen:
            holders._space = lambda: "another container"
            holders._holder.cache_clear()
        return launching(place, on_its_way)()

    first = Fork(launched)
    try:
        assert eventually(lambda: submitting() is not None)
        monkeypatch.setattr(time, "time", lambda: real_time() + SET_FORWARD_SECONDS)
        run = known(submitting())
        assert not run.interrupted
        run.resume()
        assert first.result() == "queued"
    finally:
        first.end()
    assert jobs_at_the_vendor(place) == [run.job_id]


@pytest.mark.parametrize("how", ["it goes on", "it is ended"])
def test_a_process_that_stands_still_before_its_create_call_is_named_and_not_taken_over(
    place: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Its lease is long over; yet it may send the call whenever it goes on."""
    monkeypatch.setattr(leases, "LONGEST_LEASE_SECONDS", 0.1)
    monkeypatch.setattr(leases, "WAIT_SECONDS", 0.3)
    # It is not stopped within a renewal, when it would hold the database, too.
    monkeypatch.setattr(leases, "LEASE_SECONDS", 30.0)
    monkeypatch.setattr("unitune.run.creating.CREATE_SECONDS", 0.1)
    with stopped(launching(place, stop_here)) as still:
        (run,) = runs()
        advice = f"stopped. Continue it with `kill -CONT {still.pid}`, or end it with `kill -KILL"
        with pytest.raises(LockTimeout, match=advice):
            run.resume()
        assert jobs_at_the_vendor(place) == []
        if how == "it goes on":
            still.go_on()
            assert still.result() == "queued"
        else:
            still.kill()
            assert eventually(lambda: run.interrupted)
        run.resume()
    assert jobs_at_the_vendor(place) == [run.job_id]
