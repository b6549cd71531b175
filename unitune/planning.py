"""What would happen: the findings, and the forecast or the estimate, of one job on each backend.

`plan` looks at the offer (data, no SDK), the data files, and, for backends that train on this
machine, at model and machine. It starts nothing, spends nothing and asks nobody. `unitune.run`
refuses a launch for the same findings, so that a plan without errors is a job that can be launched.
`plans` looks at several backends at once: data are read, checked and counted once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from unitune import registry
from unitune.abilities import CountsTokens, Forecast, Forecasts, Vets
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
from unitune.cost.prices.book import PriceBook, book_for
from unitune.cost.prices.staleness import age_findings
from unitune.cost.spread import Spread
from unitune.cost.tokens import TokenCounter, VendorCounter, counter_for
from unitune.cost.tokens.by_characters import CharacterCounter
from unitune.cost.tokens.by_vendor import ROWS_ASKED
from unitune.cost.workload import Workload, measure
from unitune.data.check import check_and_split
from unitune.data.dataset import spread
from unitune.data.findings import Finding, error, note
from unitune.data.split import Splits
from unitune.errors import JobError, MissingExtra, Unsupported
from unitune.feasibility import (
    Rendered,
    offer_findings,
    on_its_own_name,
    rendered,
    row_findings,
)
from unitune.home import home, ledger_url
from unitune.job import Job
from unitune.offer import Offer
from unitune.today import today

if TYPE_CHECKING:
    from unitune.ledger import CostRecord


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
        book: Prices.
        unpriced: Whether the user takes a price that is unknown or old.
    """

    project: ProjectBudget = field(default_factory=ProjectBudget)
    spent: Spent = field(default_factory=Spent)
    costs: tuple[CostRecord, ...] = ()
    book: PriceBook = field(default_factory=PriceBook)
    unpriced: bool = False


@dataclass(slots=True)
class Rows:
    """A job's rows, read once, written once in each format, and counted once by each tokenizer.

    Args:
        splits: The rows; the same for all backends.
        asked: The counters of models whose vendor was asked.
    """

    splits: Splits
    asked: Mapping[str, TokenCounter] = field(default_factory=dict[str, TokenCounter])
    _counted: dict[object, Workload] = field(default_factory=dict[object, Workload])
    _rendered: dict[str | None, dict[str, Rendered]] = field(
        default_factory=dict[str | None, dict[str, Rendered]]
    )

    def counted_for(self, model: str, aliases: Iterable[str] = ()) -> Workload:
        """Return the rows as a model counts them."""
        counter = self.asked.get(model) or counter_for(model, aliases=aliases)
        # Characters are counted alike for all models, whichever tokenizer is missing.
        alike = isinstance(counter, CharacterCounter)
        key = counter.basis if alike else (counter.basis, counter.assumptions)
        if key not in self._counted:
            self._counted[key] = measure(self.splits, counter)
        return replace(self._counted[key], assumptions=counter.assumptions)

    def rendered_in(self, format_name: str | None) -> dict[str, Rendered]:
        """Return the files as they would be handed over, by name."""
        if format_name not in self._rendered:
            parts = {"train.jsonl": self.splits.train, "validation.jsonl": self.splits.validation}
            self._rendered[format_name] = {
                name: rendered(part, format_name) for name, part in parts.items() if len(part)
            }
        return self._rendered[format_name]


def plan(job: Job, *, vendor_counts: bool = False) -> Plan:
    """Say what a job would do, without doing it.

    Args:
        job: What to tune and how.
        vendor_counts: Hand a sample of the training rows over, and let the vendor count their
            prompts; nobody is called without this.

    Returns:
        Findings, row counts, and tokens with their time and memory, or their cost.

    Raises:
        UnknownName: No installed package brings the job's backend.
        JobError: The job names no base model for its backend, or budget.yaml is not valid.
        Unsupported: The vendor counts no tokens, and was to be asked.
        BackendError: It refused to, or did not answer.
    """
    money = money_of(job)
    offer = money.book.offer(job.backend)
    job = on_its_own_name(job, offer)
    report, splits = check_and_split(job)
    found = _and(_begun(job, offer), report.findings)
    if found.errors or splits is None:
        return found
    rows = Rows(splits, _asked(job, offer, splits) if vendor_counts else {})
    found = _with_rows(found, job, offer, rows, money)
    if offer.training_price == "none":
        return _with_forecast(job, rows.splits, found)
    return _and(found, _vetted(job))


