"""The ledger: runs, their states, events and artefacts, in a database that outlives every process.

`Ledger` reads and writes frozen data (`records`). Each write names the version that it
read, so of two processes that saw the same record only one can change it, and the fence of the
lease that it was read under (`leases`); a change of state leaves a transition, in the same
transaction as the events that came with it.

Which database that is stands in `database`. Whether a state may follow another is not
checked here; `unitune.run.launching` sees to it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml
from pydantic import JsonValue

from unitune.backends.protocol import Event, State
from unitune.errors import DuplicateRunError, LockTimeout, UnreadableRecord
from unitune.job.job import Job
from unitune.ledger import costs, deployments, leases
from unitune.ledger.costs import Books
from unitune.ledger.database import Database
from unitune.ledger.records import (
    RUN_FIELDS,
    Artefact,
    CostRecord,
    DeploymentRecord,
    RecordedEvent,
    RunRecord,
    Standing,
    Transition,
    event_of,
    run_of,
    run_values,
    state_of,
    transition_of,
    tried_run_of,
)
from unitune.ledger.tables import ARTEFACTS, DEPLOYMENTS, EVENTS, RUNS, TRANSITIONS
from unitune.security.redaction import redacted
from unitune.workspace.home import ledger_url

RUN_COLUMNS = [RUNS.c[name] for name in RUN_FIELDS]
LONGEST_KEY = 200
"""Characters of an event's key, as in `unitune.ledger.tables`."""


