"""Runs and their events as commands print them: as JSON by models, and for a person by rich."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, JsonValue
from rich.table import Table
from rich.text import Text

from unitune.backends.protocol import FIGURES, INTERRUPTED, Event, State
from unitune.cli.money import money_facts
from unitune.cli.output import console, facts
from unitune.cost.documents import Estimate
from unitune.cost.reconcile import Reconciliation
from unitune.errors import UnreadableRecord
from unitune.models import TunedModel
from unitune.run.run import Run

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
    duplicate_jobs: tuple[str, ...] = ()
    """Further jobs that carry the run's key; each is charged as well."""
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
            duplicate_jobs=tuple(run.duplicates),
            created=run.created,
            updated=run.updated,
            folder=run.folder,
            model=run.tuned_model,
            estimate=run.estimate,
            reconciliation=run.reconciliation,
        )


class RunList(BaseModel):
    """Runs, the newest first."""

    schema_version: int = 1
    runs: tuple[RunView, ...]
    unreadable: tuple[str, ...] = ()
    """What the ledger holds in place of runs, each with what is wrong with it."""
    total: int
    """How many runs there are."""
    left_out: int
    """Of these, older ones that are not listed here; `--limit` and `--all` list more."""


def run_views(found: list[Run]) -> tuple[tuple[RunView, ...], list[UnreadableRecord]]:
    """Return the views of runs, and what is wrong with those that have none."""
    views: list[RunView] = []
    broken: list[UnreadableRecord] = []
    for run in found:
        try:
            views.append(RunView.of(run))
        except UnreadableRecord as problem:
            broken.append(problem)
    return tuple(views), broken


def runs_table(found: list[Run]) -> Table:
    """Return runs as a table."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("run", "job", "state", "backend", "base model", "started"):
        table.add_column(heading, no_wrap=heading == "run", overflow="fold")
    for run in found:
        table.add_row(
            run.id,
            run.name,
            _state(run),
            run.backend_name,
            run.base_model,
            f"{run.created.astimezone():%Y-%m-%d %H:%M}",
        )
    return table


def is_interrupted(run: Run) -> bool:
    """Whether a run stands still although nobody paused it."""
    return run.state is State.PAUSED and run.raw.startswith(INTERRUPTED)


def _state(run: Run) -> Text:
    if is_interrupted(run):
        return Text(INTERRUPTED, "red")
    return Text(str(run.state), STATE_STYLES.get(run.state, ""))


def duplicate_lines(run: Run) -> list[str]:
    """Return a sentence for each further job that carries the run's key."""
    return [
        f"{run.backend_name} has a second job for this run, {job}, which is charged as well. "
        f"Cancel it: unitune cancel {run.id} --job {job}"
        for job in run.duplicates
    ]


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
        rows["job there"] = run.job_id
    if steps:
        step, total = steps[-1].number("step"), steps[-1].number("steps")
        rows["steps"] = f"{step or 0:.0f}" + (f" of {total:.0f}" if total else "")
    for name in FIGURES:
        if known := [value for step in steps if (value := step.number(name)) is not None]:
            rows[name] = f"{known[0]:.3f} at first, {known[-1]:.3f} at last"
    rows |= money_facts(run)
    if run.error:
        rows["error"] = run.error
    if run.duplicates:
        rows["duplicates"] = "\n".join(duplicate_lines(run))
    if run.tuned_model:
        rows["model"] = run.tuned_model.name
    rows["files"] = str(run.folder)
    console().print(facts(rows))
