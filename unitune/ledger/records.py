"""The tables of the ledger, in types that every database has, and their rows as frozen records.

A record's fields have the names of its table's columns. The tables are made and changed by
`migrations` alone; what a lease's columns mean is the business of `leases`.
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

from unitune.backends.launch_keys import launch_key
from unitune.backends.protocol import Event, State
from unitune.errors import UnreadableRecord
from unitune.models import Start, TunedModel
from unitune.security.redaction import redacted
from unitune.workspace.validation import sentence

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

HEAD = "0005"  # the newest version of the schema; a test holds it against `migrations`
# All of them, the oldest first
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

# Values by the names of columns; SQLAlchemy's own type takes columns as keys, too
Row = Mapping[Any, Any]
# Seconds since 1970, UTC, until the end of the year 9999
Time = Annotated[float, Field(ge=0, lt=253_402_300_800)]
T = TypeVar("T", bound="DataclassInstance")


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
        host: Name of the machine that launched it, where its files stand.
        fence: Grows with each lease of the run (`leases`); a record that was read under an earlier
            one can no longer be written.
        start: What the training goes on from; kept when that is deleted.
    """

    id: str
    name: str
    backend: str
    base_model: str
    method: str
    fingerprint: str
    created: Time
    updated: Time
    state: State = State.PLANNED
    raw: str = ""
    error: str | None = None
    job_id: str | None = None
    attempt: int = 1
    cursor: str = ""
    model: TunedModel | None = None
    version: int = 1
    host: str = ""
    fence: int = 0
    start: Start | None = None

    @property
    def launch_key(self) -> str:
        """The key that this attempt's job carries at its backend."""
        return launch_key(self.id, self.attempt)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one run stands, and no more: who watches thousands keeps this of each."""

    id: str
    backend: str
    job_id: str | None
    state: State


@dataclass(frozen=True, slots=True)
class Transition:
    """A state that a run came into, and when (seconds since 1970, UTC)."""

    state: State
    raw: str
    attempt: int
    time: float


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event with its id in the ledger, which grows with each."""

    id: int
    event: Event


@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """What is written down of one deployment.

    Args:
        run_id: The run whose model it serves; None once that run is deleted.
        name: Of the deployment at its backend.
        model: What requests go to.
        state: planned, starting, ready, swapping, failed or gone.
        ref: The backend's id, once it is known.
        usd_per_hour: Price; None where it is not known.
        created: Seconds since 1970, UTC; so are `until`, when it is to be taken down, and `ended`.
        version: Grows with each write.
    """

    id: str
    run_id: str | None
    backend: str
    name: str
    model: TunedModel
    state: str
    ref: str | None
    usd_per_hour: Decimal | None
    created: Time
    until: Time
    ended: Time | None
    version: int = 1


@dataclass(frozen=True, slots=True)
class CostRecord:
    """What is written down of the money of one attempt of a run.

    Args:
        run_id: None once the run is deleted; what was spent stays spent.
        approval: What it was launched on, as JSON; `unitune.ledger.budgeting` knows what that is.
        created: Seconds since 1970, UTC; so is `reserved`, when its money was set aside.
        outcome: What it has cost, as JSON; None until that is known.
        over: Whether it has ended, or never came to be.
        has_job: Whether the backend made a job for it.
    """

    run_id: str | None
    attempt: int
    backend: str
    base_model: str
    approval: str
    created: Time
    reserved: Time | None = None
    outcome: str | None = None
    over: bool = False
    has_job: bool = False


STATES = frozenset(map(str, State))


def columns_of(table: sa.Table, kind: type[DataclassInstance]) -> list[sa.Column[Any]]:
    """Return the columns of a table that a record is read from."""
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
    """Return the record of a row.

    Args:
        kind: Its class, whose fields have the names of the columns.
        row: As the database gives it.
        what: Whose record it is, for the message, such as "run r251125-…".
        part: Which part of that.
        others: Fields that are no columns.

    Raises:
        UnreadableRecord: The row holds what cannot be one.
    """
    adapter = _adapter(kind)
    names = [field.name for field in fields(kind) if field.name not in others]
    try:
        return adapter.validate_python({name: row[name] for name in names} | others)
    except ValidationError as error:
        raise unreadable(error, what, f"{part} ") from error


def unreadable(error: ValidationError, what: str, part: str) -> UnreadableRecord:
    """Return the error for what cannot be a record; `part` stands before the field's name."""
    first = error.errors(include_url=False)[0]
    where = f"{part}{'.'.join(map(str, first['loc']))}".strip(". ")
    return UnreadableRecord(what, where, f"it {sentence([first])}".removesuffix("."))


def run_of(row: Row) -> RunRecord:
    """Return the run of a row; raises `UnreadableRecord`."""
    return read(RunRecord, row, f"run {row['id']}")


def state_of(text: str) -> State:
    """Return the state that a row names; unknown where it names none."""
    return State(text) if text in STATES else State.UNKNOWN


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)


LONGEST_KEY = 200  # characters of an event's key, as in `unitune.ledger.records`


def add_events(connection: sa.Connection, record: RunRecord, events: Sequence[Event]) -> int:
    """Write down the events whose keys are new, and return how many."""
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
            # A vendor's words may repeat a secret.
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
    """Return a key that fits its column, and differs for every other key."""
    if len(key) <= LONGEST_KEY:
        return key
    return key[: LONGEST_KEY - 64] + hashlib.sha256(key.encode()).hexdigest()
