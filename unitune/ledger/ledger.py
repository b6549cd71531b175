"""The ledger: runs, their states, events and uploads, in a database.

Costs stand in `costs`, registered models in `model_versions`.

`Ledger` reads and writes frozen data (`records`). Each write names the version that it read, so of
two processes that read the same record only one can change it, and the fence of the lease that it
was read under (`leases`). A change of state leaves a transition, in the same transaction as the
events that came with it. Whether a state may follow another is not checked here; `unitune.run`
sees to it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml

from unitune.backends.protocol import Event, State, Upload
from unitune.errors import DuplicateRunError, LockTimeout, UnreadableRecord
from unitune.job.job import Job
from unitune.ledger import audit, costs, leases
from unitune.ledger.audit import AUDIT_LOG, AuditEntry
from unitune.ledger.looks import LookLedger
from unitune.ledger.records import (
    DEPLOYMENTS,
    EVENTS,
    RUNS,
    TRANSITIONS,
    UPLOADS,
    RecordedEvent,
    RunRecord,
    Standing,
    Transition,
    add_events,
    columns_of,
    read,
    run_of,
    state_of,
    values_of,
)
from unitune.security.redaction import redacted
from unitune.workspace.yaml_file import parse

RUN_COLUMNS = columns_of(RUNS, RunRecord)
NEWEST_FIRST = RUNS.c.created.desc(), RUNS.c.id.desc()
# States of a run that leave its training to be launched again
TRAINED_NOTHING = (str(State.FAILED), str(State.CANCELLED))
# What reading a text raises that is no job file
NO_JOB = (ValueError, TypeError, AttributeError, LookupError, RecursionError, yaml.YAMLError)


class Ledger(LookLedger):
    """The runs of one folder, or of the shared database that ``UNITUNE_LEDGER`` names.

    Args:
        folder: As `unitune.workspace.home.home` finds it; made on the first write. Files of the
            runs that this machine launched stand in it in either case.
    """

    def run_folder(self, run_id: str) -> Path:
        """Return where the files of a run stand."""
        return self.folder / "runs" / run_id

    def acting(self, run_id: str) -> AbstractContextManager[RunRecord]:
        """Be the process that acts for a run while the body runs, and get its record.

        Raises:
            LockTimeout: Another process acts for it and does not end.
            NotFoundError: There is no such run.
        """
        return leases.acting(self._database, run_id)

    def is_held(self, run_id: str) -> bool:
        """Return whether a process acts for a run right now."""
        return leases.is_held(self._database, run_id)

    def hold(self, record: RunRecord, seconds: float) -> None:
        """Make sure, before a call that costs money, that this process still acts for the run.

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
            again: Whether to allow a second run of the same fingerprint.

        Raises:
            DuplicateRunError: A run with the same fingerprint is going on or has succeeded.
        """
        launch = {
            **_described(record),
            "start": values_of(record)["start"],
            "job": job,
            "approval": approval and json.loads(approval),
        }
        with self._database.writing() as connection:
            self._database.lock(connection, record.fingerprint)
            if not again:
                _refuse_duplicate(connection, record.fingerprint)
            connection.execute(RUNS.insert().values(values_of(record) | {"job": job}))
            connection.execute(TRANSITIONS.insert().values(_transition(record)))
            if approval is not None:
                costs.add(connection, record, approval, record.created)
            audit.record(self._database, connection, "run.launched", record.id, launch)

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
            before, now = self._before(connection, after.id)
            written = replace(after, version=after.version + 1, updated=now, error=error)
            _change(connection, before, after, values_of(written))
            previous, current = _transition(before), _transition(written)
            if previous | {"time": now} != current:
                connection.execute(TRANSITIONS.insert().values(current))
            add_events(connection, written, events)
            if before.state != written.state:
                change = {"job": written.job_id, "model": values_of(written)["model"]}
                change |= {"attempt": written.attempt, "error": error}
                audit.record(self._database, connection, f"run.{written.state}", written.id, change)
        return written

    def note(self, record: RunRecord, event: Event) -> bool:
        """Write down an event whose key is new, from any process, without a change of the run.

        Returns:
            Whether it was new: of several processes with one key, it is so for one.

        Raises:
            LockTimeout: The run is gone, or another process has just written the same.
        """
        with self._database.writing() as connection:
            return add_events(connection, record, [event]) > 0

    def delete(self, record: RunRecord) -> None:
        """Forget a run; its deployments and what it has cost stay on record, without it.

        Raises:
            LockTimeout: Another process has written since the record was read, or has taken over.
        """
        with self._database.writing() as connection:
            before, _ = self._before(connection, record.id)
            _change(connection, before, record, {"version": record.version + 1})
            deployments = DEPLOYMENTS.c.run_id == record.id
            connection.execute(DEPLOYMENTS.update().where(deployments).values(run_id=None))
            costs.forget(connection, before)
            for table in (EVENTS, TRANSITIONS, UPLOADS):
                connection.execute(table.delete().where(table.c.run_id == record.id))
            connection.execute(RUNS.delete().where(RUNS.c.id == record.id))
            deleted = {**_described(before), "model": values_of(before)["model"]}
            audit.record(self._database, connection, "run.deleted", record.id, deleted)

    def fingerprints(self) -> frozenset[str]:
        """Return the fingerprints of the trainings that go on or are done."""
        query = sa.select(RUNS.c.fingerprint).where(RUNS.c.state.not_in(TRAINED_NOTHING))
        return frozenset(row["fingerprint"] for row in self._rows(query.distinct()))

    def record(self, run_id: str) -> RunRecord:
        """Return what is written down of a run.

        Raises:
            NotFoundError: There is no such run, or no more.
        """
        for row in self._rows(sa.select(*RUN_COLUMNS).where(RUNS.c.id == run_id)):
            return run_of(row)
        raise leases.unknown(run_id)

    def newest(self, most: int | None) -> list[RunRecord | UnreadableRecord]:
        """Return the newest runs, newest first, without reading the others; None: all.

        What cannot be read comes last, as the reason why.
        """
        runs: list[RunRecord] = []
        unreadable: list[UnreadableRecord] = []
        # Ids sort by time (`unitune.backends.launch_keys`), to 2.6 ms, and have an index.
        for row in self._rows(sa.select(*RUN_COLUMNS).order_by(RUNS.c.id.desc()).limit(most)):
            try:
                runs.append(run_of(row))
            except UnreadableRecord as error:
                unreadable.append(error)
        runs.sort(key=lambda record: (record.created, record.id), reverse=True)
        return [*runs, *unreadable]

    def run_ids(self, prefix: str = "", most: int | None = None) -> list[str]:
        """Return the ids of runs that begin so, newest first, so many at most; None: all."""
        like = RUNS.c.id.startswith(prefix, autoescape=True)
        rows = self._rows(sa.select(RUNS.c.id).where(like).order_by(RUNS.c.id.desc()).limit(most))
        # SQLite's LIKE ignores case.
        return [row["id"] for row in rows if row["id"].startswith(prefix)]

    def run_count(self) -> int:
        """Return how many runs there are."""
        rows = self._rows(sa.select(sa.func.count().label("count")).select_from(RUNS))
        return rows[0]["count"] if rows else 0

    def records(self) -> list[RunRecord]:
        """Return all runs, newest first.

        Raises:
            UnreadableRecord: One of them cannot be read.
        """
        return [run_of(row) for row in self._rows(sa.select(*RUN_COLUMNS).order_by(*NEWEST_FIRST))]

    def standings(self) -> list[Standing]:
        """Return where all runs stand, newest first; unknown where that cannot be read."""
        query = sa.select(*columns_of(RUNS, Standing)).order_by(*NEWEST_FIRST)
        return [Standing(**{**row, "state": state_of(row["state"])}) for row in self._rows(query)]

    def job(self, run_id: str) -> Job:
        """Return a run's job as it was launched, on whatever machine.

        Raises:
            UnreadableRecord: The ledger has something else in its place.
        """
        rows = self._rows(sa.select(RUNS.c.job).where(RUNS.c.id == run_id))
        folder = self.run_folder(run_id)
        try:
            job = parse(rows[0]["job"], floats=True)
            return Job.model_validate({**job, "folder": folder})
        except NO_JOB as error:
            raise UnreadableRecord(f"run {run_id}", "job", "it is no job") from error

    def run_of_job(self, backend: str, job_id: str) -> str | None:
        """Return the id of the run that has a job of a backend; None where none has."""
        query = sa.select(RUNS.c.id).where(RUNS.c.backend == backend, RUNS.c.job_id == job_id)
        return next((row["id"] for row in self._rows(query.limit(1))), None)

    def events(
        self, run_id: str, attempt: int, after: int = 0, key: str = ""
    ) -> list[RecordedEvent]:
        """Return the events of one attempt in the order they came in.

        Args:
            run_id: The run.
            attempt: The attempt.
            after: Id of the last event already seen; 0 for all.
            key: The beginning of their keys.
        """
        query = sa.select(EVENTS).where(
            EVENTS.c.run_id == run_id, EVENTS.c.attempt == attempt, EVENTS.c.id > after
        )
        if key:
            query = query.where(EVENTS.c.key.startswith(key, autoescape=True))
        return [
            RecordedEvent(row["id"], read(Event, row, f"run {run_id}", f"event {row['id']}"))
            for row in self._rows(query.order_by(EVENTS.c.id))
        ]

    def transitions(self, run_id: str) -> list[Transition]:
        """Return the states that a run went through, oldest first."""
        query = sa.select(TRANSITIONS).where(TRANSITIONS.c.run_id == run_id)
        rows = self._rows(query.order_by(TRANSITIONS.c.id))
        return [read(Transition, row, f"run {run_id}", "history") for row in rows]

    def add_upload(self, record: RunRecord, name: str, upload: Upload) -> None:
        """Write down a file that the backend holds; a later file of the same name replaces it.

        Raises:
            LockTimeout: Another process has taken the run over since the record was read.
        """
        values = {
            "run_id": record.id,
            "name": name,
            "ref": upload.ref,
            "sha256": upload.sha256,
            "created": time.time(),
        }
        with self._database.writing() as connection:
            leases.check_held(connection, record)
            same = (UPLOADS.c.run_id == record.id) & (UPLOADS.c.name == name)
            connection.execute(UPLOADS.delete().where(same))
            connection.execute(UPLOADS.insert().values(values))

    def uploads(self, run_id: str) -> dict[str, Upload]:
        """Return the files of a run that its backend holds, by name."""
        query = sa.select(UPLOADS).where(UPLOADS.c.run_id == run_id).order_by(UPLOADS.c.id)
        return {row["name"]: Upload(row["ref"], row["sha256"]) for row in self._rows(query)}

    def runs_with_upload(self, ref: str) -> list[str]:
        """Return the ids of the runs that use a file, by the backend's name for it."""
        query = sa.select(UPLOADS.c.run_id).where(UPLOADS.c.ref == ref).distinct()
        return sorted(row["run_id"] for row in self._rows(query))

    def audit_log(self) -> list[AuditEntry]:
        """Return what the ledger did, the oldest first."""
        query = sa.select(AUDIT_LOG).order_by(AUDIT_LOG.c.number)
        return [
            read(AuditEntry, row, "the audit log", f"entry {row['number']}")
            for row in self._rows(query)
        ]

    def continuations(self, run_id: str) -> list[RunRecord]:
        """Return the runs whose trainings go on from the model of a run, the newest first."""
        of_run = RUNS.c.start["run"].as_string() == run_id
        query = sa.select(*RUN_COLUMNS).where(of_run).order_by(*NEWEST_FIRST)
        return [run_of(row) for row in self._rows(query)]

    def _before(self, connection: sa.Connection, run_id: str) -> tuple[RunRecord, float]:
        """Return a run, as a transaction that changes it sees it, and the time."""
        query = sa.select(*RUN_COLUMNS, self._database.clock().label("now"))
        row = connection.execute(query.where(RUNS.c.id == run_id)).mappings().one_or_none()
        if row is None:
            raise leases.unknown(run_id)
        return run_of(row), row["now"]


