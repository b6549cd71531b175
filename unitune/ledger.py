"""The ledger: runs, their states, events and artefacts, in a database that outlives every process.

`Ledger` reads and writes `RunRecord`, frozen data. Each write names the version that it read, so of
two processes that saw the same record only one can change it; a change of state leaves a
transition, in the same transaction as the events that came with it.

The tables and how they are opened stand in `unitune.database`; SQLAlchemy is seen there and here
only. Whether a state may follow another is not checked here; `unitune.launching` sees to it.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from unitune.backend import Event, State
from unitune.database import ARTEFACTS, EVENTS, RUNS, TRANSITIONS, Database
from unitune.errors import Busy, TwinExists
from unitune.keys import launch_key
from unitune.locks import is_locked, locked
from unitune.models import TunedModel


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What is written down of one run.

    Args:
        raw: The backend's own word for the state.
        job_id: The backend's id of the job, once it is known.
        attempt: Counted from 1; each has a launch key of its own.
        cursor: Where the next poll goes on.
        version: Grows with each write.
        created: Seconds since 1970, UTC; so is `updated`.
    """

    id: str
    name: str
    backend: str
    base_model: str
    method: str
    fingerprint: str
    created: float
    updated: float
    state: State = State.PLANNED
    raw: str = ""
    error: str | None = None
    job_id: str | None = None
    attempt: int = 1
    cursor: str = ""
    model: TunedModel | None = None
    version: int = 1

    @property
    def launch_key(self) -> str:
        """The key that this attempt's job carries at its backend."""
        return launch_key(self.id, self.attempt)


@dataclass(frozen=True, slots=True)
class Transition:
    """A state that a run came into, and when (seconds since 1970, UTC)."""

    state: State
    raw: str
    attempt: int
    time: float


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event with its place in the ledger, which grows with each."""

    place: int
    event: Event


@dataclass(frozen=True, slots=True)
class Artefact:
    """Something that a run made and that is needed later.

    Args:
        kind: upload, for now.
        name: Its name within the run.
        ref: How the backend calls it.
        sha256: Hash of its content.
    """

    kind: str
    name: str
    ref: str
    sha256: str


class Ledger:
    """The runs of one folder.

    Args:
        folder: As `unitune.home.home` finds it; made on the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._database = Database(folder / "ledger.db")

    def run_folder(self, run_id: str) -> Path:
        """Return where the files of a run stand."""
        return self.folder / "runs" / run_id

    @contextmanager
    def locked(self, run_id: str) -> Generator[None]:
        """Be the one process that acts for a run while the body runs.

        Raises:
            Busy: Another process acts for it and does not end.
        """
        folder = self.run_folder(run_id)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock", f"run {run_id}"):
            yield

    def is_locked(self, run_id: str) -> bool:
        """Return whether a process acts for a run right now."""
        return is_locked(self.run_folder(run_id) / "lock")

    def add(self, record: RunRecord, *, again: bool = False) -> None:
        """Write down a new run.

        Args:
            record: With the state planned.
            again: Whether to allow a twin.

        Raises:
            TwinExists: A run with the same fingerprint is going on or has succeeded.
        """
        with self._database.writing() as connection:
            if not again:
                _refuse_twin(connection, record.fingerprint)
            connection.execute(RUNS.insert().values(_columns(record)))
            connection.execute(TRANSITIONS.insert().values(_transition(record)))

    def write(self, after: RunRecord, events: Sequence[Event] = ()) -> RunRecord:
        """Write a changed record, and the events that came with the change.

        Args:
            after: The record as read, with what changed replaced.
            events: An event whose key is recorded already is left out.

        Returns:
            The record as it now stands, with its new version.

        Raises:
            Busy: Another process has written since the record was read.
        """
        written = replace(after, version=after.version + 1, updated=time.time())
        mine = (RUNS.c.id == after.id) & (RUNS.c.version == after.version)
        with self._database.writing() as connection:
            before = _read(connection, after.id)
            changed = connection.execute(RUNS.update().where(mine).values(_columns(written)))
            if changed.rowcount != 1:
                raise Busy(f"another process has just changed run {after.id}; look again.")
            if _place(before) != _place(written):
                connection.execute(TRANSITIONS.insert().values(_transition(written)))
            _add_events(connection, written, events)
        return written

    def record(self, run_id: str) -> RunRecord:
        """Return what is written down of a run that is known to exist."""
        with self._database.reading() as connection:
            return _read(connection, run_id)

    def records(self, fingerprint: str | None = None) -> list[RunRecord]:
        """Return all runs, or those of one training fingerprint, newest first."""
        query = sa.select(RUNS).order_by(RUNS.c.created.desc(), RUNS.c.id.desc())
        if fingerprint is not None:
            query = query.where(RUNS.c.fingerprint == fingerprint)
        if not self._database.exists:
            return []
        with self._database.reading() as connection:
            return [_record(row) for row in connection.execute(query).mappings()]

    def events(self, run_id: str, attempt: int, after: int = 0) -> list[RecordedEvent]:
        """Return the events of one attempt in the order they came in.

        Args:
            run_id: The run.
            attempt: The attempt.
            after: Place of the last event already seen; 0 for all.
        """
        query = (
            sa.select(EVENTS)
            .where(EVENTS.c.run_id == run_id, EVENTS.c.attempt == attempt, EVENTS.c.id > after)
            .order_by(EVENTS.c.id)
        )
        with self._database.reading() as connection:
            return [
                RecordedEvent(row.id, Event(row.key, row.kind, row.time, row.data))
                for row in connection.execute(query)
            ]

    def transitions(self, run_id: str) -> list[Transition]:
        """Return the states that a run went through, oldest first."""
        query = sa.select(TRANSITIONS).where(TRANSITIONS.c.run_id == run_id)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(TRANSITIONS.c.id))
            return [Transition(State(row.state), row.raw, row.attempt, row.time) for row in rows]

    def add_artefact(self, run_id: str, artefact: Artefact) -> None:
        """Write down what a run made; a later one of the same kind and name replaces it."""
        same = _same_artefact(run_id, artefact.kind, artefact.name)
        values = {field.name: getattr(artefact, field.name) for field in fields(artefact)}
        with self._database.writing() as connection:
            connection.execute(ARTEFACTS.delete().where(same))
            connection.execute(
                ARTEFACTS.insert().values(run_id=run_id, created=time.time(), **values)
            )

    def artefact(self, run_id: str, kind: str, name: str) -> Artefact | None:
        """Return what a run made, or None when it did not."""
        query = sa.select(ARTEFACTS).where(_same_artefact(run_id, kind, name))
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Artefact(row.kind, row.name, row.ref, row.sha256)


