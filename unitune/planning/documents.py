"""What a plan says, as documents: `Plan` of one backend, `PlanSet` of several side by side."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from html import escape
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from unitune.backends.capabilities import Forecast
from unitune.cost.documents import Estimate
from unitune.cost.spread import cents
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
    """SHA-256 of each file as it would be uploaded, by its name."""
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
    """"none" on this machine; "unknown" where no price is known."""
    train_rows: int = 0
    validation_rows: int = 0
    test_rows: int | None = None
    findings: tuple[Finding, ...] = ()
    tunable_until: date | None = None
    """Day from which this base cannot be tuned here any more."""
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

    def __repr__(self) -> str:
        return f"<Plan {self.job!r} on {self.backend}: {len(self.errors)} errors>"

    def __str__(self) -> str:
        """A few lines for a person: rows, time and memory or cost, and the findings."""
        lines = [f"{self.job}: {self.method} of {self.model} on {self.backend}, {self.day}"]
        if not self.errors:
            lines += self._figures()
        lines += [f"{finding.severity}: {finding}" for finding in self.findings]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def _figures(self) -> Iterator[str]:
        test = "none" if self.test_rows is None else f"{self.test_rows:,}"
        yield f"rows: {self.train_rows:,} train, {self.validation_rows:,} validation, {test} test"
        if (forecast := self.forecast) is not None:
            low, high = (
                timedelta(seconds=round(seconds))
                for seconds in (forecast.seconds_low, forecast.seconds_high)
            )
            yield f"time: {low} to {high}, for {forecast.steps:,} steps"
            yield f"memory: {forecast.memory_bytes / 1e9:.1f} GB"
        yield f"cost: {self._cost()}"

    def _cost(self) -> str:
        usd = self.estimate and self.estimate.launch_usd
        if usd is None:
            return "none: it trains on this machine" if self.charge == "none" else "unknown"
        if usd.exact:
            return f"${cents(usd.high)}"
        return f"${cents(usd.low)} to ${cents(usd.high)}, expected ${cents(usd.expected)}"


class PlanSet(BaseModel):
    """What one job would do on several backends."""

    model_config = ConfigDict(frozen=True)
    schema_version: int = 1
    job: str
    day: date
    plans: tuple[Plan, ...]
