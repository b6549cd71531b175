"""A run as commands print it: as JSON by a model, and for a person as a table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel
from rich.text import Text

from unitune.backends.protocol import FIGURES, INTERRUPTED, Event, State
from unitune.cli.output import console, facts
from unitune.cost.documents import Estimate
from unitune.cost.reconcile import Reconciliation
from unitune.models import TunedModel
from unitune.publish import PUSHED
from unitune.render.charts import drawn_curve, drawn_rates
from unitune.render.terminal_curves import LEAST_WIDTH, RATE_ROWS, ROWS, curve_text
from unitune.render.typography import usd_range
from unitune.report.runs import (
    billed,
    differences,
    duplicate_lines,
    is_interrupted,
    lineage_facts,
    registered_names,
)
from unitune.run.curves import curve_of
from unitune.run.run import Run

STATE_STYLES = {State.SUCCEEDED: "green", State.FAILED: "red", State.CANCELLED: "dim"}


class RunView(BaseModel):
    """A run as `unitune show --json` prints it."""

    schema_version: int = 1
    id: str
    name: str
    state: State
    raw: str
    """The backend's own word for the state."""
    error: str | None
    warning: str | None = None
    """Why the model is worse than before the training, if it is known to be."""
    backend: str
    base_model: str
    started_from: tuple[str, ...] = ()
    """Ids of the runs that it has gone on from, the first training first; the model's name, where
    that is of no run."""
    continued_by: tuple[str, ...] = ()
    """Ids of the runs that go on from it, the newest first."""
    version: str | None = None
    """Of the registered model that its model is, such as ``triage:3``."""
    aliases: tuple[str, ...] = ()
    """That point to it, such as ``triage@production``."""
    pushed: tuple[str, ...] = ()
    """Where its model was sent, and as which commit."""
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
    """What it was estimated to cost; None on this machine."""
    reconciliation: Reconciliation | None
    """The bill beside the estimate, once it has ended."""

    @classmethod
    def of(cls, run: Run) -> Self:
        """Return the view of a run."""
        names = registered_names(run)
        return cls(
            id=run.id,
            name=run.name,
            state=run.state,
            raw=run.raw,
            error=run.error,
            warning=run.worse_than_start,
            backend=run.backend_name,
            base_model=run.base_model,
            started_from=tuple(link.name for link in run.lineage.ancestors),
            continued_by=tuple(link.name for link in run.lineage.continuations),
            version=next(iter(names), None),
            aliases=tuple(names[1:]),
            pushed=tuple(pushes_of(run.events())),
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


def state_text(run: Run) -> Text:
    """Return the state of a run, coloured."""
    if is_interrupted(run):
        return Text(INTERRUPTED, "red")
    if run.worse_than_start:
        return Text(f"{run.state}, worse", "yellow")
    return Text(str(run.state), STATE_STYLES.get(run.state, ""))


def _state_with_reason(run: Run) -> str:
    if is_interrupted(run):
        return run.raw
    return f"{run.state} ({run.raw})" if run.raw != run.state else str(run.state)


def print_run(run: Run) -> None:
    """Print one run for a person."""
    events, bill = run.events(), run.reconciliation
    is_named = run.job_id and not Path(run.job_id).is_absolute()
    rows = {
        "run": run.id,
        "job": run.name,
        "state": _state_with_reason(run),
        "backend": run.backend_name,
        "base model": run.base_model,
        **lineage_facts(run),
        "job there": run.job_id if is_named else "",
        **training_facts(events),
        "estimated": usd_range(run.estimate.launch_usd) if run.estimate else "",
        "billed": billed(bill) if bill else "",
        "difference": differences(bill) if bill else "",
        "error": run.error,
        "warning": run.worse_than_start,
        "duplicates": "\n".join(duplicate_lines(run)),
        "model": run.tuned_model and run.tuned_model.name,
        "version": ", ".join(registered_names(run)),
        "pushed": "\n".join(pushes_of(events)),
        "files": str(run.folder),
    }
    console().print(facts({name: text for name, text in rows.items() if text}))
    if console().width < LEAST_WIDTH or not console().is_terminal:
        return
    if (curve := curve_of(events)) is not None:
        for drawn, height in ((drawn_curve(curve), ROWS), (drawn_rates(curve), RATE_ROWS)):
            if drawn is not None:
                console().print()
                console().print(curve_text(drawn, console().width, height))


def training_facts(events: Sequence[Event]) -> dict[str, str]:
    """Return how far a training is, its losses, and why it ended where that was decided."""
    steps = [event for event in events if event.kind == "step"]
    if not steps:
        return {}
    step, total = steps[-1].number("step"), steps[-1].number("steps")
    rows = {"steps": f"{step or 0:.0f}" + (f" of {total:.0f}" if total else "")}
    for name in FIGURES:
        if values := [value for step in steps if (value := step.number(name)) is not None]:
            rows[name] = f"{values[0]:.3f} at first, {values[-1]:.3f} at last"
    if concluded := [event for event in events if "kept_step" in event.data]:
        rows["ended"] = str(concluded[-1].data["text"])
    return rows


def pushes_of(events: Sequence[Event]) -> list[str]:
    """Return where a run's model was sent, in words."""
    pushed = (str(event.data.get("text")) for event in events if event.key.startswith(PUSHED))
    return [text.removeprefix("pushed to ") for text in pushed]
