"""A process that stood still past its lease, while another took its run over, does no harm.

It is one of another container: one that can be seen is not taken over while it lives.
"""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Literal

import pytest
from crash.forks import stop_here, stopped
from crash.killing import a_job, jobs_at_the_vendor
from support.records import interrupted_in_its_upload

from unitune.backends.protocol import Guarantee, State
from unitune.errors import LockTimeout, Unreachable
from unitune.ledger import Ledger, holders, leases
from unitune.run import creating
from unitune.run.run import Run, find_run, launch, runs
from unitune.testing import FakeBackend

LEASE_SECONDS = 0.2
"""Only of processes that stop; a longer one would only be waited for."""
LOST = ["lose request"] * 2
When = Literal["before", "after"]


def interrupted(folder: Path) -> Run:
    with pytest.raises(Unreachable):
        launch(a_job(folder, {"submits": LOST, "steps": 99}))
    (run,) = runs()
    assert State.SUBMITTING is run.state
    return run


def resume_and_stop(run_id: str, owner: type, verb: str, when: When) -> str:
    """Resume a run with a short lease, and stop before or after something that this does."""
    leases.LEASE_SECONDS = LEASE_SECONDS
    in_another_container()
    real = getattr(owner, verb)

    @wraps(real)
    def stopping(*arguments: object) -> object:
        if when == "before":
            stop_here()
        result = real(*arguments)
        if when == "after":
            stop_here()
        return result

    setattr(owner, verb, stopping)
    return str(find_run(run_id).resume().state)


def in_another_container() -> None:
    """Let nobody see whether this process lives."""
    holders._space = lambda: "another container"
    holders._holder.cache_clear()


@pytest.fixture
def short_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Create calls that are known to be over soon."""
    monkeypatch.setattr(creating, "CREATE_SECONDS", LEASE_SECONDS)


def create_calls(folder: Path, run: Run) -> int:
    return (folder / "vendor" / f"{run.id}.creates").stat().st_size


@pytest.mark.parametrize(
    ("owner", "verb", "when"),
    [(FakeBackend, "find", "after"), (Ledger, "hold", "before"), (Ledger, "write", "before")],
    ids=["after the search", "before the create call", "before a write"],
)
def test_a_process_that_was_taken_over_writes_and_creates_nothing(
    place: Path, owner: type, verb: str, when: When
) -> None:
    run = interrupted(place)
    with stopped(lambda: resume_and_stop(run.id, owner, verb, when)) as still:
        run.resume()
        before_it_goes_on = Ledger(place / "ledger").record(run.id)
        still.go_on()
        told = still.result()
    assert told.startswith(f"LockTimeout: another process has taken run {run.id} over")
    assert before_it_goes_on == Ledger(place / "ledger").record(run.id)
    assert jobs_at_the_vendor(place) == [run.job_id]
    assert len(LOST) + 1 == create_calls(place, run)


def test_a_process_that_stood_still_in_an_upload_does_not_write_it_down(place: Path) -> None:
    run = interrupted_in_its_upload(a_job(place, {}))
    with stopped(lambda: resume_and_stop(run.id, FakeBackend, "upload", "after")) as still:
        run.resume()
        uploads = Ledger(place / "ledger").uploads(run.id)
        still.go_on()
        assert "LockTimeout: another process has taken run" in still.result()
    assert uploads == Ledger(place / "ledger").uploads(run.id)
    assert create_calls(place, run) == 1


def test_a_launch_that_stood_still_while_it_was_cancelled_creates_nothing(place: Path) -> None:
    run = interrupted(place)
    with stopped(lambda: resume_and_stop(run.id, Ledger, "hold", "before")) as still:
        assert State.CANCELLED is run.cancel().state
        still.go_on()
        assert "LockTimeout: another process has taken run" in still.result()
    assert jobs_at_the_vendor(place) == []
    assert State.CANCELLED is find_run(run.id).state


@pytest.mark.usefixtures("short_calls")
def test_a_create_call_of_a_process_that_was_taken_over_finds_the_job_where_the_vendor_has_keys(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeBackend, "guarantee", Guarantee.OWN_ID)
    run = interrupted(place)
    with stopped(lambda: resume_and_stop(run.id, FakeBackend, "submit", "before")) as still:
        run.resume()
        still.go_on()
        assert f"found the job that this process created ({run.job_id})" in still.result()
    assert jobs_at_the_vendor(place) == [run.job_id]


@pytest.mark.usefixtures("short_calls")
def test_a_process_that_stood_still_within_its_create_call_cancels_the_job_that_it_made(
    place: Path,
) -> None:
    """Nothing can take back a request that was being sent; but its sender knows whose job it is."""
    run = interrupted(place)
    with stopped(lambda: resume_and_stop(run.id, FakeBackend, "submit", "before")) as still:
        run.resume()
        still.go_on()
        told = still.result()
    (surplus,) = set(jobs_at_the_vendor(place)) - {run.job_id}
    assert f"this process created {surplus} and cancelled it" in told
    assert any(surplus in str(event.data.get("text")) for event in run.events())
    assert State.CANCELLING is FakeBackend().poll(surplus, "").state
    assert not run.refresh().state.ended


def test_a_process_is_not_taken_over_while_its_create_call_may_be_under_way(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "WAIT_SECONDS", 2 * LEASE_SECONDS)
    run = interrupted(place)
    with stopped(lambda: resume_and_stop(run.id, FakeBackend, "submit", "before")) as still:
        with pytest.raises(LockTimeout, match=f"process {still.pid} on"):
            run.resume()
        still.go_on()
        assert still.result() == "queued"
    assert jobs_at_the_vendor(place) == [run.refresh().job_id]
