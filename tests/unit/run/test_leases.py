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
from support.records import a_record

from unitune.backends.protocol import State, Upload
from unitune.errors import LockTimeout, NotFoundError
from unitune.ledger import Ledger, leases
from unitune.ledger.holders import Holder, this_process
from unitune.ledger.records import RUNS

End = Callable[[Fork], None]


@pytest.fixture
def ledger(tmp_path: Path, store: str) -> Ledger:
    del store
    return Ledger(tmp_path / ".unitune")


@pytest.fixture
def run(ledger: Ledger) -> str:
    record = a_record()
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
    until = ledger._database.lease_clock() + seconds
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
    assert most == [1] * 30


def test_a_thread_that_waits_too_long_is_told(
    ledger: Ledger, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "WAIT_SECONDS", 0.02)
    with (
        ledger.acting(run),
        pytest.raises(LockTimeout, match="another thread of this process"),
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
    with pytest.raises(LockTimeout, match=rf"{run} is still held by {who}"), ledger.acting(run):
        pass


def test_who_waits_gets_the_run_when_its_holder_is_done(
    ledger: Ledger, run: str, holder: Fork
) -> None:
    holder.go_on()
    with ledger.acting(run) as record:
        assert record.fence == 2
    assert holder.result() == "None"


@pytest.mark.parametrize("end", [Fork.kill, Fork.end])
def test_a_dead_holder_is_followed_at_once(
    ledger: Ledger, run: str, holder: Fork, monkeypatch: pytest.MonkeyPatch, end: End
) -> None:
    end(holder)
    assert eventually(lambda: not ledger.is_held(run))
    monkeypatch.setattr(leases, "WAIT_SECONDS", 0)
    with ledger.acting(run) as record:
        assert record.fence == 2


def test_a_pid_that_another_process_has_now_is_not_taken_for_the_holder(
    ledger: Ledger, run: str
) -> None:
    set_lease(ledger, replace(this_process(), started="1"), 3600)
    assert not ledger.is_held(run)
    with ledger.acting(run):
        assert ledger.is_held(run)


def test_a_holder_before_the_machine_was_started_again_is_gone_where_all_are_of_one_machine(
    ledger: Ledger, run: str
) -> None:
    set_lease(ledger, replace(this_process(), boot="earlier"), 60)
    assert ledger._database.is_shared is ledger.is_held(run)


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"space": "pod"}])
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
    with pytest.raises(LockTimeout, match=rf"{unseen}.*its lease ends within {seconds} seconds"):
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

    assert Fork(work).result() == "True"  # in a process whose renewing thread is new


def renewed_in_spite_of(ledger: Ledger, run: str, fault: Callable[[], None]) -> bool:
    """Hold a run in a process whose renewals meet a fault; return whether they go on."""
    leases.LEASE_SECONDS = 0.3
    with ledger.acting(run):
        fault()
        first = lease_end(ledger)
        return eventually(lambda: lease_end(ledger) > first + leases.LEASE_SECONDS)


def fail_twice(real: Callable[..., bool]) -> Callable[..., bool]:
    left = [RuntimeError("no connection left in the pool"), MemoryError()]

    def failing(*arguments: object) -> bool:
        if left:
            raise left.pop()
        return real(*arguments)

    return failing


def test_renewals_go_on_whatever_goes_wrong_with_one(ledger: Ledger, run: str) -> None:
    def fault() -> None:
        leases.renew = fail_twice(leases.renew)

    assert Fork(lambda: renewed_in_spite_of(ledger, run, fault)).result() == "True"


@pytest.mark.parametrize("store", ["postgresql"], indirect=True)
def test_renewals_go_on_when_the_pool_has_connections_again(ledger: Ledger, run: str) -> None:
    """The pool's time-out is an error of SQLAlchemy's own, and none of the database's."""

    def fault() -> None:
        engine = ledger._database.engine
        engine.pool._timeout = 0.1  # pyright: ignore[reportAttributeAccessIssue]
        taken = [engine.connect() for _ in range(15)]
        time.sleep(2 * leases.LEASE_SECONDS)
        for connection in taken:
            connection.close()

    assert Fork(lambda: renewed_in_spite_of(ledger, run, fault)).result() == "True"


def test_a_thread_of_renewals_that_has_ended_is_begun_again(ledger: Ledger, run: str) -> None:
    def work() -> bool:
        ended = threading.Thread(target=int)
        ended.start()
        ended.join()
        leases._kept.thread = ended
        return renewed_in_spite_of(ledger, run, lambda: None)

    assert Fork(work).result() == "True"


def test_a_lease_that_could_not_be_given_back_is_given_back_later(ledger: Ledger, run: str) -> None:
    """While its process lives nobody else would take it."""

    def work() -> bool:
        leases.LEASE_SECONDS = 0.3
        leases._give_back = fail_twice(leases._give_back)
        with ledger.acting(run):
            pass
        stop_here()
        return eventually(lambda: not leases._kept.to_give_back)

    with stopped(work) as fork:
        assert ledger.is_held(run)
        fork.go_on()
        assert eventually(lambda: not ledger.is_held(run))
        assert fork.result() == "True"


def test_a_clock_that_was_set_back_keeps_no_run_for_a_holder_that_nobody_sees(
    ledger: Ledger, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "WAIT_SECONDS", 0)
    set_lease(ledger, replace(this_process(), space="pod"), 3600)
    with pytest.raises(LockTimeout, match="its lease ends within 120 seconds"), ledger.acting(run):
        pass
    with ledger._database.reading() as connection:
        query = sa.select(RUNS.c.lease_until - ledger._database.lease_clock())
        assert 110 < connection.execute(query).scalar_one() <= 120


def test_a_hold_is_for_as_long_as_was_asked_at_least(ledger: Ledger, run: str) -> None:
    with ledger.acting(run) as record:
        end = lease_end(ledger)
        ledger.hold(record, 5)
        assert end == lease_end(ledger)
        ledger.hold(record, 120)
        assert lease_end(ledger) - end > 50


def test_who_lost_the_run_can_neither_write_nor_hold_nor_delete(
    ledger: Ledger, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "renew", lambda *_: None)  # no renewal between loss and taking
    with ledger.acting(run) as mine:
        set_lease(ledger, replace(this_process(), host="elsewhere"), -1)
        assert Fork(lambda: taken_by_another(ledger, run)).result() == "2"
        before = ledger.record(run)
        for act in (
            lambda: ledger.write(replace(mine, state=State.SUBMITTING)),
            lambda: ledger.add_upload(mine, "train.jsonl", Upload("r", "0")),
            lambda: ledger.hold(mine, 120),
            lambda: ledger.delete(mine),
        ):
            with pytest.raises(
                LockTimeout, match=rf"taken run {run} over.*unitune runs show {run}"
            ):
                act()
    assert before == ledger.record(run)
    assert ledger.uploads(run) == {}


def test_a_run_that_is_not_there_is_said_to_be_unknown(ledger: Ledger, run: str) -> None:
    del run
    with pytest.raises(NotFoundError, match="unitune runs"), ledger.acting("r251125-nobody"):
        pass