def _refuse_twin(connection: sa.Connection, fingerprint: str) -> None:
    over = (State.FAILED, State.CANCELLED)
    query = (
        sa.select(RUNS.c.id, RUNS.c.state)
        .where(RUNS.c.fingerprint == fingerprint, RUNS.c.state.not_in([str(s) for s in over]))
        .order_by(RUNS.c.created.desc())
    )
    twin = connection.execute(query).first()
    if twin is not None:
        raise TwinExists(
            f"run {twin.id} ({twin.state}) is the same training: data, base model, method, tuning "
            f"and options are equal. See it with `unitune show {twin.id}`, go on with "
            f"`unitune resume {twin.id}` if it was interrupted, or train again with --again.",
            twin.id,
        )


def _add_events(connection: sa.Connection, record: RunRecord, events: Sequence[Event]) -> None:
    if not events:
        return
    mine = (EVENTS.c.run_id == record.id) & (EVENTS.c.attempt == record.attempt)
    known = set(connection.execute(sa.select(EVENTS.c.key).where(mine)).scalars())
    fresh = {event.key: event for event in events if event.key not in known}
    if fresh:
        rows = [
            {
                "run_id": record.id,
                "attempt": record.attempt,
                "key": event.key,
                "kind": event.kind,
                "time": event.time,
                "data": event.data,
            }
            for event in fresh.values()
        ]
        connection.execute(EVENTS.insert(), rows)


def _place(record: RunRecord) -> Transition:
    return Transition(record.state, record.raw, record.attempt, time=0)


def _same_artefact(run_id: str, kind: str, name: str) -> sa.ColumnElement[bool]:
    mine = ARTEFACTS.c
    return sa.and_(mine.run_id == run_id, mine.kind == kind, mine.name == name)


def _columns(record: RunRecord) -> dict[str, Any]:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    model = record.model and record.model.model_dump(mode="json")
    return values | {"state": str(record.state), "model": model}


def _transition(record: RunRecord) -> dict[str, Any]:
    return {
        "run_id": record.id,
        "attempt": record.attempt,
        "state": str(record.state),
        "raw": record.raw,
        "time": record.updated,
    }


def _read(connection: sa.Connection, run_id: str) -> RunRecord:
    query = sa.select(RUNS).where(RUNS.c.id == run_id)
    return _record(connection.execute(query).mappings().one())


def _record(row: sa.RowMapping) -> RunRecord:
    values: dict[str, Any] = dict(row)
    values["state"] = State(values["state"])
    values["model"] = values["model"] and TunedModel.model_validate(values["model"])
    return RunRecord(**values)
