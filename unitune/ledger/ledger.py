"""Store runs with their states, events and uploads.

Each write names the version and the fence (`leases`) of the record that was read. So only one of
two processes that read the same record can change it. `unitune.run` decides which state may
follow.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from unitune.backends.protocol import WORSE, Event, State, Upload
from unitune.errors import DuplicateRunError, LockTimeout, UnreadableRecord
from unitune.ledger import audit, costs, leases
from unitune.ledger.audit import AUDIT_LOG, AuditEntry
from unitune.ledger.projects import PROJECTS, ProjectLedger, is_lost
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
from unitune.observability.logs import Log
from unitune.observability.traces import report_figures, report_run, run_context
from unitune.security.redaction import redacted

if TYPE_CHECKING:
    from unitune.job.job import Job


# Group of the figures of each kind of event; progress is not a figure
GROUPS = {"step": "train", "validation": "validation"}
NO_FIGURES = frozenset({"step", "steps", "seconds_left"})
log = Log(__name__)


def figures_of(event: Event) -> dict[str, float]:
    """Return the figures of a step by group and name, such as ``train.loss``."""
    if (group := GROUPS.get(event.kind)) is None:
        return {}
    names = event.data.keys() - NO_FIGURES
    values = {f"{group}.{name}": event.number(name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def observe_change(before: RunRecord, after: RunRecord, events: Sequence[Event]) -> None:
    """Report a written change of a run and its new events."""
    for event in events:
        report_figures(figures_of(event))
        if event.kind == "checkpoint":
            log.info("%s has a checkpoint after step %s", after.backend, event.data.get("step"))
    if before.state == after.state:
        return
    log.info("run %s is %s", after.id, after.state, job_id=after.job_id, attempt=after.attempt)
    if after.state.ended:
        ended = {
            "unitune.run.state": str(after.state),
            "unitune.run.attempt": after.attempt,
            "unitune.job.id": after.job_id,
            "unitune.training.method": after.method,
            "gen_ai.provider.name": after.backend,
            "gen_ai.request.model": after.base_model,
        }
        report_run(after.created, ended, failed=after.state is State.FAILED)


SHOWN_RUNS = 50  # default length of a list of runs
RUN_COLUMNS = columns_of(RUNS, RunRecord)
NEWEST_FIRST = RUNS.c.created.desc(), RUNS.c.id.desc()
# States after which the same training may be launched again
TRAINED_NOTHING = (str(State.FAILED), str(State.CANCELLED))
# Exceptions raised by an unreadable job, besides YAML's
NO_JOB = (ValueError, TypeError, AttributeError, LookupError, RecursionError)


class Ledger(ProjectLedger):
    """Runs of all projects of a user, or of the shared database of ``UNITUNE_LEDGER``.

    Args:
        folder: State folder (`unitune.workspace.home.home`), created on the first write.
    """

    @contextmanager
    def acting(self, run_id: str) -> Generator[RunRecord]:
        """Hold the lease of a run in the body, and yield its record.

        Raises:
            LockTimeout: Another process keeps the lease.
            NotFoundError: The run does not exist.
        """
        acting = leases.acting(self._database, run_id)
        with acting as record, run_context(run_id, record.backend):
            yield record

    def is_held(self, run_id: str) -> bool:
        """Return whether a process holds the lease of a run."""
        return leases.is_held(self._database, run_id)

    def hold(self, record: RunRecord, seconds: float) -> None:
        """Extend a run's lease to some seconds from now; LockTimeout if it is lost."""
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
        """Record a new run of the current project.

        Args:
            record: Record in the state planned.
            job: Text of the job file, with paths relative to the run's folder.
            approval: Terms of the launch; None if it costs nothing.
            again: Whether to allow another run with the same fingerprint.

        Raises:
            DuplicateRunError: A run with the same fingerprint is in progress or succeeded.
        """
        launch = {
            **_described(record),
            "start": values_of(record)["start"],
            "job": job,
            "approval": approval and json.loads(approval),
        }
        project = self._own_project()
        with self._database.writing() as connection:
            self._database.lock(connection, record.fingerprint)
            if not again:
                _refuse_duplicate(connection, record.fingerprint)
            connection.execute(RUNS.insert().values(values_of(record) | {"job": job}))
            self._add_project(connection, record.id, project)
            connection.execute(TRANSITIONS.insert().values(_transition(record)))
            if approval is not None:
                costs.add(connection, record, approval, record.created)
            audit.record(self._database, connection, "run.launched", record.id, launch)

    def write(self, after: RunRecord, events: Sequence[Event] = ()) -> RunRecord:
        """Write a changed record and new events, and return it; LockTimeout if it was changed."""
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
        observe_change(before, written, events)
        return written

    def note(self, record: RunRecord, event: Event) -> bool:
        """Record an event from any process; return whether its key was new."""
        with self._database.writing() as connection:
            return add_events(connection, record, [event]) > 0

    def delete(self, record: RunRecord) -> None:
        """Delete a run, but not its deployments and costs; LockTimeout if it has changed."""
        with self._database.writing() as connection:
            before, _ = self._before(connection, record.id)
            _change(connection, before, record, {"version": record.version + 1})
            deployments = DEPLOYMENTS.c.run_id == record.id
            connection.execute(DEPLOYMENTS.update().where(deployments).values(run_id=None))
            costs.forget(connection, before)
            for table in (EVENTS, TRANSITIONS, UPLOADS, PROJECTS):
                connection.execute(table.delete().where(table.c.run_id == record.id))
            connection.execute(RUNS.delete().where(RUNS.c.id == record.id))
            deleted = {**_described(before), "model": values_of(before)["model"]}
            audit.record(self._database, connection, "run.deleted", record.id, deleted)

    def fingerprints(self) -> frozenset[str]:
        """Return the fingerprints of trainings that are in progress or succeeded."""
        query = sa.select(RUNS.c.fingerprint).where(RUNS.c.state.not_in(TRAINED_NOTHING))
        return frozenset(row["fingerprint"] for row in self._rows(query.distinct()))

    def record(self, run_id: str) -> RunRecord:
        """Return the record of a run; NotFoundError if it does not exist."""
        for row in self._rows(sa.select(*RUN_COLUMNS).where(RUNS.c.id == run_id)):
            return run_of(row)
        raise leases.unknown(run_id)

    def newest(
        self, most: int | None, *, everywhere: bool = False
    ) -> list[RunRecord | UnreadableRecord]:
        """Return the newest runs of this or of all projects; unreadable ones come last."""
        runs: list[RunRecord] = []
        unreadable: list[UnreadableRecord] = []
        # Ids sort by time (`unitune.backends.exactly_once`), to 2.6 ms, and have an index.
        query = sa.select(*RUN_COLUMNS).order_by(RUNS.c.id.desc()).limit(most)
        for row in self._rows(query if everywhere else query.where(self.in_project())):
            try:
                runs.append(run_of(row))
            except UnreadableRecord as error:
                unreadable.append(error)
        runs.sort(key=lambda record: (record.created, record.id), reverse=True)
        return [*runs, *unreadable]

    def run_ids(self, prefix: str = "", most: int | None = None) -> list[str]:
        """Return the ids of all projects' runs with a prefix, the newest first; None for all."""
        like = RUNS.c.id.startswith(prefix, autoescape=True)
        rows = self._rows(sa.select(RUNS.c.id).where(like).order_by(RUNS.c.id.desc()).limit(most))
        # SQLite's LIKE ignores case.
        return [row["id"] for row in rows if row["id"].startswith(prefix)]

    def newest_id(self) -> str | None:
        """Return the id of the project's newest run; None if it has no run."""
        query = sa.select(RUNS.c.id).where(self.in_project()).order_by(RUNS.c.id.desc()).limit(1)
        return next((row["id"] for row in self._rows(query)), None)

    def run_count(self, *, everywhere: bool = False) -> int:
        """Return the number of runs of the project, or of all projects."""
        query = sa.select(sa.func.count().label("count")).select_from(RUNS)
        rows = self._rows(query if everywhere else query.where(self.in_project()))
        return rows[0]["count"] if rows else 0

    def records(self) -> list[RunRecord]:
        """Return all runs, newest first.

        Raises:
            UnreadableRecord: One of them cannot be read.
        """
        return [run_of(row) for row in self._rows(sa.select(*RUN_COLUMNS).order_by(*NEWEST_FIRST))]

    def standings(self) -> list[Standing]:
        """Return the states of all runs, the newest first; unknown if a state cannot be read."""
        self.project()  # if it was moved, the paths of its runs change
        query = sa.select(*columns_of(RUNS, Standing)).order_by(*NEWEST_FIRST)
        return [Standing(**{**row, "state": state_of(row["state"])}) for row in self._rows(query)]

    def job(self, run_id: str) -> Job:
        """Return the job of a run at its launch; UnreadableRecord if it is not valid."""
        import yaml  # noqa: PLC0415 - slow, and not needed by a list of runs

        from unitune.files.yaml_file import parse  # noqa: PLC0415 - as above
        from unitune.job.job import Job  # noqa: PLC0415 - as above

        rows = self._rows(sa.select(RUNS.c.job).where(RUNS.c.id == run_id))
        folder = self.run_folder(run_id)
        try:
            job = parse(rows[0]["job"], floats=True)
            return Job.model_validate({**job, "folder": folder})
        except (*NO_JOB, yaml.YAMLError) as error:
            raise UnreadableRecord(f"run {run_id}", "job", "it is not a job") from error

    def run_of_job(self, backend: str, job_id: str) -> str | None:
        """Return the id of the run with a backend's job; None without one."""
        query = sa.select(RUNS.c.id).where(RUNS.c.backend == backend, RUNS.c.job_id == job_id)
        return next((row["id"] for row in self._rows(query.limit(1))), None)

    def events(
        self, run_id: str, attempt: int, after: int = 0, key: str = ""
    ) -> list[RecordedEvent]:
        """Return an attempt's events after an id, the oldest first, whose keys have a prefix."""
        query = sa.select(EVENTS).where(
            EVENTS.c.run_id == run_id, EVENTS.c.attempt == attempt, EVENTS.c.id > after
        )
        if key:
            query = query.where(EVENTS.c.key.startswith(key, autoescape=True))
        return [
            RecordedEvent(row["id"], read(Event, row, f"run {run_id}", f"event {row['id']}"))
            for row in self._rows(query.order_by(EVENTS.c.id))
        ]

    def worse_than_start(self, record: RunRecord) -> str | None:
        """Return why a run's model is known to be worse than before the training, or None."""
        warnings = self.events(record.id, record.attempt, key="warning")
        marked = (seen.event.data for seen in warnings if WORSE in seen.event.data)
        return next((str(data["text"]) for data in marked), None)

    def transitions(self, run_id: str) -> list[Transition]:
        """Return the changes of a run's state, the oldest first."""
        query = sa.select(TRANSITIONS).where(TRANSITIONS.c.run_id == run_id)
        rows = self._rows(query.order_by(TRANSITIONS.c.id))
        return [read(Transition, row, f"run {run_id}", "history") for row in rows]

    def add_upload(self, record: RunRecord, name: str, upload: Upload) -> None:
        """Record a file at the backend, replacing an earlier one of the same name."""
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
        """Return the files of a run at its backend, by name."""
        query = sa.select(UPLOADS).where(UPLOADS.c.run_id == run_id).order_by(UPLOADS.c.id)
        return {row["name"]: Upload(row["ref"], row["sha256"]) for row in self._rows(query)}

    def runs_with_upload(self, ref: str) -> list[str]:
        """Return the ids of the runs that use a file, given the backend's name for it."""
        query = sa.select(UPLOADS.c.run_id).where(UPLOADS.c.ref == ref).distinct()
        return sorted(row["run_id"] for row in self._rows(query))

    def audit_log(self) -> list[AuditEntry]:
        """Return the entries of the audit log, the oldest first."""
        query = sa.select(AUDIT_LOG).order_by(AUDIT_LOG.c.number)
        return [
            read(AuditEntry, row, "the audit log", f"entry {row['number']}")
            for row in self._rows(query)
        ]

    def continuations(self, run_id: str) -> list[RunRecord]:
        """Return the runs whose trainings start from a run's model, the newest first."""
        of_run = RUNS.c.start["run"].as_string() == run_id
        query = sa.select(*RUN_COLUMNS).where(of_run).order_by(*NEWEST_FIRST)
        return [run_of(row) for row in self._rows(query)]

    def _before(self, connection: sa.Connection, run_id: str) -> tuple[RunRecord, float]:
        """Return a run as the transaction sees it, and the time."""
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
        sa.select(RUNS.c.id, RUNS.c.state, RUNS.c.job_id)
        .where(RUNS.c.fingerprint == fingerprint, RUNS.c.state.not_in(TRAINED_NOTHING))
        .order_by(RUNS.c.created.desc())
    )
    runs = (row for row in connection.execute(query).all() if not is_lost(row.job_id))
    if (earlier := next(runs, None)) is not None:
        raise DuplicateRunError(
            f"run {earlier.id} ({earlier.state}) is the same training: data, base model, method, "
            f"tuning and options are equal. See `unitune runs show {earlier.id}`, continue it with "
            f"`unitune runs resume {earlier.id}` if it was interrupted, or train again with "
            "--allow-duplicate.",
            earlier.id,
        )


def _change(
    connection: sa.Connection, before: RunRecord, after: RunRecord, values: dict[str, Any]
) -> None:
    run = RUNS.c
    same = sa.and_(run.id == after.id, run.version == after.version, run.fence == after.fence)
    if connection.execute(RUNS.update().where(same).values(values)).rowcount == 1:
        return
    if before.fence != after.fence:
        raise leases.taken_over(after.id)
    raise LockTimeout(f"another process has just changed run {after.id}. Run the command again.")


def _transition(record: RunRecord) -> dict[str, Any]:
    return {
        "run_id": record.id,
        "attempt": record.attempt,
        "state": str(record.state),
        "raw": record.raw,
        "time": record.updated,
    }
