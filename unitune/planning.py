"""What would happen: the findings, and the forecast or the estimate, of one job on each backend.

`plan` looks at the offer (data, no SDK), the data files, and, for backends that train on this
machine, at model and machine. It starts nothing, spends nothing and asks nobody. `unitune.run`
refuses a launch for the same findings, so that a plan without errors is a job that can be launched.
`plans` looks at several backends at once: data are read, checked and counted once for all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from pydantic import BaseModel, ConfigDict

from unitune import registry
from unitune.abilities import Forecast, Forecasts, Vets
from unitune.contender_specs import Model
from unitune.cost.budget import (
    ProjectBudget,
    Spent,
    budget_findings,
    caps,
    project_budget,
    unknown_findings,
)
from unitune.cost.estimate import Estimate, estimate
from unitune.cost.narrowing import Narrowing
from unitune.cost.prices.book import PriceBook
from unitune.cost.tokens import counter_for
from unitune.cost.workload import Workload, measure
from unitune.data.check import check_job
from unitune.data.findings import Finding, error, note
from unitune.data.split import Splits, load_splits
from unitune.errors import JobError, MissingExtra, Unsupported
from unitune.feasibility import encoded_parts, offer_findings, on_its_own_name, row_findings
from unitune.home import home, ledger_url
from unitune.job import Job
from unitune.offer import Offer
from unitune.today import today


class Bound(BaseModel):
    """What a saved plan holds for: changed, `unitune apply` refuses it."""

    model_config = ConfigDict(frozen=True)
    job: dict[str, Any]
    """The job, without its folder."""
    files: dict[str, str]
    """SHA-256 of each file as it would be handed over, by its name."""


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
    charge: str
    """"none" for one's own machine; "unknown" where no price is known."""
    train_rows: int = 0
    validation_rows: int = 0
    test_rows: int | None = None
    findings: tuple[Finding, ...] = ()
    tunable_until: date | None = None
    """Day from which nobody can tune this base here any more."""
    stops: date | None = None
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


@dataclass(frozen=True, slots=True)
class Money:
    """What is known of money before a plan is made.

    Args:
        project: Limits of the project.
        spent: What its runs and deployments have cost.
        costs: Of earlier runs, from which is learnt.
    """

    project: ProjectBudget = ProjectBudget()
    spent: Spent = Spent()
    costs: tuple[Any, ...] = ()


@dataclass(slots=True)
class _Rows:
    """A job's rows, read once and counted once for each tokenizer.

    Args:
        job: Names the files; the same for all backends.
        splits: The rows.
    """

    job: Job
    splits: Splits
    _counted: dict[object, Workload] = field(default_factory=dict[object, Workload])

    def for_model(self, model: str, aliases: Iterable[str] = ()) -> Workload:
        """Return the rows as a model counts them."""
        counter = counter_for(model, aliases=aliases)
        key = (counter.basis, counter.assumptions)
        if key not in self._counted:
            self._counted[key] = measure(self.splits, counter)
        return self._counted[key]


def plan(job: Job) -> Plan:
    """Say what a job would do, without doing it.

    Args:
        job: What to tune and how.

    Returns:
        Findings, row counts, and tokens with their time and memory, or their cost.

    Raises:
        UnknownName: No installed package brings the job's backend.
        JobError: The job names no base model for its backend, or budget.yaml is not valid.
    """
    offer = registry.offer(job.backend)
    job = on_its_own_name(job, offer)
    found = _begun(job, offer)
    if found.errors:
        return found
    found = found.model_copy(update={"findings": (*found.findings, *check_job(job).findings)})
    if found.errors:
        return found
    rows = _Rows(job, load_splits(job))
    money = _money(job)
    found = _with_rows(found, job, offer, rows)
    if offer.training_price == "none":
        return _with_forecast(job, rows.splits, found)
    found = _with_estimate(found, job, offer, rows, money)
    return found.model_copy(update={"findings": (*found.findings, *_vetted(job))})


def plans(job: Job, backends: Sequence[str]) -> PlanSet:
    """Say what a job would do on each of several backends; imports none of them.

    Args:
        job: What to tune and how.
        backends: Their names.

    Raises:
        UnknownName: No installed package brings one of them.
    """
    begun = [(name, _begun_on(job, name)) for name in backends]
    checked = check_job(job).findings
    readable = not any(finding.severity == "error" for finding in checked)
    rows = _Rows(job, load_splits(job)) if readable else None
    money = _money(job)
    made: list[Plan] = []
    for name, found in begun:
        if rows is None:
            found = found.model_copy(update={"findings": (*found.findings, *checked)})
        elif not found.errors:
            there = on_its_own_name(job.on(name), registry.offer(name))
            found = _with_rows(found, there, registry.offer(name), rows)
            if found.charge != "none":
                found = _with_estimate(found, there, registry.offer(name), rows, money)
        made.append(found)
    return PlanSet(job=job.name, day=today(), plans=tuple(made))


def estimate_of(job: Job, offer: Offer, rows: _Rows, money: Money) -> Estimate:
    """Return what a job would cost at a hosted backend."""
    base = offer.model(job.base_model)
    work = rows.for_model(job.base_model, base.aliases if base else ())
    others = {
        spec.name: rows.for_model(spec.model)
        for spec in job.evaluate.contenders
        if isinstance(spec, Model) and spec.model != job.base_model
    }
    return estimate(
        job,
        offer,
        work,
        PriceBook(),
        today(),
        others=others,
        learnt=_learnt(money, job, work.basis),
    )


def _begun(job: Job, offer: Offer) -> Plan:
    model = offer.model(job.base_model)
    return Plan(
        job=job.name,
        backend=job.backend,
        model=job.base_model,
        method=job.method,
        day=today(),
        charge=offer.training_price or "unknown",
        findings=offer_findings(job, offer, today()),
        tunable_until=model.tunable_until if model else None,
        stops=model.stops if model else None,
    )


def _begun_on(job: Job, name: str) -> Plan:
    """Return the beginning of a plan; a job without a model for the backend is an error in it."""
    offer = registry.offer(name)
    there = job.on(name)
    try:
        return _begun(on_its_own_name(there, offer), offer)
    except JobError as problem:
        return Plan(
            job=job.name,
            backend=name,
            model="",
            method=job.method,
            day=today(),
            charge=offer.training_price or "unknown",
            findings=(error("no-model", str(problem)),),
        )


def _with_rows(found: Plan, job: Job, offer: Offer, rows: _Rows) -> Plan:
    splits = rows.splits
    parts = encoded_parts(job, offer, splits)
    limit = offer.limits_for(job.base_model).row_tokens
    lengths = rows.for_model(job.base_model).train.totals if limit is not None else None
    update: dict[str, object] = {
        "train_rows": len(splits.train),
        "validation_rows": len(splits.validation),
        "test_rows": None if splits.test is None else len(splits.test),
        "findings": (*found.findings, *row_findings(job, offer, splits, parts, lengths)),
        "bound": Bound(
            job=job.model_dump(mode="json"),
            files={
                name: hashlib.sha256(part.jsonl.encode()).hexdigest()
                for name, part in parts.items()
            },
        ),
    }
    return found.model_copy(update=update)
