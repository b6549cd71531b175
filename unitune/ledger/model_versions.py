"""Store registered models: versions, which never change, and the moves of their aliases.

An alias points to the version of its last move, so moving it inserts one row. Versions of deleted
runs stay.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from unitune.errors import LockTimeout, UserError
from unitune.ledger import audit, leases
from unitune.ledger.costs import CostLedger
from unitune.ledger.records import METADATA, RunRecord, read
from unitune.models import TunedModel

MODEL_VERSIONS = sa.Table(
    "model_versions",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.String(40), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("run_id", sa.String(20), nullable=False),
    sa.Column("tuned_model", sa.JSON, nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.UniqueConstraint("model", "number", name="model_versions_once"),
    sa.UniqueConstraint("run_id", name="model_versions_of_run"),
)
ALIAS_MOVES = sa.Table(
    "alias_moves",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.String(40), nullable=False, index=True),
    sa.Column("alias", sa.String(40), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("previous", sa.Integer),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("moved_by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("comparison", sa.String(20)),
    sa.Column("verdict_sha256", sa.String(64)),
)


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """Version of a registered model, which never changes: the model of one succeeded run.

    Args:
        model: Name of the registered model.
        number: Number of the version, counted from 1.
        run_id: Id of the run, which may be deleted.
        fingerprint: SHA-256 of the adapter's files, or of the id of a vendor's model.
        created: Time of registration, UTC.
        created_by: User who registered it.
    """

    model: str
    number: int
    run_id: str
    tuned_model: TunedModel
    fingerprint: str
    created: datetime
    created_by: str

    def __str__(self) -> str:
        return f"{self.model}:{self.number}"


@dataclass(frozen=True, slots=True)
class AliasMove:
    """Move of an alias; an alias points to the version of its last move.

    Args:
        number: Number of the version; for a removal, of the last one.
        previous: Number of the previous version; None without one.
        kind: Kind of move. A removed alias points to nothing until the next promotion.
        time: Time of the move, UTC.
        moved_by: User who moved it.
        reason: Reason for a promotion without a gate, a rollback or a removal.
        comparison: Id of the comparison whose gate was passed.
        verdict_sha256: Hash of that comparison's ``verdict.json``.
    """

    model: str
    alias: str
    number: int
    previous: int | None
    kind: Literal["promote", "rollback", "remove"]
    time: datetime
    moved_by: str
    reason: str | None = None
    comparison: str | None = None
    verdict_sha256: str | None = None

    def __str__(self) -> str:
        return f"{self.model}@{self.alias}"


def standing_aliases(moves: Iterable[AliasMove]) -> dict[str, AliasMove]:
    """Return the last move of each alias that is not removed, given a model's moves in order."""
    last = {move.alias: move for move in moves}
    return {alias: move for alias, move in last.items() if move.kind != "remove"}


def former_numbers(moves: Iterable[AliasMove]) -> list[int]:
    """Return the versions that an alias can be rolled back to, the last one first.

    A rollback undoes promotions, never rollbacks: after 1, 2, 3 and a rollback to 2, the next
    rollback leads to 1. The moves are in order.
    """
    numbers: list[int] = []
    for move in moves:
        if move.kind == "remove":
            numbers.clear()
        elif move.kind == "rollback" and move.number in numbers:
            while numbers[-1] != move.number:
                numbers.pop()
        elif numbers[-1:] != [move.number]:
            numbers.append(move.number)
    return numbers[-2::-1]