class Ledger:
    """The runs of one folder, or of the shared database that ``UNITUNE_LEDGER`` names.

    Args:
        folder: As `unitune.workspace.home.home` finds it; made on the first write. Files of the
        runs that
            this machine launched stand in it in either case.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._database = Database.of(folder, ledger_url())

    @property
    def exists(self) -> bool:
        """Whether there is anything to read; a shared one that is away is said to exist."""
        return self._database.exists

    @property
    def is_shared(self) -> bool:
        """Whether several machines may use it."""
        return self._database.is_shared

    def run_folder(self, run_id: str) -> Path:
        """Return where the files of a run stand."""
        return self.folder / "runs" / run_id

    def now(self) -> float:
        """Return the time that all who share the ledger agree on, in seconds since 1970."""
        with self._database.reading() as connection:
            return connection.execute(sa.select(self._database.clock())).scalar_one()

    def acting(self, run_id: str) -> AbstractContextManager[RunRecord]:
        """Be the one who acts for a run while the body runs, and get its record.

        Raises:
            LockTimeout: Another process acts for it and does not end.
            NotFoundError: There is no such run.
        """
        return leases.acting(self._database, run_id)

    def is_held(self, run_id: str) -> bool:
        """Return whether a process acts for a run right now."""
        return leases.is_held(self._database, run_id)

    def hold(self, record: RunRecord, seconds: float) -> None:
        """Make sure, before a call that costs money, that one is still who acts for the run.

        Args:
            record: As read within `acting`.
            seconds: How long that must last at least, from now; `leases.LONGEST_LEASE_SECONDS` at
                most.

        Raises:
            LockTimeout: Another process has taken the run over.
        """
        if not leases.renew(self._database, record.id, record.fence, seconds):
            raise leases.taken_over(record.id)

    def add(
        self,
        record: RunRecord,
        *,
        job: str | None = None,
        approval: str | None = None,
        again: bool = False,
    ) -> None:
        """Write down a new run.

        Args:
            record: With the state planned.
            job: The job file's text, with paths that start at the run's folder.
            approval: What it may cost (`CostRecord.approval`); None: it costs nothing.
            again: Whether to allow a twin.

        Raises:
            DuplicateRunError: A run with the same fingerprint is going on or has succeeded.
        """
        with self._database.writing() as connection:
            self._database.one_at_a_time(connection, record.fingerprint)
            if not again:
                _refuse_twin(connection, record.fingerprint)
            connection.execute(RUNS.insert().values(run_values(record) | {"job": job}))
            connection.execute(TRANSITIONS.insert().values(_transition(record)))
            if approval is not None:
                costs.add(connection, record, approval, record.created)

    def write(self, after: RunRecord, events: Sequence[Event] = ()) -> RunRecord:
        """Write a changed record, and the events that came with the change.

        Args:
            after: The record as read, with what changed replaced.
            events: An event whose key is recorded already is left out.

        Returns:
            The record as it now stands, with its new version.

        Raises:
            LockTimeout: Another process has written since the record was read, or has taken over.
        """
        error = after.error and redacted(after.error)
        with self._database.writing() as connection:
            before, now = self._read(connection, after.id)
            written = replace(after, version=after.version + 1, updated=now, error=error)
            changed = connection.execute(
                RUNS.update().where(_unchanged(after)).values(run_values(written))
            )
            if changed.rowcount != 1:
                raise _refused(before, after)
            if _place(before) != _place(written):
                connection.execute(TRANSITIONS.insert().values(_transition(written)))
            _add_events(connection, written, events)
        return written

    def note(self, record: RunRecord, event: Event) -> None:
        """Write an event down, by whoever it is, without a change of the run.

        Args:
            record: Names the run and the attempt.
            event: Left out if its key is recorded already.

        Raises:
            LockTimeout: The run is gone, or another process has just written the same.
        """
        with self._database.writing() as connection:
            _add_events(connection, record, [event])

    def record(self, run_id: str) -> RunRecord:
        """Return what is written down of a run.

        Raises:
            NotFoundError: There is no such run, or no more.
        """
        with self._database.reading() as connection:
            return self._read(connection, run_id)[0]

    def newest(self, most: int | None) -> list[RunRecord | UnreadableRecord]:
        """Return the newest runs, newest first, without a look at the others.

        What cannot be read comes last, as the reason why.

        Args:
            most: How many at most; None for all.
        """
        if not self._database.exists:
            return []
        # Ids sort by time (`unitune.backends.launch_keys`), to 83 ms, and have an index.
        query = sa.select(*RUN_COLUMNS).order_by(RUNS.c.id.desc()).limit(most)
        with self._database.reading() as connection:
            found = [tried_run_of(row) for row in connection.execute(query).mappings()]
        runs = [one for one in found if isinstance(one, RunRecord)]
        runs.sort(key=lambda record: (record.created, record.id), reverse=True)
        return [*runs, *(one for one in found if isinstance(one, UnreadableRecord))]

    def run_ids(self, prefix: str = "", most: int | None = None) -> list[str]:
        """Return the ids of runs that begin so, newest first.

        Args:
            prefix: The beginning; empty for all.
            most: How many at most; None for all.
        """
        if not self._database.exists:
            return []
        like = RUNS.c.id.startswith(prefix, autoescape=True)
        query = sa.select(RUNS.c.id).where(like).order_by(RUNS.c.id.desc()).limit(most)
        with self._database.reading() as connection:
            found = list(connection.execute(query).scalars())
        return [one for one in found if one.startswith(prefix)]  # SQLite's LIKE ignores case

    def run_count(self) -> int:
        """Return how many runs there are."""
        if not self._database.exists:
            return 0
        with self._database.reading() as connection:
            query = sa.select(sa.func.count()).select_from(RUNS)
            return connection.execute(query).scalar_one()

    def records(self, fingerprint: str | None = None) -> list[RunRecord]:
        """Return all runs, or those of one training fingerprint, newest first.

        Raises:
            UnreadableRecord: One of them cannot be read.
        """
        query = sa.select(*RUN_COLUMNS).order_by(RUNS.c.created.desc(), RUNS.c.id.desc())
        if fingerprint is not None:
            query = query.where(RUNS.c.fingerprint == fingerprint)
        if not self._database.exists:
            return []
        with self._database.reading() as connection:
            return [run_of(row) for row in connection.execute(query).mappings()]

    def standings(self) -> list[Standing]:
        """Return where all runs stand, newest first; unknown where that cannot be read."""
        query = sa.select(RUNS.c.id, RUNS.c.backend, RUNS.c.job_id, RUNS.c.state)
        if not self._database.exists:
            return []
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(RUNS.c.created.desc(), RUNS.c.id.desc()))
            return [Standing(row.id, row.backend, row.job_id, state_of(row.state)) for row in rows]

    def job(self, run_id: str) -> Job:
        """Return a run's job as it was launched, on whatever machine.

        Raises:
            UnreadableRecord: The ledger has something else in its place.
        """
        query = sa.select(RUNS.c.job).where(RUNS.c.id == run_id)
        folder = self.run_folder(run_id)
        with self._database.reading() as connection:
            text = connection.execute(query).scalar()
        if text is None:  # written before jobs were kept in the ledger
            return Job.load(folder / "job.yaml")
        try:
            return Job.model_validate({**yaml.safe_load(text), "folder": folder})
        except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
            raise UnreadableRecord(f"run {run_id}", "job", "it is no job") from error

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
            rows = connection.execute(query).mappings()
            return [RecordedEvent(row["id"], event_of(row)) for row in rows]

    def events_keyed(self, run_id: str, attempt: int, beginning: str) -> list[Event]:
        """Return the events of one attempt whose keys begin so, in the order they came in."""
        query = sa.select(EVENTS).where(
            EVENTS.c.run_id == run_id,
            EVENTS.c.attempt == attempt,
            EVENTS.c.key.startswith(beginning, autoescape=True),
        )
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(EVENTS.c.id)).mappings()
            return [event_of(row) for row in rows]

    def run_of_job(self, backend: str, job_id: str) -> str | None:
        """Return the id of the run that has a job of a backend; None where none has."""
        query = sa.select(RUNS.c.id).where(RUNS.c.backend == backend, RUNS.c.job_id == job_id)
        with self._database.reading() as connection:
            return connection.execute(query.limit(1)).scalar()

    def transitions(self, run_id: str) -> list[Transition]:
        """Return the states that a run went through, oldest first."""
        query = sa.select(TRANSITIONS).where(TRANSITIONS.c.run_id == run_id)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(TRANSITIONS.c.id)).mappings()
            return [transition_of(row) for row in rows]

    def add_artefact(self, record: RunRecord, artefact: Artefact) -> None:
        """Write down what a run made; a later one of the same kind and name replaces it.

        Raises:
            LockTimeout: Another process has taken the run over since the record was read.
        """
        same = _same_artefact(record.id, artefact.kind, artefact.name)
        values = {**asdict(artefact), "run_id": record.id, "created": time.time()}
        with self._database.writing() as connection:
            mine = (RUNS.c.id == record.id) & (RUNS.c.fence == record.fence)
            # An update, and not a look, so that nobody can take the run over in between.
            touched = connection.execute(RUNS.update().where(mine).values(fence=record.fence))
            if touched.rowcount != 1:
                raise leases.taken_over(record.id)
            connection.execute(ARTEFACTS.delete().where(same))
            connection.execute(ARTEFACTS.insert().values(values))

    def artefacts(self, run_id: str) -> list[Artefact]:
        """Return all that a run made."""
        query = sa.select(ARTEFACTS).where(ARTEFACTS.c.run_id == run_id).order_by(ARTEFACTS.c.id)
        with self._database.reading() as connection:
            rows = connection.execute(query)
            return [Artefact(row.kind, row.name, row.ref, row.sha256) for row in rows]

    def runs_with(self, kind: str, ref: str) -> list[str]:
        """Return the ids of the runs that made or use something, by the backend's name for it."""
        query = sa.select(ARTEFACTS.c.run_id).where(
            ARTEFACTS.c.kind == kind, ARTEFACTS.c.ref == ref
        )
        with self._database.reading() as connection:
            return sorted(connection.execute(query.distinct()).scalars())

    def costs(self, run_id: str | None = None) -> list[CostRecord]:
        """Return what is written down of the money of one run, or of all, oldest first."""
        if not self._database.exists:
            return []
        with self._database.reading() as connection:
            return costs.read(connection, run_id)

    def reserve(self, record: RunRecord, allow: Callable[[Books, CostRecord], str]) -> None:
        """Set the money of a run's attempt aside; see `unitune.ledger.costs.reserve`."""
        costs.reserve(self._database, record, allow)

    def settle(self, record: RunRecord, outcome: str) -> None:
        """Write down what a run's attempt has cost."""
        costs.settle(self._database, record, outcome)

    def delete(self, record: RunRecord) -> None:
        """Forget a run; its deployments and what it has cost stay on record, without it.

        Raises:
            LockTimeout: Another process has written since the record was read, or has taken over.
        """
        with self._database.writing() as connection:
            before, _ = self._read(connection, record.id)
            last = RUNS.update().where(_unchanged(record)).values(version=record.version + 1)
            if connection.execute(last).rowcount != 1:
                raise _refused(before, record)
            theirs = DEPLOYMENTS.c.run_id == record.id
            connection.execute(DEPLOYMENTS.update().where(theirs).values(run_id=None))
            costs.forget(connection, before)
            for table in (EVENTS, TRANSITIONS, ARTEFACTS):
                connection.execute(table.delete().where(table.c.run_id == record.id))
            connection.execute(RUNS.delete().where(RUNS.c.id == record.id))

    def add_deployment(self, record: DeploymentRecord, allow: Callable[[Books], None]) -> None:
        """Write down a new deployment; see `unitune.ledger.costs.add_deployment`."""
        costs.add_deployment(self._database, record, allow)

    def write_deployment(self, after: DeploymentRecord) -> DeploymentRecord:
        """Write a changed deployment and return it with its new version.

        Raises:
            LockTimeout: Another process has written since the record was read.
        """
        return deployments.write(self._database, after)

    def deployments(self) -> list[DeploymentRecord]:
        """Return all deployments, newest first."""
        return deployments.read_all(self._database) if self._database.exists else []

    def deployment(self, deployment_id: str) -> DeploymentRecord:
        """Return one deployment.

        Raises:
            NotFoundError: There is none of this id.
        """
        return deployments.read(self._database, deployment_id)

    def _read(self, connection: sa.Connection, run_id: str) -> tuple[RunRecord, float]:
        """Return a run and the time."""
        query = sa.select(*RUN_COLUMNS, self._database.clock().label("now"))
        row = connection.execute(query.where(RUNS.c.id == run_id)).mappings().one_or_none()
        if row is None:
            raise leases.unknown(run_id)
        return run_of(row), row["now"]