def plans(job: Job, backends: Sequence[str]) -> PlanSet:
    """Say what a job would do on each of several backends; imports none of them.

    Args:
        job: What to tune and how.
        backends: Their names.

    Raises:
        UnknownName: No installed package brings one of them.
        JobError: budget.yaml is not valid.
    """
    report, splits = check_and_split(job)
    rows = None if splits is None or job.data.train is None else Rows(splits)
    money = money_of(job)
    made = tuple(_there(job.on(name), report.findings, rows, money) for name in backends)
    return PlanSet(job=job.name, day=today(), plans=made)


def _there(job: Job, checked: tuple[Finding, ...], rows: Rows | None, money: Money) -> Plan:
    """Return the plan of one backend among several."""
    offer = money.book.offer(job.backend)
    try:
        job = on_its_own_name(job, offer)
    except JobError as problem:
        return _nowhere(job, offer, problem)
    found = _begun(job, offer)
    if rows is None:
        return _and(found, checked)
    if found.errors:
        return found
    return _and(_with_rows(found, job, offer, rows, money), _no_backend(job.backend))


def looked_at(job: Job, rows: Rows, money: Money) -> Plan:
    """Return what offer and rows say of a job, and its cost: what a launch is refused by.

    Args:
        job: With the offer's own name of its model.
        rows: Its rows.
        money: What is known of it.
    """
    offer = money.book.offer(job.backend)
    return _with_rows(_begun(job, offer), job, offer, rows, money)


def _with_rows(found: Plan, job: Job, offer: Offer, rows: Rows, money: Money) -> Plan:
    """Return the beginning of a plan with what the rows say, and with their cost."""
    splits, files = rows.splits, rows.rendered_in(offer.format_name(job.method, job.base_model))
    limited = offer.limits_for(job.base_model).row_tokens is not None
    lengths = _counted(job, offer, rows).train.totals if limited else None
    found = _and(found, row_findings(job, offer, splits, files, lengths)).model_copy(
        update={
            "train_rows": len(splits.train),
            "validation_rows": len(splits.validation),
            "test_rows": None if splits.test is None else len(splits.test),
            "bound": Bound(
                job=job.model_dump(mode="json"),
                files={name: file.sha256 for name, file in files.items()},
            ),
        }
    )
    if offer.training_price == "none":
        return found
    made = _estimated(job, offer, rows, money)
    charge = "unknown" if made.launch_usd is None else "estimated"
    found = found.model_copy(update={"estimate": made, "charge": charge})
    return _and(found, _money_findings(job, made, money))


def _money_findings(job: Job, made: Estimate, money: Money) -> Iterator[Finding]:
    limits = caps(job.budget and job.budget.usd, money.project, money.spent)
    yield from budget_findings(limits, made.launch_usd, made.backend, unpriced=money.unpriced)
    yield from unknown_findings(limits, money.spent)
    yield from age_findings(made.launch_prices, made.day, allow_stale=money.unpriced or not limits)


def training_usd(job: Job, offer: Offer, splits: Splits, book: PriceBook) -> Spread | None:
    """Return what one training costs; None: unknown.

    Args:
        job: With the offer's own name of its model.
        offer: Of its backend.
        splits: Its rows.
        book: Prices.
    """
    if offer.training_price == "none":
        return Spread.of(Decimal(0))
    return _estimated(job, offer, Rows(splits), Money(book=book)).launch_usd


def _and(found: Plan, findings: Iterable[Finding]) -> Plan:
    return found.model_copy(update={"findings": (*found.findings, *findings)})


