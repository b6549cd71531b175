"""What is written down of runs and deployments: frozen data, as the ledger hands it out.

Beside each stands how it becomes a row and comes back from one. The tables are in
`unitune.ledger.tables`; who may write is the business of `unitune.ledger`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from unitune.backend import Event, State
from unitune.keys import launch_key
from unitune.models import TunedModel

Row = Mapping[Any, Any]
"""Values by the names of columns; SQLAlchemy's own type takes columns as keys, too."""


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
    usd_per_hour: str | None
    created: float
    until: float
    ended: float | None
    version: int = 1


@dataclass(frozen=True, slots=True)
class CostRecord:
    """What is written down of the money of one attempt of a run.

    Args:
        run_id: None once the run is deleted; what was spent stays spent.
        approval: What it was launched on, as JSON; `unitune.budgeting` knows what that is.
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
    created: float
    reserved: float | None = None
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
    """Return the run of a row."""
    values: dict[str, Any] = {name: row[name] for name in RUN_FIELDS}
    values["state"] = State(values["state"])
    values["model"] = values["model"] and TunedModel.model_validate(values["model"])
    return RunRecord(**values)


def deployment_values(record: DeploymentRecord) -> dict[str, Any]:
    """Return a deployment as the values of its row."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return values | {"model": record.model.model_dump(mode="json")}


def deployment_of(row: Row) -> DeploymentRecord:
    """Return the deployment of a row."""
    values: dict[str, Any] = dict(row)
    values["model"] = TunedModel.model_validate(values["model"])
    return DeploymentRecord(**values)