def _refuse_twin(connection: sa.Connection, fingerprint: str) -> None:
    over = (State.FAILED, State.CANCELLED)
    query = (
        sa.select(RUNS.c.id, RUNS.c.state)
        .where(RUNS.c.fingerprint == fingerprint, RUNS.c.state.not_in([str(s) for s in over]))
        .order_by(RUNS.c.created.desc())
    )
    twin = connection.execute(query).first()
    if twin is not None:
        raise DuplicateRunError(
            f"run {twin.id} ({twin.state}) is the same training: data, base model, method, tuning "
            f"and options are equal. See it with `unitune show {twin.id}`, go on with "
            f"`unitune resume {twin.id}` if it was interrupted, or train again with "
            "--allow-duplicate.",
            twin.id,
        )


def _add_events(connection: sa.Connection, record: RunRecord, events: Sequence[Event]) -> None:
    if not events:
        return
    mine = (EVENTS.c.run_id == record.id) & (EVENTS.c.attempt == record.attempt)
    known = set(connection.execute(sa.select(EVENTS.c.key).where(mine)).scalars())
    keyed = {_short(event.key): event for event in events}
    fresh = {key: event for key, event in keyed.items() if key not in known}
    if fresh:
        rows = [
            {
                "run_id": record.id,
                "attempt": record.attempt,
                "key": key,
                "kind": event.kind,
                "time": event.time,
                "data": _cleaned(event.data),
            }
            for key, event in fresh.items()
        ]
        connection.execute(EVENTS.insert(), rows)


