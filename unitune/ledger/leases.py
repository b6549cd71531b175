"""Who acts for a run, when several processes or machines meet at it: a lease with a fence.

The holder of a lease renews it while its work goes on, from a thread of its own. It ends when the
work ends, when its holder is known to be dead (on the same machine at once), or when it was not
renewed in time. Each holder gets a greater fence than the one before, and the ledger takes a write
only with the present fence: a process that stood still past its lease cannot undo what the next
one did.

Threads of one process wait for each other by a lock, so a lease of one's own that is left over was
never given back, and is taken. Time is the database's clock.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import NamedTuple

import sqlalchemy as sa

from unitune.errors import Busy, UnituneError, UnknownName
from unitune.ledger.database import Database
from unitune.ledger.holders import Holder, this_process
from unitune.ledger.records import RUN_FIELDS, RunRecord, run_of
from unitune.ledger.tables import RUNS

LEASE_SECONDS = 60.0
"""How long a holder that is not heard of keeps others of other machines waiting."""
WAIT_SECONDS = 30.0
"""How long to wait for another holder."""
FIRST_LOOK_SECONDS, SLOWEST_LOOK_SECONDS = 0.02, 0.25

Place = tuple[str, str]
"""A database by its name, and a run."""


class _Kept:
    """The leases that this process holds, renewed from one thread, at a third of their length."""

    def __init__(self) -> None:
        self.turns: dict[Place, threading.Lock] = {}
        self.leases: dict[Place, tuple[Database, int]] = {}
        self.thread: threading.Thread | None = None

    def keep(self, database: Database, run_id: str, fence: int) -> None:
        """Renew a lease until it is let go or lost; a lost one is noticed by the next write."""
        self.leases[database.name, run_id] = (database, fence)
        if self.thread is None:
            self.thread = threading.Thread(target=self._renew_for_ever, daemon=True)
            self.thread.start()

    def let_go(self, database: Database, run_id: str) -> None:
        """Renew a lease no more."""
        self.leases.pop((database.name, run_id), None)

    def _renew_for_ever(self) -> None:
        while True:
            time.sleep(LEASE_SECONDS / 3)
            for (_, run_id), (database, fence) in list(self.leases.items()):
                with suppress(UnituneError):  # the database may answer the next time
                    renew(database, run_id, fence, LEASE_SECONDS)


_kept = _Kept()
# A child has none of its parent's threads, and none of its leases.
os.register_at_fork(after_in_child=_kept.__init__)


@contextmanager
def acting(database: Database, run_id: str) -> Generator[RunRecord]:
    """Be the one process, and the one thread of it, that acts for a run while the body runs.

    Yields:
        The run as it stands.

    Raises:
        Busy: Another acts for it and does not end.
        UnknownName: There is no such run.
    """
    turn = _kept.turns.setdefault((database.name, run_id), threading.Lock())
    if not turn.acquire(timeout=WAIT_SECONDS):
        raise _busy(run_id, "another thread of this process", "")
    try:
        record = _taken(database, run_id)
        try:
            _kept.keep(database, run_id, record.fence)
            yield record
        finally:
            _kept.let_go(database, run_id)
            with suppress(UnituneError):  # it then ends by itself
                _give_back(database, run_id, record.fence)
    finally:
        turn.release()


def is_held(database: Database, run_id: str) -> bool:
    """Return whether a process acts for a run right now."""
    query = sa.select(RUNS.c.lease_holder).where(
        RUNS.c.id == run_id, RUNS.c.lease_until > database.clock()
    )
    with database.reading() as connection:
        holder = connection.execute(query).scalar()
    return holder is not None and not Holder.parse(holder).is_gone


def renew(database: Database, run_id: str, fence: int, seconds: float) -> bool:
    """Make sure that a lease is still one's own and stays so; return whether it is.

    Args:
        database: The ledger's.
        run_id: The run.
        fence: As it was when the lease was taken.
        seconds: How long it must last at least, from now.
    """
    with database.writing(durable=False) as connection:
        until = database.clock() + seconds
        longer = sa.case((RUNS.c.lease_until > until, RUNS.c.lease_until), else_=until)
        statement = RUNS.update().where(_mine(run_id, fence)).values(lease_until=longer)
        return connection.execute(statement).rowcount == 1


def taken_over(run_id: str) -> Busy:
    """Return the error of a process whose lease another one has taken."""
    return Busy(
        f"another process has taken run {run_id} over, because this one stood still for too long. "
        f"Nothing is lost: see where it is with `unitune show {run_id}`."
    )


def _taken(database: Database, run_id: str) -> RunRecord:
    """Take the lease, waiting for its holder."""
    end = time.monotonic() + WAIT_SECONDS
    pause = FIRST_LOOK_SECONDS
    while True:
        seen = _tried(database, run_id)
        if isinstance(seen, RunRecord):
            return seen
        if time.monotonic() >= end:
            last = (
                " If its machine is gone, its hold ends within "
                f"{max(1, math.ceil(seen.seconds_left))} seconds."
            )
            raise _busy(run_id, f"another process ({seen.holder})", last)
        time.sleep(pause)
        pause = min(1.5 * pause, SLOWEST_LOOK_SECONDS)


class _Held(NamedTuple):
    """Who has the lease, and for how long at most if nobody renews it.

    That is longer than `LEASE_SECONDS` while a create call is under way.
    """

    holder: Holder
    seconds_left: float


def _tried(database: Database, run_id: str) -> RunRecord | _Held:
    """Take the lease if it can be had, and return the run with its new fence; else who has it."""
    left = sa.func.coalesce(RUNS.c.lease_until - database.clock(), 0.0).label("left")
    query = sa.select(*[RUNS.c[name] for name in RUN_FIELDS], RUNS.c.lease_holder, left)
    with database.writing(durable=False) as connection:
        # Locked where the database has locks for rows: its holder may be about to write it.
        mine = query.where(RUNS.c.id == run_id).with_for_update()
        row = connection.execute(mine).mappings().one_or_none()
        if row is None:
            raise unknown(run_id)
        record, text = run_of(row), row["lease_holder"]
        holder = this_process() if text is None else Holder.parse(text)
        now = database.clock()
        free = sa.or_(RUNS.c.lease_holder.is_(None), RUNS.c.lease_until <= now)
        if holder == this_process() or holder.is_gone:
            free = sa.or_(free, RUNS.c.lease_holder == text)
        lease = {"lease_holder": this_process().text, "lease_until": now + LEASE_SECONDS}
        taken = connection.execute(
            RUNS.update()
            .where(_mine(run_id, record.fence), free)
            .values(**lease, fence=record.fence + 1)
        )
    if taken.rowcount == 1:
        return replace(record, fence=record.fence + 1)
    return _Held(holder, row["left"])


def _give_back(database: Database, run_id: str, fence: int) -> None:
    free = {"lease_holder": None, "lease_until": None}
    with database.writing(durable=False) as connection:
        connection.execute(RUNS.update().where(_mine(run_id, fence)).values(**free))


def _mine(run_id: str, fence: int) -> sa.ColumnElement[bool]:
    return sa.and_(RUNS.c.id == run_id, RUNS.c.fence == fence)


def unknown(run_id: str) -> UnknownName:
    """Return the error for a run that is not in the ledger."""
    return UnknownName("run", run_id, (), hint="`unitune runs` lists those that are.")


def _busy(run_id: str, who: str, last: str) -> Busy:
    return Busy(
        f"run {run_id} is in the hands of {who}, still after {WAIT_SECONDS:g} seconds. Wait until "
        f"it is done, or end it, and try again.{last}"
    )
