"""Define the JSON of a run."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel

from unitune.backends.protocol import State
from unitune.cost.documents import Estimate
from unitune.cost.reconcile import Reconciliation
from unitune.models import TunedModel
from unitune.report.run_document import pushes_of
from unitune.report.runs import registered_names
from unitune.run.run import Run


class RunView(BaseModel):
    """Run as `unitune runs show --json` prints it."""

    schema_version: int = 1
    id: str
    name: str
    state: State
    raw: str
    """Backend's own word for the state."""
    error: str | None
    warning: str | None = None
    """Reason why the model is worse than before the training, if known."""
    backend: str
    base_model: str
    started_from: tuple[str, ...] = ()
    """Ids of the runs that it continued from, the oldest first; or a model's name without a run."""
    continued_by: tuple[str, ...] = ()
    """Ids of the runs that continue from it, the newest first."""
    version: str | None = None
    """Registered version of its model, such as ``triage:3``."""
    aliases: tuple[str, ...] = ()
    """Aliases that point to that version, such as ``triage@production``."""
    pushed: tuple[str, ...] = ()
    """Repositories, with commits, that its model was pushed to."""
    training_fingerprint: str
    launch_key: str
    job_id: str | None
    """Backend's id of the job, once it exists."""
    duplicate_jobs: tuple[str, ...] = ()
    """Further jobs with the run's key, which are all charged."""
    created: datetime
    updated: datetime
    folder: Path
    model: TunedModel | None
    estimate: Estimate | None
    """Estimated cost; None on this machine."""
    reconciliation: Reconciliation | None
    """Bill next to the estimate, after the end of the run."""

    @classmethod
    def of(cls, run: Run) -> Self:
        """Return the view of a run."""
        names = registered_names(run)
        same = cls.model_fields.keys() & set(dir(Run)) - {"model"}
        return cls(
            **{name: getattr(run, name) for name in same},
            warning=run.worse_than_start,
            backend=run.backend_name,
            started_from=tuple(link.name for link in run.lineage.ancestors),
            continued_by=tuple(link.name for link in run.lineage.continuations),
            version=next(iter(names), None),
            aliases=tuple(names[1:]),
            pushed=tuple(pushes_of(run.events())),
            training_fingerprint=run.fingerprint,
            duplicate_jobs=tuple(run.duplicates),
            model=run.tuned_model,
        )
