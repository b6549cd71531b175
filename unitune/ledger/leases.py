"""Decide which process acts for a run, with leases and fencing numbers.

A live process of this machine keeps its lease, even while it is stopped, because it may be about to
send a create call. A process elsewhere cannot be seen, so its lease ends if it is not renewed in
time. Each new holder gets a higher fence. Writes need the current fence, so a process that lost its
lease changes nothing.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import sqlalchemy as sa

from unitune.errors import LockTimeout, NotFoundError
from unitune.ledger.database import Database
from unitune.ledger.holders import Holder, Life, this_process
from unitune.ledger.records import RUNS, RunRecord, columns_of, run_of
from unitune.observability.logs import Log

LEASE_SECONDS = 60.0  # duration of a lease that is not renewed
# Maximum from now; a longer lease was written before a clock was set back
LONGEST_LEASE_SECONDS = 120.0
WAIT_SECONDS = 30.0  # maximum wait for another holder
FIRST_LOOK_SECONDS, SLOWEST_LOOK_SECONDS = 0.02, 0.25
WAIT_OR_END = "Wait until it is done, or end it, and try again."

# Renewals per lease duration; more often after a failure
RENEWALS, RENEWALS_AFTER_FAILURE = 3, 12

log = Log(__name__)
LeaseKey = tuple[str, str]  # name of the database, id of the run


class _Lease(NamedTuple):
    database: Database
    run_id: str
    fence: int

    @property
    def key(self) -> LeaseKey:
        return self.database.name, self.run_id


class _Kept:
    """Leases of this process, which one thread renews.

    Failed renewals and releases are repeated, as no other process takes a lease of a live one.
    """

    def __init__(self) -> None:
        self.turns: dict[LeaseKey, threading.Lock] = {}
        self.leases: dict[LeaseKey, _Lease] = {}
        self.to_give_back: set[_Lease] = set()
        self.thread: threading.Thread | None = None
        self.at_work = threading.Lock()
        """Lock for using the database, whose locks a fork would copy."""

    def keep(self, lease: _Lease) -> None:
        """Renew a lease until it is released or lost; the next write notices a lost lease."""
        self.leases[lease.key] = lease
        if self.thread is None or not self.thread.is_alive():
            self.thread = threading.Thread(target=self._renew_for_ever, daemon=True)
            self.thread.start()

    def give_back(self, lease: _Lease) -> None:
        """Release a lease now, or as soon as the database answers."""
        self.leases.pop(lease.key, None)
        self.to_give_back.add(lease)
        self._work_off([lease])

    def _renew_for_ever(self) -> None:
        renewals = RENEWALS
        while True:
            time.sleep(LEASE_SECONDS / renewals)
            with self.at_work:
                done = self._work_off([*self.leases.values(), *self.to_give_back])
            if not done and renewals == RENEWALS:
                log.warning("leases cannot be renewed, because the ledger does not answer")
            renewals = RENEWALS if done else RENEWALS_AFTER_FAILURE

    def _work_off(self, leases: Iterable[_Lease]) -> bool:
        """Renew or release leases; return whether all of that succeeded."""
        done = True
        for lease in leases:
            try:
                if lease in self.to_give_back:
                    _give_back(lease)
                    self.to_give_back.discard(lease)
                else:
                    renew(lease.database, lease.run_id, lease.fence, LEASE_SECONDS)
            except Exception:  # noqa: BLE001 - the database may answer next time
                done = False
        return done


_kept = _Kept()
# A forked child has no threads and no leases of its parent.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _kept.at_work.acquire(),  # noqa: PLW0108 - a child replaces the lock
        after_in_parent=lambda: _kept.at_work.release(),  # noqa: PLW0108 - a child replaces it
        after_in_child=_kept.__init__,
    )


@contextmanager
def acting(database: Database, run_id: str) -> Generator[RunRecord]:
    """Hold the lease of a run; see `Ledger.acting`. One thread of a process at a time does."""
    turn = _kept.turns.setdefault((database.name, run_id), threading.Lock())
    if not turn.acquire(timeout=WAIT_SECONDS):
        raise _busy(run_id, "another thread of this process")
    try:
        record = _taken(database, run_id)
        lease = _Lease(database, run_id, record.fence)
        try:
            _kept.keep(lease)
            log.debug("took the lease of run %s, fence %d", run_id, record.fence)
            yield record
        finally:
            _kept.give_back(lease)
            log.debug("returned the lease of run %s", run_id)
    finally:
        turn.release()


def is_held(database: Database, run_id: str) -> bool:
    """Return whether a process acts for a run right now."""
    query = sa.select(RUNS.c.lease_holder, _seconds_left(database)).where(RUNS.c.id == run_id)
    with database.reading() as connection:
        row = connection.execute(query).one_or_none()
    if row is None or row.lease_holder is None:
        return False
    held = _held(database, Holder.parse(row.lease_holder), row.left)
    if held.holder == this_process():
        return (database.name, run_id) in _kept.leases
    return held.keeps


def renew(database: Database, run_id: str, fence: int, seconds: float) -> bool:
    """Renew a lease for a number of seconds from now; return whether it was still held."""
    with database.writing(durable=False) as connection:
        until, latest = (
            database.lease_clock() + length for length in (seconds, LONGEST_LEASE_SECONDS)
        )
        lasts_longer = RUNS.c.lease_until.between(until, latest)
        longer = sa.case((lasts_longer, RUNS.c.lease_until), else_=until)
        statement = RUNS.update().where(_mine(run_id, fence)).values(lease_until=longer)
        return connection.execute(statement).rowcount == 1


def check_held(connection: sa.Connection, record: RunRecord) -> None:
    """Refuse a write if another process has taken the lease over.

    This is an update, not a query, so that no process can take the run over in between.

    Raises:
        LockTimeout: Another process has the lease.
    """
    held = _mine(record.id, record.fence)
    if connection.execute(RUNS.update().where(held).values(fence=record.fence)).rowcount != 1:
        raise taken_over(record.id)


def taken_over(run_id: str) -> LockTimeout:
    """Return the error for a process that has lost its lease."""
    return LockTimeout(
        f"another process has taken run {run_id} over, because this one did not respond for too "
        f"long. Nothing is lost. To see its state: unitune runs show {run_id}"
    )


def _taken(database: Database, run_id: str) -> RunRecord:
    end = time.monotonic() + WAIT_SECONDS
    pause = FIRST_LOOK_SECONDS
    while True:
        seen = _tried(database, run_id)
        if isinstance(seen, RunRecord):
            return seen
        if pause == FIRST_LOOK_SECONDS:
            log.info("waiting for the lease of run %s, held by %s", run_id, seen.holder)
        if time.monotonic() >= end:
            raise _busy(run_id, f"another process ({seen.holder})", seen.advice)
        time.sleep(pause)
        pause = min(1.5 * pause, SLOWEST_LOOK_SECONDS)


class _Held(NamedTuple):
    """Holder of a lease, its state, and the time left without a renewal.

    The time exceeds `LEASE_SECONDS` during a create call.
    """

    holder: Holder
    life: Life
    seconds_left: float

    @property
    def keeps(self) -> bool:
        """True if no other process may take the lease."""
        return self.life in ("running", "stopped") or (
            self.life == "unknown" and self.seconds_left > 0
        )

    @property
    def advice(self) -> str:
        """Instructions for the user."""
        pid = self.holder.pid
        if self.life == "stopped":
            return (
                f"That process is stopped. Continue it with `kill -CONT {pid}`, or end it with "
                f"`kill -KILL {pid}`, and try again."
            )
        if self.life == "running":
            return f"{WAIT_OR_END} To end it: kill {pid}"
        seconds = max(1, math.ceil(min(self.seconds_left, LONGEST_LEASE_SECONDS)))
        return f"{WAIT_OR_END} If its machine is down, its lease ends within {seconds} seconds."


def _held(database: Database, holder: Holder, seconds_left: float) -> _Held:
    """Return the state of a lease's holder.

    The users of a SQLite file are on one machine, so another boot is an earlier one. Source:
    "Write-Ahead Logging", https://sqlite.org/wal.html (2026-11-26).
    """
    gone = not database.is_shared and holder.was_before_this_boot
    return _Held(holder, "gone" if gone else holder.life, seconds_left)


def _tried(database: Database, run_id: str) -> RunRecord | _Held:
    """Take the lease and return the run with its new fence, or return the present holder."""
    query = sa.select(*columns_of(RUNS, RunRecord), RUNS.c.lease_holder, _seconds_left(database))
    with database.writing(durable=False) as connection:
        # Locks the row if the database can: the holder may be about to write it.
        mine = query.where(RUNS.c.id == run_id).with_for_update()
        if (row := connection.execute(mine).mappings().one_or_none()) is None:
            raise unknown(run_id)
        record, text = run_of(row), row["lease_holder"]
        lease = RUNS.update().where(_mine(run_id, record.fence))
        if text is not None and text != this_process().text:
            held = _held(database, Holder.parse(text), row["left"])
            if held.keeps:
                latest = database.lease_clock() + LONGEST_LEASE_SECONDS
                too_late = RUNS.c.lease_until > latest
                connection.execute(lease.where(too_late).values(lease_until=latest))
                return held
        until = database.lease_clock() + LEASE_SECONDS
        taken = {"lease_holder": this_process().text, "lease_until": until}
        connection.execute(lease.values(**taken, fence=record.fence + 1))
    return replace(record, fence=record.fence + 1)


def _seconds_left(database: Database) -> sa.Label[float]:
    return sa.func.coalesce(RUNS.c.lease_until - database.lease_clock(), 0.0).label("left")


def _give_back(lease: _Lease) -> None:
    free = {"lease_holder": None, "lease_until": None}
    with lease.database.writing(durable=False) as connection:
        connection.execute(RUNS.update().where(_mine(lease.run_id, lease.fence)).values(**free))


def _mine(run_id: str, fence: int) -> sa.ColumnElement[bool]:
    return sa.and_(RUNS.c.id == run_id, RUNS.c.fence == fence)


def unknown(run_id: str) -> NotFoundError:
    """Return the error for a run that is not in the ledger."""
    return NotFoundError("run", run_id, (), hint="To list runs: unitune runs --all")


def _busy(run_id: str, who: str, advice: str = WAIT_OR_END) -> LockTimeout:
    return LockTimeout(
        f"run {run_id} is still held by {who} after {WAIT_SECONDS:g} seconds. {advice}"
    )
