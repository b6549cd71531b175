"""JSON of a run, and its state in a list."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel
from rich.text import Text

from unitune.backends.protocol import INTERRUPTED, State
from unitune.cost.documents import Estimate
from unitune.cost.reconcile import Reconciliation
from unitune.models import TunedModel
from unitune.render.terminal import STYLES
from unitune.report.run_document import pushes_of, tone
from unitune.report.runs import is_interrupted, registered_names
from unitune.run.run import Run


class RunView(BaseModel):
    """A run as `unitune runs show --json` prints it."""

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
    """Return the state of a run in a word or two, coloured."""
    worse = ", worse" if run.worse_than_start else ""
    state = INTERRUPTED if is_interrupted(run) else f"{run.state}{worse}"
    return Text(state, STYLES[tone(run)])
