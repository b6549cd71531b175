"""What would happen: the findings and the forecast of one job on one backend.

`plan` looks at the offer (data, no SDK), the data files, and, for backends that train on this
machine, at model and machine. It starts nothing and spends nothing. `unitune.run` refuses a launch
for the same findings, so that a plan without errors is a job that can be launched.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from unitune import registry
from unitune.abilities import Forecast, Forecasts
from unitune.data.check import check_job
from unitune.data.findings import Finding
from unitune.data.split import load_splits
from unitune.errors import MissingExtra, nearest
from unitune.job import Job, Tuning
from unitune.offer import Offer


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
    offer = registry.offer(job.backend)
    found = Plan(
        job=job.name,
        backend=job.backend,
        model=job.base_model,
        method=job.method,
        charge=offer.training_price or "unknown",
        findings=(*offer_findings(job, offer), *check_job(job).findings),
    )
    return found if found.errors else _with_forecast(job, found)


def _with_forecast(job: Job, found: Plan) -> Plan:
    splits = load_splits(job)
    counted = found.model_copy(
        update={
            "train_rows": len(splits.train),
            "validation_rows": len(splits.validation),
            "test_rows": None if splits.test is None else len(splits.test),
        }
    )
    try:
        backend = registry.backend(job.backend)
    except MissingExtra as error:
        missing = Finding(severity="error", code="missing-extra", message=str(error))
        return counted.model_copy(update={"findings": (*found.findings, missing)})
    if not isinstance(backend, Forecasts):
        return counted
    forecast = backend.forecast(job, splits.train, splits.validation)
    return counted.model_copy(
        update={"forecast": forecast, "findings": (*found.findings, *forecast.findings)}
    )


def offer_findings(job: Job, offer: Offer) -> tuple[Finding, ...]:
    """Return what a backend's offer says against a job.

    An explicit setting that the backend cannot honour is an error; only `auto` adapts.
    """
    found: list[Finding] = []
    if job.method not in offer.methods:
        found.append(_refusal("method", f"{offer.name} cannot do {job.method}", offer.methods))
    names = {name for model in offer.models for name in (model.name, *model.aliases)}
    if not offer.any_model and job.base_model not in names:
        guess = nearest(job.base_model, names)
        message = f"{offer.name} cannot tune {job.base_model!r}"
        hint = f"{message}; the nearest is {guess!r}" if guess else message
        found.append(_refusal("model", hint, tuple(sorted(names))))
    found.extend(
        _refusal("setting", f"{offer.name} cannot honour tuning.{setting}", offer.honours)
        for setting in explicit_settings(job.tuning)
        if setting not in offer.honours
    )
    return tuple(found)


def explicit_settings(tuning: Tuning) -> list[str]:
    """Return the dotted names of the settings that are not `auto`."""
    flat = {name: getattr(tuning, name) for name in Tuning.model_fields if name != "lora"}
    flat |= {f"lora.{name}": value for name, value in tuning.lora}
    return [name for name, value in flat.items() if value != "auto"]


def _refusal(what: str, message: str, allowed: tuple[str, ...]) -> Finding:
    return Finding(
        severity="error",
        code=f"unsupported-{what}",
        message=f"{message}.",
        fix=f"It takes: {', '.join(allowed) or 'nothing'}. Change the job or choose a backend "
        "that can.",
    )