def _described(record: RunRecord) -> dict[str, str]:
    names = ("name", "backend", "base_model", "method", "fingerprint", "host")
    return {name: getattr(record, name) for name in names}


def _refuse_duplicate(connection: sa.Connection, fingerprint: str) -> None:
    query = (
        sa.select(RUNS.c.id, RUNS.c.state)
        .where(RUNS.c.fingerprint == fingerprint, RUNS.c.state.not_in(TRAINED_NOTHING))
        .order_by(RUNS.c.created.desc())
    )
    if (earlier := connection.execute(query).first()) is not None:
        raise DuplicateRunError(
            f"run {earlier.id} ({earlier.state}) is the same training: data, base model, method, "
            f"tuning and options are equal. See it with `unitune runs show {earlier.id}`, go "
            "on with "
            f"`unitune runs resume {earlier.id}` if it was interrupted, or train again with "
            "--allow-duplicate.",
            earlier.id,
        )


def _change(
    connection: sa.Connection, before: RunRecord, after: RunRecord, values: dict[str, Any]
) -> None:
    """Change a run's row, unless another process has changed it or taken it over."""
    run = RUNS.c
    same = sa.and_(run.id == after.id, run.version == after.version, run.fence == after.fence)
    if connection.execute(RUNS.update().where(same).values(values)).rowcount == 1:
        return
    if before.fence != after.fence:
        raise leases.taken_over(after.id)
    raise LockTimeout(f"another process has just changed run {after.id}; look again.")


def _transition(record: RunRecord) -> dict[str, Any]:
    return {
        "run_id": record.id,
        "attempt": record.attempt,
        "state": str(record.state),
        "raw": record.raw,
        "time": record.updated,
    }
