"""Define the tables of the ledger and the frozen records of their rows.

A record's fields have the names of its table's columns. Only `migrations` changes the tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import sqlalchemy as sa
from pydantic import Field, TypeAdapter, ValidationError

from unitune.backends.exactly_once import MOST_ATTEMPTS, launch_key
from unitune.backends.protocol import Event, State
from unitune.errors import UnreadableRecord
from unitune.files.validation import sentence
from unitune.models import Start, TunedModel
from unitune.security.redaction import redacted

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

HEAD = "0006"  # newest version of the schema; a test compares it with `migrations`
# All versions, the oldest first
VERSIONS = tuple(f"{number:04}" for number in range(1, int(HEAD) + 1))

METADATA = sa.MetaData()
RUNS = sa.Table(
    "runs",
    METADATA,
    sa.Column("id", sa.String(20), primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("backend", sa.String(64), nullable=False),
    sa.Column("base_model", sa.Text, nullable=False),
    sa.Column("method", sa.String(16), nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False, index=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("raw", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("job_id", sa.Text),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("cursor", sa.Text, nullable=False),
    sa.Column("model", sa.JSON(none_as_null=True)),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("updated", sa.Double, nullable=False),
    sa.Column("start", sa.JSON(none_as_null=True)),
    sa.Column("job", sa.Text),
    sa.Column("host", sa.Text, nullable=False, server_default=""),
    sa.Column("lease_holder", sa.Text),
    sa.Column("lease_until", sa.Double),
    sa.Column("fence", sa.Integer, nullable=False, server_default="0"),
)
TRANSITIONS = sa.Table(
    "transitions",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.String(20), sa.ForeignKey("runs.id"), nullable=False, index=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("raw", sa.Text, nullable=False),
    sa.Column("time", sa.Double, nullable=False),
)
EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.String(20), sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("key", sa.String(200), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.UniqueConstraint("run_id", "attempt", "key", name="events_once"),
)
UPLOADS = sa.Table(
    "uploads",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.String(20), sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("ref", sa.Text, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.UniqueConstraint("run_id", "name", name="uploads_once"),
)
DEPLOYMENTS = sa.Table(
    "deployments",
    METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("run_id", sa.String(20), sa.ForeignKey("runs.id"), index=True),
    sa.Column("backend", sa.String(64), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("model", sa.JSON, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("ref", sa.Text),
    sa.Column("usd_per_hour", sa.Text),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("until", sa.Double, nullable=False),
    sa.Column("ended", sa.Double),
    sa.Column("version", sa.Integer, nullable=False),
)
COSTS = sa.Table(
    "costs",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.String(20), sa.ForeignKey("runs.id"), index=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("backend", sa.String(64), nullable=False),
    sa.Column("base_model", sa.Text, nullable=False),
    sa.Column("approval", sa.Text, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("reserved", sa.Double),
    sa.Column("outcome", sa.Text),
    sa.UniqueConstraint("run_id", "attempt", name="costs_once"),
)

# Values by column name; SQLAlchemy's own type has columns as keys too
Row = Mapping[Any, Any]
# Seconds since 1970, UTC, until the end of the year 9999
Time = Annotated[float, Field(ge=0, lt=253_402_300_800)]
T = TypeVar("T", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Record of one run; times are in seconds since 1970, UTC."""

    id: str
    name: str
    backend: str
    base_model: str
    method: str
    fingerprint: str
    created: Time
    updated: Time
    state: State = State.PLANNED
    raw: str = ""  # state in the backend's words
    error: str | None = None
    job_id: str | None = None  # backend's id, once it is known
    # Each has its own launch key
    attempt: Annotated[int, Field(ge=1, le=MOST_ATTEMPTS)] = 1
    cursor: str = ""  # position at which the next poll continues
    model: TunedModel | None = None
    version: int = 1  # grows with each write
    host: str = ""  # machine that launched the run and has its files
    fence: int = 0  # grows with each lease; a record with an old fence cannot be written
    start: Start | None = None  # model that the training started from, even if it is deleted

    @property
    def launch_key(self) -> str:
        """Key of this attempt's job at its backend."""
        return launch_key(self.id, self.attempt)


@dataclass(frozen=True, slots=True)
class Standing:
    """State of one run, small enough to watch thousands of runs."""

    id: str
    backend: str
    job_id: str | None
    state: State


