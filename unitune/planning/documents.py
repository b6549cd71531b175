"""What a plan says, as documents: `Plan` of one backend, `PlanSet` of several side by side."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from unitune.backends.capabilities import Forecast
from unitune.cost.documents import Estimate
from unitune.findings import Finding
from unitune.job.job import TrainingBudget
from unitune.job.prices import PriceEntry

NO_BACKEND = "no-backend"
"""Code of the finding that something is known of a vendor, and nothing can be launched there."""


class Bound(BaseModel):
    """What a saved plan holds for: changed, `unitune apply` refuses it."""

    model_config = ConfigDict(frozen=True)
    job: dict[str, Any]
    """The job, without its folder."""
    files: dict[str, str]
    """SHA-256 of each file as it would be handed over, by its name."""
    job_file: str | None = None
    """Where the job stands, from the folder of the saved plan; None where it was not saved."""
    given_prices: tuple[PriceEntry, ...] = ()
    """Prices of the command line that it was made with; they hold for the launch, too."""
    given_budget: TrainingBudget | None = None
    """The budget of the command line, likewise."""


class Plan(BaseModel):
    """What one job would do on one backend."""

    model_config = ConfigDict(frozen=True)
    schema_version: int = 1
    job: str
    backend: str
    model: str
    method: str
    day: date
    """Day that it was made for."""
    listed: bool
    """Whether the offer names the model, or takes all of the hub's by their names there."""
    charge: Literal["none", "estimated", "unknown"]
    """"none" on one's own machine; "unknown" where no price is known."""
    train_rows: int = 0
    validation_rows: int = 0
    test_rows: int | None = None
    findings: tuple[Finding, ...] = ()
    tunable_until: date | None = None
    """Day from which nobody can tune this base here any more."""
    retires_on: date | None = None
    """Day on which the base, and what was tuned from it, is switched off here."""
    forecast: Forecast | None = None
    """For backends that train on this machine."""
    estimate: Estimate | None = None
    """For hosted backends."""
    bound: Bound | None = None
    """None where the job cannot be launched."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop a launch."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


class PlanSet(BaseModel):
    """What one job would do on several backends."""

    model_config = ConfigDict(frozen=True)
    schema_version: int = 1
    job: str
    day: date
    plans: tuple[Plan, ...]
