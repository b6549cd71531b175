"""What costs money, in the ledger: the attempts of runs, and deployments.

Money for either is set aside by one process at a time, so that two launches cannot both take the
last of it. What an approval and an outcome hold is the business of `unitune.ledger.budgeting`.
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

SETTING_ASIDE = "costs"  # key of the lock under which money is set aside
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
    """All that costs money, as it stands while no other process sets money aside.

    Args:
        costs: Of runs.
        deployments: Of all of them.
        now: Seconds since 1970, by the ledger's clock.
    """

    costs: Sequence[CostRecord]
    deployments: Sequence[DeploymentRecord]
    now: float


class CostLedger:
    """The part of a ledger that is about money; arguments as of `unitune.ledger.Ledger`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        url = ledger_url()
        self._database: Database = PostgreSQL(url) if url else SQLite(folder / "ledger.db")

    @property
    def exists(self) -> bool:
        """Whether there is anything to read; a shared one that is away exists."""
        return self._database.exists

    @property
    def is_shared(self) -> bool:
        """Whether several machines may use it."""
        return self._database.is_shared

    def now(self) -> float:
        """Return the time that all who share the ledger agree on, in seconds since 1970."""
        with self._database.reading() as connection:
            return connection.execute(sa.select(self._database.clock())).scalar_one()

    def costs(self, run_id: str | None = None) -> list[CostRecord]:
        """Return what is written down of the money of one run, or of all, oldest first."""
        query = ALL_COSTS if run_id is None else ALL_COSTS.where(COSTS.c.run_id == run_id)
        return [_cost_of(row) for row in self._rows(query)]

    def reserve(self, run: RunRecord, allow: Callable[[Books, CostRecord], str]) -> None:
        """Set the money of a run's attempt aside, unless there is not enough.

        What was set aside before a launch was interrupted is looked at anew, and counts from now
        on.

        Args:
            run: About to be submitted.
            allow: Is given all costs and the attempt's own, returns the approval that holds now,
                and raises when they are too much.
        """
        with self._setting_aside() as (connection, books):
            attempts = [cost for cost in books.costs if cost.run_id == run.id]
            cost = next((cost for cost in attempts if cost.attempt == run.attempt), None)
            if cost is None and attempts:  # a further attempt is launched on what the first was
                cost = replace(attempts[0], attempt=run.attempt, reserved=None, outcome=None)
                add(connection, run, cost.approval, run.updated)
            if cost is not None:
                values = {"approval": allow(books, cost), "reserved": books.now}
                connection.execute(_attempt(run).values(values))

    def settle(self, run: RunRecord, outcome: str) -> None:
        """Write down what a run's attempt has cost."""
        with self._database.writing() as connection:
            connection.execute(_attempt(run).values(outcome=outcome))
            settled = {"attempt": run.attempt, "outcome": json.loads(outcome)}
            audit.record(self._database, connection, "run.settled", run.id, settled)

    def add_deployment(self, record: DeploymentRecord, allow: Callable[[Books], None]) -> None:
        """Write down a new deployment, and with it what it may cost, unless `allow` raises."""
        with self._setting_aside() as (connection, books):
            allow(books)
            connection.execute(DEPLOYMENTS.insert().values(values_of(record)))
            self._record_deployment(connection, record)

    def write_deployment(self, after: DeploymentRecord) -> DeploymentRecord:
        """Write a changed deployment and return it with its new version.

        Raises:
            LockTimeout: Another process has written since the record was read.
        """
        written = replace(after, version=after.version + 1)
        same = (DEPLOYMENTS.c.id == after.id) & (DEPLOYMENTS.c.version == after.version)
        with self._database.writing() as connection:
            statement = DEPLOYMENTS.update().where(same).values(values_of(written))
            if connection.execute(statement).rowcount != 1:
                raise LockTimeout(
                    f"another process has just changed deployment {after.id}; look again."
                )
            self._record_deployment(connection, written)
        return written

    def deployments(self) -> list[DeploymentRecord]:
        """Return all deployments, newest first."""
        return [_deployment_of(row) for row in self._rows(ALL_DEPLOYMENTS)]

    def deployment(self, deployment_id: str) -> DeploymentRecord:
        """Return one deployment.

        Raises:
            NotFoundError: There is none of this id.
        """
        for row in self._rows(sa.select(DEPLOYMENTS).where(DEPLOYMENTS.c.id == deployment_id)):
            return _deployment_of(row)
        hint = "`unitune deployments` lists those that are."
        raise NotFoundError("deployment", deployment_id, (), hint)

    def _record_deployment(self, connection: sa.Connection, record: DeploymentRecord) -> None:
        data = {name: value for name, value in values_of(record).items() if name != "id"}
        audit.record(self._database, connection, f"deployment.{record.state}", record.id, data)

    def _rows(self, query: sa.Select[Any]) -> list[Row]:
        """Return the rows of a query; none where nothing was ever written."""
        if not self._database.exists:
            return []
        with self._database.reading() as connection:
            return list(connection.execute(query).mappings())

    @contextmanager
    def _setting_aside(self) -> Generator[tuple[sa.Connection, Books]]:
        """Give a transaction while no other process sets money aside, and the books."""
        with self._database.writing() as connection:
            self._database.lock(connection, SETTING_ASIDE)
            costs = connection.execute(ALL_COSTS).mappings()
            deployments = connection.execute(ALL_DEPLOYMENTS).mappings()
            now = connection.execute(sa.select(self._database.clock())).scalar_one()
            yield (
                connection,
                Books([*map(_cost_of, costs)], [*map(_deployment_of, deployments)], now),
            )


def add(connection: sa.Connection, run: RunRecord, approval: str, now: float) -> None:
    """Write down what an attempt may cost; nothing is set aside yet."""
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
    """Let costs stand without their run; what cost nothing goes with it."""
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
