"""Plan one job on one or several backends: findings, and a forecast or an estimate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import zip_longest
from typing import Any, Literal

from unitune._shown import Printed
from unitune.backends import registry
from unitune.backends.local_capabilities import Forecast
from unitune.cost.documents import Estimate
from unitune.cost.prices.book import PriceBook, book_for
from unitune.data.check import read_job
from unitune.data.example import digest_all
from unitune.data.load import source_of
from unitune.documents import Frozen
from unitune.errors import JobError
from unitune.findings import Finding, error, note
from unitune.job.job import Job, TrainingBudget
from unitune.job.prices import PriceEntry
from unitune.job.sweep import Value
from unitune.models import Start
from unitune.planning.feasibility import NO_TRAINING_ROWS, proposed_bases
from unitune.planning.forecasts import (
    EvaluationForecast,
    Seconds,
    backend_findings,
    counted_by_vendor,
    existence_findings,
    forecast_evaluation,
)
from unitune.planning.images import image_findings
from unitune.planning.money import Money, estimated, money_findings, money_of
from unitune.planning.preflight import ResolvedJob, preflight
from unitune.planning.rows import Rows, row_findings
from unitune.planning.tiers import TierChoice, tier_choices
from unitune.workspace.user_settings import today


class Bound(Frozen):
    """Inputs of a saved plan. If any of them changes, `unitune run --plan` refuses it."""

    job: dict[str, Any]
    """Job without its folder."""
    files: dict[str, str]
    """SHA-256 of each file as uploaded, by name; for a comparison, the hash of its test cases."""
    start: Start | None = None
    """Model that the training continues from."""
    job_file: str | None = None
    """Path of the job file, relative to the saved plan's folder; None if the plan was not saved."""
    given_prices: tuple[PriceEntry, ...] = ()
    """Prices given on the command line. They also apply to the launch."""
    given_budget: TrainingBudget | None = None
    """Budget given on the command line. It also applies to the launch."""


class PlannedRun(Frozen):
    """One run of a sweep."""

    name: str
    """Values of the run: ``learning_rate=0.0001, lora.rank=8``."""
    settings: dict[str, Value]
    """The same values by the dotted names of the settings under `tuning`."""
    forecast: Forecast | None = None
    """Forecast, for backends that train on this machine."""
    estimate: Estimate | None = None
    """Estimate, for hosted backends."""


class PlannedSource(Frozen):
    """Training rows of one source of a mixture."""

    name: str
    rows: int
    """Rows that are trained on."""
    of: int
    """Rows that it has, without those held out."""
    share: float
    """Share of all rows that are trained on."""
    tokens: int
    """Expected tokens of the rows in one epoch."""