def _cleaned(data: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return an event's data without secrets, which a vendor's words may repeat."""
    return {
        name: redacted(value) if isinstance(value, str) else value for name, value in data.items()
    }


def _short(key: str) -> str:
    """Return a key that fits its column, and is another one for every other key."""
    if len(key) <= LONGEST_KEY:
        return key
    return key[: LONGEST_KEY - 64] + hashlib.sha256(key.encode()).hexdigest()


def _unchanged(record: RunRecord) -> sa.ColumnElement[bool]:
    mine = RUNS.c
    return sa.and_(mine.id == record.id, mine.version == record.version, mine.fence == record.fence)


def _refused(before: RunRecord, after: RunRecord) -> LockTimeout:
    if before.fence != after.fence:
        return leases.taken_over(after.id)
    return LockTimeout(f"another process has just changed run {after.id}; look again.")


def _place(record: RunRecord) -> Transition:
    return Transition(record.state, record.raw, record.attempt, time=0)


def _same_artefact(run_id: str, kind: str, name: str) -> sa.ColumnElement[bool]:
    mine = ARTEFACTS.c
    return sa.and_(mine.run_id == run_id, mine.kind == kind, mine.name == name)


def _transition(record: RunRecord) -> dict[str, Any]:
    return {
        "run_id": record.id,
        "attempt": record.attempt,
        "state": str(record.state),
        "raw": record.raw,
        "time": record.updated,
    }