def _counted(job: Job, offer: Offer, rows: Rows) -> Workload:
    base = offer.model(job.base_model)
    return rows.counted_for(job.base_model, base.aliases if base else ())


def _asked(job: Job, offer: Offer, splits: Splits) -> dict[str, TokenCounter]:
    """Return the counter that the vendor's own counts make for a job's model."""
    backend = registry.backend(offer.name)
    if not isinstance(backend, CountsTokens):
        raise Unsupported(f"{offer.name} counts no tokens before a launch.")
    base = offer.model(job.base_model)
    ours = counter_for(job.base_model, aliases=base.aliases if base else ())
    sample = spread(tuple(splits.train), ROWS_ASKED)
    return {job.base_model: VendorCounter.asking(backend, job.base_model, ours, sample)}


def _estimated(job: Job, offer: Offer, rows: Rows, money: Money) -> Estimate:
    work = _counted(job, offer, rows)
    others = {
        spec.name: rows.counted_for(spec.model)
        for spec in job.evaluate.contenders
        if isinstance(spec, Model) and spec.model != job.base_model
    }
    learnt = _learnt(money, job, work.basis)
    return estimate(job, offer, work, money.book, today(), others=others, learnt=learnt)


def _begun(job: Job, offer: Offer) -> Plan:
    model = offer.model(job.base_model)
    return Plan(
        job=job.name,
        backend=job.backend,
        model=job.base_model,
        method=job.method,
        day=today(),
        listed=model is not None or (offer.hub_models and "/" in job.base_model),
        charge=offer.training_price or "unknown",
        findings=offer_findings(job, offer, today()),
        tunable_until=model.tunable_until if model else None,
        stops=model.stops if model else None,
    )


def _nowhere(job: Job, offer: Offer, problem: JobError) -> Plan:
    """Return the plan of a job that names no model for a backend."""
    told = error("no-model", str(problem))
    if offer.closed is not None and today() >= offer.closed.by:
        told = error("closed-backend", registry.unavailable(offer))
    return Plan(
        job=job.name,
        backend=job.backend,
        model="",
        method=job.method,
        day=today(),
        listed=False,
        charge=offer.training_price or "unknown",
        findings=(told,),
    )


def money_of(job: Job, *, unpriced: bool = False) -> Money:
    """Return what is known of money where a job stands.

    A ledger that machines share is only asked when budget.yaml makes it matter: a plan opens no
    connection of its own accord.

    Args:
        job: Its folder has the project's prices and budget.
        unpriced: Whether the user takes a price that is unknown or old.

    Raises:
        JobError: prices.yaml or budget.yaml is not valid.
    """
    book, project = book_for(job), project_budget(job.folder)
    shared = ledger_url() is not None
    wanted = project != ProjectBudget() if shared else (home() / "ledger.db").exists()
    if not wanted:
        return Money(project, book=book, unpriced=unpriced)
    from unitune import budgeting  # noqa: PLC0415 - brings the database
    from unitune.ledger import Ledger  # noqa: PLC0415 - likewise

    ledger = Ledger(home())
    costs = tuple(ledger.costs())
    spent = budgeting.spent(costs, ledger.deployments(), today())
    return Money(project, spent, costs, book, unpriced)


def _learnt(money: Money, job: Job, basis: str) -> Narrowing | None:
    if not money.costs:
        return None
    from unitune.budgeting import lessons  # noqa: PLC0415 - brings the database

    return Narrowing.of(lessons(money.costs, job.backend, job.base_model), basis)


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
    if nowhere := _no_backend(job.backend):
        return nowhere
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


def _no_backend(name: str) -> tuple[Finding, ...]:
    if name in registry.backend_names():
        return ()
    return (error(NO_BACKEND, registry.unavailable(registry.offer(name))),)


def _told(job: Job) -> tuple[Finding, ...]:
    backend = registry.backend(job.backend)
    try:
        if isinstance(backend, Vets):
            backend.vet(job)
    except (JobError, Unsupported) as refusal:
        return (error("refused-options", str(refusal)),)
    return ()