@dataclass(frozen=True, slots=True)
class Transition:
    """Change of a run's state, with its time in seconds since 1970, UTC."""

    state: State
    raw: str
    attempt: int
    time: float


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """Event with its id in the ledger; ids grow."""

    id: int
    event: Event


@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """Record of one deployment; times are in seconds since 1970, UTC."""

    id: str
    run_id: str | None  # None once the run is deleted
    backend: str
    name: str  # at the backend
    model: TunedModel  # model that answers
    state: str  # planned, starting, ready, swapping, failed or gone
    ref: str | None  # backend's id, once it is known
    usd_per_hour: Decimal | None  # None if unknown
    created: Time
    until: Time  # when it is to be taken down
    ended: Time | None
    version: int = 1  # grows with each write


@dataclass(frozen=True, slots=True)
class CostRecord:
    """Money of one attempt of a run; times are in seconds since 1970, UTC."""

    run_id: str | None  # None once the run is deleted
    attempt: int
    backend: str
    base_model: str
    approval: str  # terms of the launch, JSON (`budgeting`)
    created: Time
    reserved: Time | None = None  # when money was reserved
    outcome: str | None = None  # cost as JSON, once it is known
    over: bool = False  # whether the attempt has ended or never started
    has_job: bool = False  # whether the backend created a job for it


STATES = frozenset(map(str, State))


def columns_of(table: sa.Table, kind: type[DataclassInstance]) -> list[sa.Column[Any]]:
    """Return the columns of a table that a record has."""
    return [table.c[field.name] for field in fields(kind) if field.name in table.c]


def values_of(record: RunRecord | DeploymentRecord) -> dict[str, Any]:
    """Return a record as the values of its row."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    model = record.model and record.model.model_dump(mode="json")
    values |= {"state": str(record.state), "model": model}
    if isinstance(record, RunRecord):
        values["start"] = record.start and record.start.model_dump(mode="json")
    elif record.usd_per_hour is not None:
        values["usd_per_hour"] = str(record.usd_per_hour)
    return values


def read(kind: type[T], row: Row, what: str, part: str = "", **others: Any) -> T:
    """Return the record of a row; UnreadableRecord, with `what` and `part`, if not valid."""
    adapter = _adapter(kind)
    names = [field.name for field in fields(kind) if field.name not in others]
    try:
        return adapter.validate_python({name: row[name] for name in names} | others)
    except ValidationError as error:
        raise unreadable(error, what, f"{part} ") from error


def unreadable(error: ValidationError, what: str, part: str) -> UnreadableRecord:
    """Return the error for an invalid record; `part` precedes the name of the field."""
    first = error.errors(include_url=False)[0]
    where = f"{part}{'.'.join(map(str, first['loc']))}".strip(". ")
    return UnreadableRecord(what, where, f"it {sentence([first])}".removesuffix("."))


def run_of(row: Row) -> RunRecord:
    """Return the run of a row; raises `UnreadableRecord`."""
    return read(RunRecord, row, f"run {row['id']}")


def state_of(text: str) -> State:
    """Return the state of a row; unknown for an invalid one."""
    return State(text) if text in STATES else State.UNKNOWN


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)


LONGEST_KEY = 200  # characters of an event's key


def add_events(connection: sa.Connection, record: RunRecord, events: Sequence[Event]) -> int:
    """Record the events with new keys, and return their number."""
    if not events:
        return 0
    attempt = (EVENTS.c.run_id == record.id) & (EVENTS.c.attempt == record.attempt)
    known = set(connection.execute(sa.select(EVENTS.c.key).where(attempt)).scalars())
    rows = {
        key: {
            "run_id": record.id,
            "attempt": record.attempt,
            "key": key,
            "kind": event.kind,
            "time": event.time,
            # A vendor's message may repeat a secret.
            "data": {
                name: redacted(value) if isinstance(value, str) else value
                for name, value in event.data.items()
            },
        }
        for event in events
        if (key := _short(event.key)) not in known
    }
    if rows:
        connection.execute(EVENTS.insert(), list(rows.values()))
    return len(rows)


def _short(key: str) -> str:
    """Return a key that fits its column and stays unique."""
    if len(key) <= LONGEST_KEY:
        return key
    return key[: LONGEST_KEY - 64] + hashlib.sha256(key.encode()).hexdigest()