class Plan(Printed, Frozen):
    """Plan of one job on one backend. The plan of a sweep covers all its runs."""

    schema_version: int = 1
    job: str
    backend: str
    model: str
    proposed: bool = False
    """True if the job names no base model for this backend and `model` is the closest one."""
    method: str
    day: date
    """Day of the plan."""
    listed: bool
    """True if the offer names the model or accepts every model of the Hugging Face hub."""
    charge: Literal["none", "estimated", "unknown"]
    """"none" on this machine; "unknown" if no price is known."""
    start: Start | None = None
    """Model that the training continues from, or None to start from the base model."""
    train_rows: int = 0
    validation_rows: int = 0
    test_rows: int | None = None
    sources: tuple[PlannedSource, ...] = ()
    """Sources of a mixture."""
    findings: tuple[Finding, ...] = ()
    tunable_until: date | None = None
    """First day on which this base model can no longer be tuned on this backend."""
    retires_on: date | None = None
    """Day on which the backend switches off the base model and models tuned from it."""
    forecast: Forecast | None = None
    """Forecast, for backends that train on this machine."""
    estimate: Estimate | None = None
    """Estimate, for hosted backends."""
    evaluation: EvaluationForecast | None = None
    """Requests of the comparison, or None without test rows."""
    tiers: tuple[TierChoice, ...] = ()
    """Tiers that the backend offers for the base model, with their prices."""
    runs: tuple[PlannedRun, ...] = ()
    """Runs of a sweep in launch order; empty if the job has a single run."""
    bound: Bound | None = None
    """Inputs that the plan depends on, or None if the job cannot be launched."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that stop a launch."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def compares_only(self) -> bool:
        """True if nothing is trained and the plan is that of a comparison."""
        return any(
            (each.code, each.severity) == (NO_TRAINING_ROWS, "note") for each in self.findings
        )

    @property
    def training_seconds(self) -> Seconds | None:
        """Duration of the training, or None if the backend does not forecast it."""
        if (forecast := self.forecast) is not None:
            return Seconds(forecast.seconds_low, forecast.seconds_expected, forecast.seconds_high)
        lines = self.estimate.of("training") if self.estimate else ()
        is_rented = registry.offer(self.backend).trains_on == "rented"
        if not is_rented or len(lines) != 1 or (hours := lines[0].units) is None:
            return None
        return Seconds(*(float(end) * 3600 for end in (hours.low, hours.expected, hours.high)))

    @property
    def verdict_seconds(self) -> Seconds | None:
        """Duration of training and answers, or None if either is unknown."""
        training, evaluation = self.training_seconds, self.evaluation
        return training + evaluation.seconds if training and evaluation else None

    def __repr__(self) -> str:
        return f"<Plan {self.job!r} on {self.backend}: {len(self.errors)} errors>"


class PlanSet(Frozen):
    """Plans of one job on several backends."""

    schema_version: int = 1
    job: str
    day: date
    plans: tuple[Plan, ...]


def plan(job: Job | ResolvedJob, *, vendor_counts: bool = False) -> Plan:
    """Return what a job would do and cost, without starting it.

    Examples:
        >>> plan = unitune.plan(job)
        >>> print(plan)
        >>> plan.errors
        ()

    Args:
        job: What to tune and how.
        vendor_counts: Upload a sample of the training rows to have the vendor count their tokens.
            Otherwise no vendor is called.

    Returns:
        Findings, row counts, and tokens with their time and memory, or their cost.

    Raises:
        NotFoundError: No installed package provides the job's backend.
        JobError: The job names no base model for its backend, or budget.yaml is not valid.
        Unsupported: `vendor_counts` is set, but the vendor does not count tokens.
        BackendError: The vendor refused to count tokens, or did not answer.
    """
    resolved = preflight(job)
    money = money_of(resolved.job)
    unusable = resolved.rows.read.report.errors or any(
        each.severity == "error" for each in resolved.offer_findings
    )
    if vendor_counts and not unusable:
        resolved = counted_by_vendor(resolved)
    return plan_of(resolved, money)


def plans(job: Job, backends: Sequence[str]) -> PlanSet:
    """Return the plans of a job on several backends, by name, without importing the backends.

    If the job names no base model for a backend, its plan uses the closest one (`Plan.proposed`).

    Raises:
        NotFoundError: No installed package provides one of the backends.
        JobError: budget.yaml is not valid.
    """
    rows, money, book = Rows(read_job(job)), money_of(job), book_for(job)
    made: list[Plan] = []
    for moved in map(job.with_backend, backends):
        bases = proposed_bases(moved, book)
        proposals = [moved.model_copy(update={"model": base}) for base in bases]
        tries = (_beside_others(each, book, rows, money) for each in proposals or [moved])
        planned = next(tries)
        while planned.errors and (another := next(tries, None)) is not None:
            planned = another if not another.errors else planned
        made.append(planned.model_copy(update={"proposed": bool(proposals)}))
    return PlanSet(job=job.name, day=today(), plans=tuple(made))


def _beside_others(job: Job, book: PriceBook, rows: Rows, money: Money) -> Plan:
    try:
        resolved = preflight(job, book=book, rows=rows)
    except JobError as problem:
        return _without_model(job, problem)
    return plan_of(resolved, money, alone=False)


def plan_of(resolved: ResolvedJob, money: Money, *, alone: bool = True) -> Plan:
    """Return the plan of a resolved job.

    Unless it is planned `alone`, the backend is not imported, so it neither forecasts nor validates
    options, and warnings and notes about the data are left out.
    """
    job, offer, terms = resolved.job, resolved.offer, resolved.terms
    findings, read = list(resolved.offer_findings), resolved.rows.read.report
    if alone or read.errors or job.data.train is None:
        findings += read.findings
    document = Plan(
        job=job.name,
        backend=job.backend,
        model=job.base_model,
        method=job.method,
        day=today(),
        listed=terms.model is not None or (offer.hub_models and "/" in job.base_model),
        charge=offer.training_price or "unknown",
        start=resolved.start,
        findings=tuple(findings),
        tunable_until=terms.model.tunable_until if terms.model else None,
        retires_on=terms.model.retires_on if terms.model else None,
    )
    if document.errors:
        return document

    splits, files = resolved.splits, resolved.files
    lengths = None if terms.limits.row_tokens is None else resolved.workload.train.totals
    findings += row_findings(offer.name, terms, splits, files, lengths)
    if any(file.images for file in read.files):
        findings += image_findings(job, offer, terms, splits)
    made = evaluation = None
    forecasts: tuple[Forecast, ...] = ()
    if alone or not resolved.is_free:
        made = estimated(resolved, money)
        if not resolved.is_free:
            findings += money_findings(resolved, made, money)
        elif not made.pays_for_answers:
            made = None
    if alone:
        refusals, forecasts = backend_findings(resolved)
        evaluation = forecast_evaluation(resolved)
    else:
        refusals = existence_findings(resolved)
    bound = Bound(
        job=job.model_dump(mode="json"),
        files={name: file.sha256 for name, file in files.items()},
        start=resolved.start,
        given_prices=job.given_prices,
    )
    return document.model_copy(
        update={
            "charge": made.charge if made and not resolved.is_free else document.charge,
            "train_rows": len(splits.train),
            "validation_rows": len(splits.validation),
            "test_rows": None if splits.test is None else len(splits.test),
            "sources": tuple(_sources(resolved)),
            "findings": (*findings, *refusals),
            "forecast": Forecast.of_sweep(forecasts) if forecasts else None,
            "estimate": made,
            "evaluation": evaluation,
            "tiers": tier_choices(job, resolved.book, today()),
            "runs": _planned_runs(resolved, money, forecasts),
            "bound": bound,
        }
    )


def _sources(resolved: ResolvedJob) -> Iterator[PlannedSource]:
    """Yield the sources of a mixture with their tokens."""
    found = {each.name: each for file in resolved.rows.read.report.files for each in file.sources}
    if not found:
        return
    tokens = Counter[str | None]()
    lengths = resolved.workload.train.totals.expected
    for row, length in zip(resolved.splits.train, lengths, strict=True):
        tokens[source_of(row)] += length
    total = max(sum(source.used for source in found.values()), 1)
    for name, source in found.items():
        used, share = source.used, source.used / total
        yield PlannedSource(name=name, rows=used, of=source.rows, share=share, tokens=tokens[name])


def comparison_plan(planned: Plan, resolved: ResolvedJob) -> Plan:
    """Return the plan of a job without training rows as that of its comparison."""
    codes = [finding.code for finding in planned.errors]
    if codes != [NO_TRAINING_ROWS] or resolved.splits.test is None:
        return planned
    what = "the job has no training rows, so it is only compared."
    findings = [each for each in planned.findings if each.severity != "error"]
    made = estimated(resolved)
    if resolved.offer.training_price == "none" and not made.pays_for_answers:
        made = None
    bound = Bound(
        job=resolved.job.model_dump(mode="json"),
        files={"test": digest_all(case.case_hash for case in resolved.splits.test)},
        given_prices=resolved.job.given_prices,
    )
    return planned.model_copy(
        update={
            "test_rows": len(resolved.splits.test),
            "findings": (*findings, note(NO_TRAINING_ROWS, what)),
            "estimate": made,
            "evaluation": forecast_evaluation(resolved),
            "charge": "none",
            "bound": bound,
        }
    )


def _planned_runs(
    resolved: ResolvedJob, money: Money, forecasts: Sequence[Forecast]
) -> tuple[PlannedRun, ...]:
    pairs = zip_longest(resolved.runs, forecasts) if resolved.is_sweep else ()
    return tuple(
        PlannedRun(
            name=run.setting,
            settings=dict(run.settings),
            forecast=forecast,
            estimate=None if resolved.is_free else estimated(run, money),
        )
        for run, forecast in pairs
    )


def _without_model(job: Job, problem: JobError) -> Plan:
    offer = registry.offer(job.backend)
    finding = error("no-model", str(problem))
    if offer.closed is not None and today() >= offer.closed.by:
        finding = error("closed-backend", offer.unavailable)
    return Plan(
        job=job.name,
        backend=job.backend,
        model="",
        method=job.method,
        day=today(),
        listed=False,
        charge=offer.training_price or "unknown",
        findings=(finding,),
    )
