"""Deployments in the ledger: their rows, read and written. What they do is elsewhere.

Like a run, a deployment is written only by who read its present version.
"""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from unitune.errors import LockTimeout, NotFoundError
from unitune.ledger.database import Database
from unitune.ledger.records import DeploymentRecord, deployment_of, deployment_values
from unitune.ledger.tables import DEPLOYMENTS


def add(connection: sa.Connection, record: DeploymentRecord) -> None:
    """Write down a new deployment."""
    connection.execute(DEPLOYMENTS.insert().values(deployment_values(record)))


def write(database: Database, after: DeploymentRecord) -> DeploymentRecord:
    """Write a changed record and return it with its new version.

    Raises:
        LockTimeout: Another process has written since the record was read.
    """
    written = replace(after, version=after.version + 1)
    mine = (DEPLOYMENTS.c.id == after.id) & (DEPLOYMENTS.c.version == after.version)
    with database.writing() as connection:
        statement = DEPLOYMENTS.update().where(mine).values(deployment_values(written))
        if connection.execute(statement).rowcount != 1:
            raise LockTimeout(
                f"another process has just changed deployment {after.id}; look again."
            )
    return written


def read(database: Database, deployment_id: str) -> DeploymentRecord:
    """Return one deployment.

    Raises:
        NotFoundError: There is none of this id.
    """
    query = sa.select(DEPLOYMENTS).where(DEPLOYMENTS.c.id == deployment_id)
    with database.reading() as connection:
        row = connection.execute(query).mappings().one_or_none()
    if row is None:
        hint = "`unitune deployments` lists those that are."
        raise NotFoundError("deployment", deployment_id, (), hint)
    return deployment_of(row)


def read_all(database: Database) -> list[DeploymentRecord]:
    """Return all deployments, newest first."""
    with database.reading() as connection:
        return read_from(connection)


def read_from(connection: sa.Connection) -> list[DeploymentRecord]:
    """Return all deployments, newest first, as a transaction sees them."""
    query = sa.select(DEPLOYMENTS).order_by(DEPLOYMENTS.c.created.desc(), DEPLOYMENTS.c.id.desc())
    return [deployment_of(row) for row in connection.execute(query).mappings()]
