"""What is written down of runs and deployments: frozen data, as the ledger hands it out.

Beside each stands how it becomes a row and comes back from one. The tables are in
`unitune.ledger.tables`; who may write is the business of `unitune.ledger`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from unitune.backends.launch_keys import launch_key
from unitune.backends.protocol import Event, State
from unitune.errors import UnreadableRecord
from unitune.models import TunedModel

Row = Mapping[Any, Any]
"""Values by the names of columns; SQLAlchemy's own type takes columns as keys, too."""
Time = Annotated[float, Field(ge=0, lt=253_402_300_800)]
"""Seconds since 1970, UTC, until the end of the year 9999."""


def _amount(text: str) -> str:
    try:
        finite = Decimal(text).is_finite()
    except InvalidOperation:
        finite = False
    if not finite:
        raise ValueError("it is no number")
    return text


Amount = Annotated[str, AfterValidator(_amount)]
"""A decimal number as text."""
T = TypeVar("T")
LONGEST_VALUE = 60
"""Characters of a value that is shown."""


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
        fence: Grows with each process that takes the run into its hands (`leases`); a
            record that was read before the last one did can no longer be written.
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


@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """What is written down of one deployment.

    Args:
        run_id: The run whose model it serves; None once that run is deleted.
        name: Of the deployment at its backend.
        model: What to ask.
        state: planned, starting, ready, failed or gone.
        ref: The backend's id, once it is known.
        usd_per_hour: Price, a decimal number as text; None where it is not known.
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
    usd_per_hour: Amount | None
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


RUN_FIELDS = tuple(field.name for field in fields(RunRecord))


def run_values(record: RunRecord) -> dict[str, Any]:
    """Return a run as the values of its row."""
    values = {name: getattr(record, name) for name in RUN_FIELDS}
    model = record.model and record.model.model_dump(mode="json")
    return values | {"state": str(record.state), "model": model}


def run_of(row: Row) -> RunRecord:
    """Return the run of a row.

    Raises:
        UnreadableRecord: It cannot be one.
    """
    return _read(_RUN, {name: row[name] for name in RUN_FIELDS}, f"run {row['id']}")


def tried_run_of(row: Row) -> RunRecord | UnreadableRecord:
    """Return the run of a row, or why it cannot be one."""
    try:
        return run_of(row)
    except UnreadableRecord as error:
        return error


def state_of(text: str) -> State:
    """Return the state that a row names; unknown where it names none."""
    return State(text) if text in STATES else State.UNKNOWN


def transition_of(row: Row) -> Transition:
    """Return the change of state of a row.

    Raises:
        UnreadableRecord: It cannot be one.
    """
    values = {name: row[name] for name in ("state", "raw", "attempt", "time")}
    return _read(_TRANSITION, values, f"run {row['run_id']}", "history")


def event_of(row: Row) -> Event:
    """Return the event of a row.

    Raises:
        UnreadableRecord: It cannot be one.
    """
    values = {name: row[name] for name in ("key", "kind", "time", "data")}
    return _read(_EVENT, values, f"run {row['run_id']}", f"event {row['id']}")


def cost_of(values: Mapping[str, Any]) -> CostRecord:
    """Return what is written down of money.

    Raises:
        UnreadableRecord: It cannot be that.
    """
    return _read(_COST, values, f"run {values['run_id']}", "cost")


def deployment_values(record: DeploymentRecord) -> dict[str, Any]:
    """Return a deployment as the values of its row."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return values | {"model": record.model.model_dump(mode="json")}


def deployment_of(row: Row) -> DeploymentRecord:
    """Return the deployment of a row.

    Raises:
        UnreadableRecord: It cannot be one.
    """
    return _read(_DEPLOYMENT, dict(row), f"deployment {row['id']}")


_RUN = TypeAdapter(RunRecord)
_TRANSITION = TypeAdapter(Transition)
_EVENT = TypeAdapter(Event)
_COST = TypeAdapter(CostRecord)
_DEPLOYMENT = TypeAdapter(DeploymentRecord)
STATES = frozenset(map(str, State))


def _read(adapter: TypeAdapter[T], values: Mapping[str, Any], what: str, part: str = "") -> T:
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise UnreadableRecord(
            what, f"{part} {field}".strip(), f"{_short(first['input'])} ({first['msg']})"
        ) from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
