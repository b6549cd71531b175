"""The money of runs in the ledger: what each attempt may cost, has set aside, and has cost.

Deployments are paid from the same purse: money for either is set aside by one process at a time.

What stands in an approval and an outcome is known to `unitune.ledger.budgeting` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

import sqlalchemy as sa

from unitune.ledger import deployments
from unitune.ledger.database import Database
from unitune.ledger.records import (
    CostRecord,
    DeploymentRecord,
    Row,
    RunRecord,
    cost_of,
    state_of,
)
from unitune.ledger.tables import COSTS, RUNS

STORED = tuple(field.name for field in fields(CostRecord) if field.name not in ("over", "has_job"))
ONE_PURSE = "costs"
"""Key under which money is set aside, so that two launches cannot both take the last of it."""


def add(connection: sa.Connection, run: RunRecord, approval: str, now: float) -> None:
    """Write down what an attempt may cost; nothing is set aside yet."""
    connection.execute(
        COSTS.insert().values(
            run_id=run.id,
            attempt=run.attempt,
            backend=run.backend,
            base_model=run.base_model,
            approval=approval,
            created=now,
        )
    )


def read(connection: sa.Connection, run_id: str | None = None) -> list[CostRecord]:
    """Return what is written down, of one run or of all, oldest first."""
    query = (
        sa.select(
            *(COSTS.c[name] for name in STORED),
            RUNS.c.state,
            RUNS.c.job_id,
            RUNS.c.attempt.label("newest"),
        )
        .outerjoin(RUNS, RUNS.c.id == COSTS.c.run_id)
        .order_by(COSTS.c.id)
    )
    if run_id is not None:
        query = query.where(COSTS.c.run_id == run_id)
    return [_cost_of(row) for row in connection.execute(query).mappings()]


@dataclass(frozen=True, slots=True)
class Books:
    """All that costs money, as it stands while no other process sets money aside.

    Args:
        costs: Of runs.
        deployments: Of all of them.
        now: Seconds since 1970, by the ledger's clock.
    """

    costs: Sequence[CostRecord]
    deployments: Sequence[DeploymentRecord]
    now: float


@contextmanager
def one_purse(database: Database) -> Generator[tuple[sa.Connection, Books]]:
    """Give a transaction that writes while no other process sets money aside, and the books."""
    with database.writing() as connection:
        database.one_at_a_time(connection, ONE_PURSE)
        now = connection.execute(sa.select(database.clock())).scalar_one()
        yield connection, Books(read(connection), deployments.read_from(connection), now)


def reserve(database: Database, run: RunRecord, allow: Callable[[Books, CostRecord], str]) -> None:
    """Set the money of a run's attempt aside, unless there is not enough.

    What was set aside before a launch was interrupted is looked at anew, and counts from now on.

    Args:
        database: The ledger's.
        run: About to be submitted.
        allow: Is given all costs and the attempt's own, returns the approval that holds now, and
            raises when they are too much. No other process sets money aside meanwhile.
    """
    with one_purse(database) as (connection, books):
        mine = [cost for cost in books.costs if cost.run_id == run.id]
        own = next((cost for cost in mine if cost.attempt == run.attempt), None)
        if own is None and mine:  # a further attempt is launched on what the first was
            own = replace(mine[0], attempt=run.attempt, reserved=None, outcome=None)
            add(connection, run, own.approval, run.updated)
        if own is None:
            return
        approval = allow(books, own)
        connection.execute(_attempt(run).values(reserved=books.now, approval=approval))


def add_deployment(
    database: Database, record: DeploymentRecord, allow: Callable[[Books], None]
) -> None:
    """Write down a new deployment, and with it what it may cost, unless there is not enough.

    Args:
        database: The ledger's.
        record: The deployment.
        allow: Is given the books, and raises when it is too much.
    """
    with one_purse(database) as (connection, books):
        allow(books)
        deployments.add(connection, record)


def settle(database: Database, run: RunRecord, outcome: str) -> None:
    """Write down what an attempt has cost."""
    with database.writing() as connection:
        connection.execute(_attempt(run).values(outcome=outcome))


def forget(connection: sa.Connection, run: RunRecord) -> None:
    """Let costs stand without their run; what cost nothing goes with it."""
    mine = COSTS.c.run_id == run.id
    if run.job_id is None:
        connection.execute(COSTS.delete().where(mine, COSTS.c.outcome.is_(None)))
    connection.execute(COSTS.update().where(mine).values(run_id=None))


def _attempt(run: RunRecord) -> sa.Update:
    mine = (COSTS.c.run_id == run.id) & (COSTS.c.attempt == run.attempt)
    return COSTS.update().where(mine)


def _cost_of(row: Row) -> CostRecord:
    stored = {name: row[name] for name in STORED}
    if row["run_id"] is None:
        return cost_of({**stored, "over": True, "has_job": True})
    earlier = row["attempt"] < row["newest"]
    ended = earlier or state_of(row["state"]).ended
    # An earlier attempt that had a job was polled to its end, and so has an outcome.
    has_job = row["outcome"] is not None if earlier else row["job_id"] is not None
    return cost_of({**stored, "over": ended, "has_job": has_job})
