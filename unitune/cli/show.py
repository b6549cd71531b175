"""Documents that commands print: as JSON by their models, and for a person by rich."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, JsonValue
from rich.markup import escape
from rich.table import Table

from unitune import registry
from unitune.abilities import StoredModel, Stores
from unitune.backend import Event, State
from unitune.cli.money import money_facts
from unitune.cli.output import console, facts, gigabytes, print_findings
from unitune.cli.pricelist import PriceList
from unitune.cost.budget import ProjectBudget
from unitune.cost.documents import Estimate
from unitune.cost.prices.files import PricesFile
from unitune.cost.reconcile import Reconciliation
from unitune.data.check import DataReport
from unitune.data.leaks import by_kind
from unitune.evaluate.results import Comparison
from unitune.job import Job
from unitune.models import TunedModel
from unitune.offer import Offer, OfferedModel
from unitune.owning.documents import OwnershipList
from unitune.planning.documents import Plan
from unitune.runs.run import Run

STATE_STYLES = {State.SUCCEEDED: "green", State.FAILED: "red", State.CANCELLED: "dim"}


class EventLine(BaseModel):
    """One line of `unitune watch --json`."""

    schema_version: int = 1
    run: str
    kind: str
    time: float
    data: dict[str, JsonValue]

    @classmethod
    def of(cls, run: Run, event: Event) -> Self:
        """Return the line for an event of a run."""
        return cls(run=run.id, kind=event.kind, time=event.time, data=event.data)


class RunView(BaseModel):
    """A run as `unitune show --json` prints it."""

    schema_version: int = 1
    id: str
    name: str
    state: State
    raw: str
    """The backend's own word for the state."""
    error: str | None
    backend: str
    base_model: str
    training_fingerprint: str
    launch_key: str
    job_id: str | None
    """The backend's id of the job, once there is one."""
    created: datetime
    updated: datetime
    folder: Path
    model: TunedModel | None
    estimate: Estimate | None
    """What it was reckoned to cost; None on one's own machine."""
    reconciliation: Reconciliation | None
    """The bill beside the estimate, once it has ended."""

    @classmethod
    def of(cls, run: Run) -> Self:
        """Return the view of a run."""
        return cls(
            id=run.id,
            name=run.name,
            state=run.state,
            raw=run.raw,
            error=run.error,
            backend=run.backend_name,
            base_model=run.base_model,
            training_fingerprint=run.fingerprint,
            launch_key=run.launch_key,
            job_id=run.job_id,
            created=run.created,
            updated=run.updated,
            folder=run.folder,
            model=run.model,
            estimate=run.estimate,
            reconciliation=run.reconciliation,
        )


class RunList(BaseModel):
    """All runs, the newest first."""

    schema_version: int = 1
    runs: tuple[RunView, ...]


class ModelList(BaseModel):
    """Base models that a backend can tune here."""

    schema_version: int = 1
    backend: str
    offered: tuple[OfferedModel, ...]
    stored: tuple[StoredModel, ...]

    @classmethod
    def of(cls, name: str) -> Self:
        """Look up a backend's offer and what it keeps on this machine."""
        backend = registry.backend(name)
        stored = backend.stored() if isinstance(backend, Stores) else []
        return cls(backend=name, offered=registry.offer(name).models, stored=tuple(stored))


def document_model(
    name: Literal[
        "job", "plan", "check", "run", "verdict", "cost", "budget", "offer", "prices", "price-list"
    ],
) -> type[BaseModel]:
    """Return the model whose JSON Schema describes a document."""
    models: dict[str, type[BaseModel]] = {
        "job": Job,
        "plan": Plan,
        "check": DataReport,
        "run": RunView,
        "verdict": Comparison,
        "cost": OwnershipList,
        "budget": ProjectBudget,
        "offer": Offer,
        "prices": PricesFile,
        "price-list": PriceList,
    }
    return models[name]


def print_report(report: DataReport) -> None:
    """Print a data report for a person."""
    for file in report.files:
        console().print(f"[bold]{escape(file.name)}[/bold]  {file.rows:,} rows")
        peak = max((count for _, count in file.histogram), default=0)
        for label, count in file.histogram:
            bar = "█" * round(30 * count / peak) if peak else ""
            console().print(f"  [dim]{label:>15} characters[/dim] {bar} {count:,}")
        if file.shared:
            kinds = by_kind(Counter(file.shared).elements())
            console().print(f"  also in an earlier file of the job: {kinds}")
    print_findings(report.findings)
    if not report.findings:
        console().print("[green]Nothing wrong.[/green]")


def runs_table(found: list[Run]) -> Table:
    """Return runs as a table."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("run", "job", "state", "backend", "base model", "started"):
        table.add_column(heading, no_wrap=heading == "run", overflow="fold")
    for run in found:
        style = STATE_STYLES.get(run.state, "")
        table.add_row(
            run.id,
            run.name,
            f"[{style}]{run.state}[/{style}]" if style else str(run.state),
            run.backend_name,
            run.base_model,
            f"{run.created.astimezone():%Y-%m-%d %H:%M}",
        )
    return table


def print_run(run: Run) -> None:
    """Print one run for a person."""
    steps = [event for event in run.events() if event.kind == "step"]
    rows = {
        "run": run.id,
        "job": run.name,
        "state": f"{run.state} ({run.raw})" if run.raw != run.state else str(run.state),
        "backend": run.backend_name,
        "base model": run.base_model,
    }
    if run.job_id and not Path(run.job_id).is_absolute():
        rows["job there"] = escape(run.job_id)
    if steps:
        first, last = steps[0].data, steps[-1].data
        rows["steps"] = f"{last.get('step')} of {last.get('steps')}"
        rows["loss"] = f"{first.get('loss'):.3f} at first, {last.get('loss'):.3f} at last"
    rows |= money_facts(run)
    if run.error:
        rows["error"] = escape(run.error)
    if run.model:
        rows["model"] = escape(run.model.name)
    rows["files"] = escape(str(run.folder))
    console().print(facts(rows))


def models_table(found: ModelList) -> Table:
    """Return base models as a table."""
    here = {model.name: model for model in found.stored}
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("model", "parameters", "licence", "on this machine", "note"):
        table.add_column(heading)
    for model in found.offered:
        parameters = f"{model.parameters / 1e6:.0f} M" if model.parameters else "?"
        size = gigabytes(here[model.name].bytes) if model.name in here else "no"
        table.add_row(model.name, parameters, model.licence or "?", size, model.note)
    offered = {model.name for model in found.offered}
    for stored in found.stored:
        if stored.name not in offered:
            table.add_row(stored.name, "", "", gigabytes(stored.bytes), str(stored.path))
    return table