class ModelLedger(CostLedger):
    """Methods of a ledger for registered models."""

    def register(self, run: RunRecord, model: str, fingerprint: str, by: str) -> ModelVersion:
        """Register a run's model as the next version of a name, or return its existing version.

        Raises:
            UserError: The run is a version of another registered model.
            LockTimeout: Another process has taken the run over.
        """
        assert run.model is not None, "the caller sees to it"
        with self._changing(model, run) as (connection, now):
            of_run = sa.select(MODEL_VERSIONS).where(MODEL_VERSIONS.c.run_id == run.id)
            if (row := connection.execute(of_run).mappings().one_or_none()) is not None:
                known = _version_of(row)
                if known.model != model:
                    raise UserError(
                        f"run {run.id} is already registered as {known}. A run belongs to one "
                        f"registered model, so omit the name {model!r}."
                    )
                return known
            newest = sa.select(sa.func.max(MODEL_VERSIONS.c.number))
            last = connection.execute(newest.where(MODEL_VERSIONS.c.model == model)).scalar()
            made = ModelVersion(model, (last or 0) + 1, run.id, run.model, fingerprint, now, by)
            values = _values(made) | {"tuned_model": run.model.model_dump(mode="json")}
            connection.execute(MODEL_VERSIONS.insert().values(values))
            audit.record(self._database, connection, "version.registered", str(made), values)
        return made

    def move_alias(self, run: RunRecord, move: AliasMove) -> AliasMove:
        """Record a move of an alias, and return it with its time and the previous version."""
        with self._changing(move.model, run) as (connection, now):
            alias = (ALIAS_MOVES.c.model == move.model) & (ALIAS_MOVES.c.alias == move.alias)
            columns = sa.select(ALIAS_MOVES.c.number, ALIAS_MOVES.c.kind).where(alias)
            newest_first = columns.order_by(ALIAS_MOVES.c.id.desc()).limit(1)
            last = connection.execute(newest_first).one_or_none()
            previous = last.number if last and last.kind != "remove" else None
            if move.kind != "promote" and previous != move.previous:
                raise LockTimeout(
                    f"another process has just moved {move} to version {previous}. Check "
                    f"`unitune models {move.model}`, and try again."
                )
            written = replace(move, previous=previous, time=now)
            connection.execute(ALIAS_MOVES.insert().values(_values(written)))
            action = f"alias.{move.kind}"
            audit.record(self._database, connection, action, str(move), _values(written))
        return written

    def model_names(self) -> list[str]:
        """Return the names of all registered models, sorted."""
        names = sa.select(MODEL_VERSIONS.c.model).distinct()
        return sorted(str(row["model"]) for row in self._rows(names))

    def versions(self, model: str) -> list[ModelVersion]:
        """Return the versions of a registered model, the oldest first."""
        query = sa.select(MODEL_VERSIONS).where(MODEL_VERSIONS.c.model == model)
        return [_version_of(row) for row in self._rows(query.order_by(MODEL_VERSIONS.c.number))]

    def version_of_run(self, run_id: str) -> ModelVersion | None:
        """Return the version of a run's model; None if it is not registered."""
        query = sa.select(MODEL_VERSIONS).where(MODEL_VERSIONS.c.run_id == run_id)
        return next(map(_version_of, self._rows(query)), None)

    def alias_moves(self, model: str) -> list[AliasMove]:
        """Return the alias moves of a registered model, the oldest first."""
        query = sa.select(ALIAS_MOVES).where(ALIAS_MOVES.c.model == model)
        rows = self._rows(query.order_by(ALIAS_MOVES.c.id))
        return [read(AliasMove, row, f"alias {model}@{row['alias']}", "move") for row in rows]

    @contextmanager
    def _changing(self, model: str, run: RunRecord) -> Generator[tuple[sa.Connection, datetime]]:
        """Yield the time, and a transaction that excludes other changes of the model."""
        with self._database.writing() as connection:
            self._database.lock(connection, f"model {model}")
            leases.check_held(connection, run)
            now = connection.execute(sa.select(self._database.clock())).scalar_one()
            yield connection, datetime.fromtimestamp(now, UTC)


def _version_of(row: Any) -> ModelVersion:
    return read(ModelVersion, row, f"version {row['model']}:{row['number']}")


def _values(record: ModelVersion | AliasMove) -> dict[str, Any]:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {
        name: value.timestamp() if isinstance(value, datetime) else value
        for name, value in values.items()
    }
