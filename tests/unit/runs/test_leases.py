"""Of all who would act for a run, one does; whoever lost it can no longer write."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from crash.forks import Fork, eventually, stop_here, stopped

from unitune.backend import State
from unitune.errors import Busy, UnknownName
from unitune.keys import run_id
from unitune.ledger import Artefact, Ledger, RunRecord, leases
from unitune.ledger.holders import Holder, this_process
from unitune.ledger.tables import RUNS

End = Callable[[Fork], None]


@pytest.fixture
def ledger(tmp_path: Path, store: str) -> Ledger:
    del store
    return Ledger(tmp_path / ".unitune")


@pytest.fixture
def run(ledger: Ledger) -> str:
    now = time.time()
    record = RunRecord(run_id(now), "demo", "fake", "tiny", "sft", "f" * 64, now, now)
    ledger.add(record)
    return record.id


def hold_and_stop(ledger: Ledger, run: str) -> None:
    with ledger.acting(run):
        stop_here()


@pytest.fixture
def holder(ledger: Ledger, run: str) -> Iterator[Fork]:
    """Another process that holds the run, and stands still."""
    with stopped(lambda: hold_and_stop(ledger, run)) as fork:
        yield fork


def taken_by_another(ledger: Ledger, run: str) -> int:
    with ledger.acting(run) as record:
        return record.fence


def set_lease(ledger: Ledger, holder: Holder, seconds: float) -> None:
    """Write down that somebody holds the run for so long from now on."""
    until = ledger.now() + seconds
    with ledger._database.writing() as connection:
        connection.execute(RUNS.update().values(lease_holder=holder.text, lease_until=until))


def lease_end(ledger: Ledger) -> float:
    with ledger._database.reading() as connection:
        return connection.execute(sa.select(RUNS.c.lease_until)).scalar_one()


def test_threads_of_one_process_act_one_after_another(ledger: Ledger, run: str) -> None:
    inside: list[int] = []
    most: list[int] = []

    def act_often(mine: Ledger) -> None:
        for _ in range(10):
            with mine.acting(run):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    crowd = [threading.Thread(target=act_often, args=[Ledger(ledger.folder)]) for _ in range(3)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert [1] * 30 == most


def test_a_thread_that_waits_too_long_is_told(
    ledger: Ledger, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "WAIT_SECONDS", 0.02)
    with (
        ledger.acting(run),
        pytest.raises(Busy, match="another thread of this process"),
        ledger.acting(run),
    ):
        pass
    assert not ledger.is_held(run)


def test_a_live_holder_is_waited_for_and_then_named(
    ledger: Ledger, run: str, holder: Fork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "WAIT_SECONDS", 0.05)
    assert ledger.is_held(run)
    who = rf"another process \(process {holder.pid} on {this_process().host}\)"
    with pytest.raises(Busy, match=rf"{run} is in the hands of {who}"), ledger.acting(run):
        pass


def test_who_waits_gets_the_run_when_its_holder_is_done(
    ledger: Ledger, run: str, holder: Fork
) -> None:
    holder.go_on()
    with ledger.acting(run) as record:
        assert 2 == record.fence
    assert "None" == holder.result()


@pytest.mark.parametrize("end", [Fork.kill, Fork.end])
def test_a_dead_holder_is_followed_at_once(
    ledger: Ledger, run: str, holder: Fork, monkeypatch: pytest.MonkeyPatch, end: End
) -> None:
    end(holder)
    assert eventually(lambda: not ledger.is_held(run))
    monkeypatch.setattr(leases, "WAIT_SECONDS", 0)
    with ledger.acting(run) as record:
        assert 2 == record.fence


def test_a_pid_that_another_process_has_now_is_not_taken_for_the_holder(
    ledger: Ledger, run: str
) -> None:
    set_lease(ledger, replace(this_process(), started="1"), 3600)
    assert not ledger.is_held(run)
    with ledger.acting(run):
        assert ledger.is_held(run)


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"boot": "earlier"}, {"space": "pod"}])
@pytest.mark.parametrize("seconds", [60, 120])
def test_of_a_process_that_cannot_be_seen_only_the_time_tells(
    ledger: Ledger,
    run: str,
    change: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
) -> None:
    unseen = replace(this_process(), pid=2**22, **change)
    monkeypatch.setattr(leases, "WAIT_SECONDS", 0)
    set_lease(ledger, unseen, seconds)
    with pytest.raises(Busy, match=rf"{unseen}.*its hold ends within {seconds} seconds"):
        ledger.acting(run).__enter__()
    set_lease(ledger, unseen, -1)
    assert not ledger.is_held(run)
    with ledger.acting(run):
        pass


def test_a_lease_of_ones_own_that_was_never_given_back_is_taken(ledger: Ledger, run: str) -> None:
    set_lease(ledger, this_process(), 3600)
    with ledger.acting(run):
        pass
    assert not ledger.is_held(run)


def test_a_lease_is_renewed_while_its_work_goes_on(ledger: Ledger, run: str) -> None:
    def work() -> bool:
        leases.LEASE_SECONDS = 0.5
        with ledger.acting(run):
            first = lease_end(ledger)
            return eventually(lambda: lease_end(ledger) > first)

    assert "True" == Fork(work).result()  # in a process whose renewing thread is new


def test_a_hold_is_for_as_long_as_was_asked_at_least(ledger: Ledger, run: str) -> None:
    with ledger.acting(run) as record:
        end = lease_end(ledger)
        ledger.hold(record, 5)
        assert end == lease_end(ledger)
        ledger.hold(record, 3600)
        assert 3500 < lease_end(ledger) - end


def test_who_lost_the_run_can_neither_write_nor_hold_nor_delete(ledger: Ledger, run: str) -> None:
    with ledger.acting(run) as mine:
        set_lease(ledger, replace(this_process(), host="elsewhere"), -1)
        assert "2" == Fork(lambda: taken_by_another(ledger, run)).result()
        before = ledger.record(run)
        for act in (
            lambda: ledger.write(replace(mine, state=State.SUBMITTING)),
            lambda: ledger.add_artefact(mine, Artefact("upload", "train.jsonl", "r", "0")),
            lambda: ledger.hold(mine, 120),
            lambda: ledger.delete(mine),
        ):
            with pytest.raises(Busy, match=rf"taken run {run} over.*unitune show {run}"):
                act()
    assert before == ledger.record(run)
    assert [] == ledger.artefacts(run)


def test_a_run_that_is_not_there_is_said_to_be_unknown(ledger: Ledger, run: str) -> None:
    del run
    with pytest.raises(UnknownName, match="unitune runs"), ledger.acting("r251125-nobody"):
        pass
