"""What would happen: the findings, and the forecast or the estimate, of one job on one backend.

`plan` looks at the offer (data, no SDK), the data files, and, for backends that train on this
machine, at model and machine. It starts nothing and spends nothing. `unitune.run` refuses a launch
for the same findings, so that a plan without errors is a job that can be launched.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from unitune import registry
from unitune.abilities import Forecast, Forecasts, Vets
from unitune.cost.budget import budget_findings
from unitune.cost.estimate import Estimate, estimate
from unitune.cost.prices.book import offer_for
from unitune.data.check import check_job
from unitune.data.findings import Finding, error, note
from unitune.data.split import Splits, load_splits
from unitune.errors import JobError, MissingExtra, Unsupported
from unitune.feasibility import offer_findings, on_its_own_name, row_findings
from unitune.job import Job
from unitune.offer import Offer
from unitune.today import today


class Plan(BaseModel):
    """What one job would do on one backend."""

    model_config = ConfigDict(frozen=True)
    schema_version: int = 1
    job: str
    backend: str
    model: str
    method: str
    charge: str
    """"none" for one's own machine; "unknown" where no price is known."""
    train_rows: int = 0
    validation_rows: int = 0
    test_rows: int | None = None
    findings: tuple[Finding, ...] = ()
    forecast: Forecast | None = None
    """For backends that train on this machine."""
    estimate: Estimate | None = None
    """For hosted backends whose price is known."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop a launch."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def plan(job: Job) -> Plan:
    """Say what a job would do, without doing it.

    Args:
        job: What to tune and how.

    Returns:
        Findings, row counts and, for a backend on this machine, tokens, steps, time and memory.

    Raises:
        UnknownName: No installed package brings the job's backend.
        JobError: The job names no base model for its backend.
    """
    offer = offer_for(job)
    job = on_its_own_name(job, offer)
    found = Plan(
        job=job.name,
        backend=job.backend,
        model=job.base_model,
        method=job.method,
        charge=offer.training_price or "unknown",
        findings=(*offer_findings(job, offer, today()), *check_job(job).findings),
    )
    return found if found.errors else _with_rows(job, offer, found)


def _with_rows(job: Job, offer: Offer, found: Plan) -> Plan:
    splits = load_splits(job)
    planned = found.model_copy(
        update={
            "train_rows": len(splits.train),
            "validation_rows": len(splits.validation),
            "test_rows": None if splits.test is None else len(splits.test),
            "findings": (*found.findings, *row_findings(job, offer, splits)),
        }
    )
    if offer.training_price == "none":
        return _with_forecast(job, splits, planned)
    priced = estimate(job, offer, splits.train)
    findings = (*planned.findings, *budget_findings(job, priced), *_vetted(job))
    return planned.model_copy(update={"estimate": priced, "findings": findings})


def _with_forecast(job: Job, splits: Splits, planned: Plan) -> Plan:
    try:
        backend = registry.backend(job.backend)
    except MissingExtra as missing:
        findings = (*planned.findings, error("missing-extra", str(missing)))
        return planned.model_copy(update={"findings": findings})
    if not isinstance(backend, Forecasts):
        return planned
    forecast = backend.forecast(job, splits.train, splits.validation)
    return planned.model_copy(
        update={"forecast": forecast, "findings": (*planned.findings, *forecast.findings)}
    )


def _vetted(job: Job) -> tuple[Finding, ...]:
    """Return what the backend itself says against the job, where it is installed."""
    if job.backend not in registry.backend_names():
        return (error("no-backend", registry.unavailable(registry.offer(job.backend))),)
    missing = registry.missing_packages(job.backend)
    if not missing:
        return _told(job)
    return (
        note(
            "missing-extra",
            f"to launch there, {', '.join(missing)} must be installed.",
            f"Install with: pip install 'unitune[{job.backend}]'",
        ),
    )


def _told(job: Job) -> tuple[Finding, ...]:
    backend = registry.backend(job.backend)
    try:
        if isinstance(backend, Vets):
            backend.vet(job)
    except (JobError, Unsupported) as refusal:
        return (error("refused-options", str(refusal)),)
    return ()
