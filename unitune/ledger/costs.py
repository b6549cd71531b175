"""Store what costs money: attempts of runs, and deployments.

One process at a time reserves money. `unitune.ledger.budgeting` reads approvals and outcomes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from unitune.errors import LockTimeout, NotFoundError
from unitune.ledger import audit
from unitune.ledger.database import Database
from unitune.ledger.postgres import PostgreSQL
from unitune.ledger.records import (
    COSTS,
    DEPLOYMENTS,
    RUNS,
    CostRecord,
    DeploymentRecord,
    Row,
    RunRecord,
    columns_of,
    read,
    state_of,
    values_of,
)
from unitune.ledger.sqlite import SQLite
from unitune.workspace.home import ledger_url

RESERVING = "costs"  # key of the lock for reserving money
ALL_COSTS = (
    sa.select(
        *columns_of(COSTS, CostRecord),
        RUNS.c.state,
        RUNS.c.job_id,
        RUNS.c.attempt.label("newest"),
    )
    .outerjoin(RUNS, RUNS.c.id == COSTS.c.run_id)
    .order_by(COSTS.c.id)
)
ALL_DEPLOYMENTS = sa.select(DEPLOYMENTS).order_by(
    DEPLOYMENTS.c.created.desc(), DEPLOYMENTS.c.id.desc()
)


@dataclass(frozen=True, slots=True)
class Books:
    """Everything that costs money, read while no other process reserves money."""

    costs: Sequence[CostRecord]
    deployments: Sequence[DeploymentRecord]
    now: float  # seconds since 1970, by the ledger's clock


class CostLedger:
    """Methods of a ledger for money; see `unitune.ledger.Ledger` for its arguments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        url = ledger_url()
        self._database: Database = PostgreSQL(url) if url else SQLite(folder / "ledger.db")

    @property
    def exists(self) -> bool:
        """True if there is data to read; a shared ledger always exists."""
        return self._database.exists

    @property
    def is_shared(self) -> bool:
        """True if several machines may use it."""
        return self._database.is_shared

    def now(self) -> float:
        """Return the time by the ledger's clock, in seconds since 1970."""
        with self._database.reading() as connection:
            return connection.execute(sa.select(self._database.clock())).scalar_one()

    def costs(self, run_id: str | None = None) -> list[CostRecord]:
        """Return the costs of one run, or of all runs, the oldest first."""
        query = ALL_COSTS if run_id is None else ALL_COSTS.where(COSTS.c.run_id == run_id)
        return [_cost_of(row) for row in self._rows(query)]

    def reserve(self, run: RunRecord, allow: Callable[[Books, CostRecord], str]) -> None:
        """Reserve money for an attempt of a run, also again after an interrupted launch.

        `allow` gets all costs and the attempt's own. It returns the approval that holds now, or
        raises if there is not enough money.
        """
        with self._reserving() as (connection, books):
            attempts = [cost for cost in books.costs if cost.run_id == run.id]
            cost = next((cost for cost in attempts if cost.attempt == run.attempt), None)
            if cost is None and attempts:  # further attempts have the terms of the first
                cost = replace(attempts[0], attempt=run.attempt, reserved=None, outcome=None)
                add(connection, run, cost.approval, run.updated)
            if cost is not None:
                values = {"approval": allow(books, cost), "reserved": books.now}
                connection.execute(_attempt(run).values(values))

    def settle(self, run: RunRecord, outcome: str) -> None:
        """Record the cost of a run's attempt."""
        with self._database.writing() as connection:
            connection.execute(_attempt(run).values(outcome=outcome))
            settled = {"attempt": run.attempt, "outcome": json.loads(outcome)}
            audit.record(self._database, connection, "run.settled", run.id, settled)

    def add_deployment(self, record: DeploymentRecord, allow: Callable[[Books], None]) -> None:
        """Record a new deployment and what it may cost, unless `allow` raises."""
        with self._reserving() as (connection, books):
            allow(books)
            connection.execute(DEPLOYMENTS.insert().values(values_of(record)))
            self._record_deployment(connection, record)

    def write_deployment(self, after: DeploymentRecord) -> DeploymentRecord:
        """Write a changed deployment and return its new version; LockTimeout if it has changed."""
        written = replace(after, version=after.version + 1)
        same = (DEPLOYMENTS.c.id == after.id) & (DEPLOYMENTS.c.version == after.version)
        with self._database.writing() as connection:
            statement = DEPLOYMENTS.update().where(same).values(values_of(written))
            if connection.execute(statement).rowcount != 1:
                raise LockTimeout(
                    f"another process has just changed deployment {after.id}. Try again."
                )
            self._record_deployment(connection, written)
        return written

    def deployments(self) -> list[DeploymentRecord]:
        """Return all deployments, newest first."""
        return [_deployment_of(row) for row in self._rows(ALL_DEPLOYMENTS)]

    def deployment(self, deployment_id: str) -> DeploymentRecord:
        """Return one deployment; NotFoundError if it does not exist."""
        for row in self._rows(sa.select(DEPLOYMENTS).where(DEPLOYMENTS.c.id == deployment_id)):
            return _deployment_of(row)
        hint = "To list deployments: unitune deployments"
        raise NotFoundError("deployment", deployment_id, (), hint)

    def _record_deployment(self, connection: sa.Connection, record: DeploymentRecord) -> None:
        data = {name: value for name, value in values_of(record).items() if name != "id"}
        audit.record(self._database, connection, f"deployment.{record.state}", record.id, data)

    def _rows(self, query: sa.Select[Any]) -> list[Row]:
        """Return the rows of a query; none if nothing was ever written."""
        if not self._database.exists:
            return []
        with self._database.reading() as connection:
            return list(connection.execute(query).mappings())

    @contextmanager
    def _reserving(self) -> Generator[tuple[sa.Connection, Books]]:
        """Yield the books and a transaction that excludes other processes from reserving money."""
        with self._database.writing() as connection:
            self._database.lock(connection, RESERVING)
            costs = connection.execute(ALL_COSTS).mappings()
            deployments = connection.execute(ALL_DEPLOYMENTS).mappings()
            now = connection.execute(sa.select(self._database.clock())).scalar_one()
            yield (
                connection,
                Books([*map(_cost_of, costs)], [*map(_deployment_of, deployments)], now),
            )


def add(connection: sa.Connection, run: RunRecord, approval: str, now: float) -> None:
    """Record what an attempt may cost, without reserving money."""
    values = {
        "run_id": run.id,
        "attempt": run.attempt,
        "backend": run.backend,
        "base_model": run.base_model,
        "approval": approval,
        "created": now,
    }
    connection.execute(COSTS.insert().values(values))


def forget(connection: sa.Connection, run: RunRecord) -> None:
    """Keep the costs of a deleted run; remove attempts that cost nothing."""
    same = COSTS.c.run_id == run.id
    if run.job_id is None:
        connection.execute(COSTS.delete().where(same, COSTS.c.outcome.is_(None)))
    connection.execute(COSTS.update().where(same).values(run_id=None))


def _attempt(run: RunRecord) -> sa.Update:
    return COSTS.update().where(COSTS.c.run_id == run.id, COSTS.c.attempt == run.attempt)


def _cost_of(row: Row) -> CostRecord:
    over = has_job = True
    if row["run_id"] is not None:
        earlier = row["attempt"] < row["newest"]
        over = earlier or state_of(row["state"]).ended
        # An earlier attempt that had a job was polled to its end, and so has an outcome.
        has_job = row["outcome"] is not None if earlier else row["job_id"] is not None
    return read(CostRecord, row, f"run {row['run_id']}", "cost", over=over, has_job=has_job)


def _deployment_of(row: Row) -> DeploymentRecord:
    return read(DeploymentRecord, row, f"deployment {row['id']}")
