"""What would happen: the findings, and the forecast or the estimate, of one job on each backend.

`plan` reads the offer (data, no SDK), the data files, and, for backends that train on this
machine, at model and machine. It starts nothing, spends nothing and calls no vendor. A launch is
refused for the errors of its plan, so a plan without errors is a job that can be launched.
`plans` compares several backends at once: data are read, checked and counted once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from unitune.backends import registry
from unitune.backends.capabilities import (
    Calibrates,
    CountsTokens,
    Forecast,
    Forecasts,
    ValidatesOptions,
)
from unitune.cost.budget import (
    ProjectBudget,
    Spent,
    budget_findings,
    caps,
    project_budget,
    unknown_findings,
)
from unitune.cost.documents import Estimate
from unitune.cost.estimate import estimate
from unitune.cost.narrowing import Lesson
from unitune.cost.prices.staleness import age_findings
from unitune.cost.tokens import VendorCounter, counter_for
from unitune.cost.tokens.by_vendor import SAMPLE_ROWS
from unitune.data.check import read_job
from unitune.data.dataset import spread
from unitune.errors import JobError, MissingExtra, Unsupported
from unitune.findings import Finding, error, note, warning
from unitune.job.contenders import Model
from unitune.job.job import Job
from unitune.job.prices import OWN_WORD
from unitune.planning.documents import NO_BACKEND, Bound, Plan, PlanSet
from unitune.planning.feasibility import row_findings
from unitune.planning.preflight import ResolvedJob, Rows, preflight
from unitune.workspace.home import home, ledger_url
from unitune.workspace.install import install_command
from unitune.workspace.today import today


@dataclass(frozen=True, slots=True)
class Money:
    """What is known of money before a plan is made.

    Args:
        project: Limits of the project.
        spent: What its runs and deployments have cost.
        lessons: What the bills of earlier runs have shown, by backend and base model.
        unpriced: Whether the user takes a price that is unknown or old.
    """

    project: ProjectBudget = field(default_factory=ProjectBudget)
    spent: Spent = field(default_factory=Spent)
    lessons: Mapping[tuple[str, str], Sequence[Lesson]] = field(
        default_factory=dict[tuple[str, str], Sequence[Lesson]]
    )
    unpriced: bool = False


NOTHING_KNOWN = Money()


def money_of(job: Job, *, unpriced: bool = False) -> Money:
    """Return what is known of money where a job stands.

    A ledger that machines share is only read when budget.yaml makes it matter: a plan opens no
    connection of its own accord.

    Args:
        job: Its folder has the project's budget.
        unpriced: Whether the user takes a price that is unknown or old.

    Raises:
        JobError: budget.yaml is not valid.
    """
    project = project_budget(job.folder)
    shared = ledger_url() is not None
    wanted = project != ProjectBudget() if shared else (home() / "ledger.db").exists()
    if not wanted:
        return Money(project, unpriced=unpriced)
    from unitune.ledger import Ledger, budgeting  # noqa: PLC0415 - brings the database

    books = budgeting.books_of(Ledger(home()))
    return Money(project, budgeting.spent(books, today()), budgeting.lessons(books.costs), unpriced)


def plan(job: Job | ResolvedJob, *, vendor_counts: bool = False) -> Plan:
    """Return what a job would do, without doing it.

    Examples:
        >>> plan = unitune.plan(job)
        >>> print(plan)
        >>> plan.errors
        ()

    Args:
        job: What to tune and how.
        vendor_counts: Upload a sample of the training rows, and let the vendor count their
            prompts; no vendor is called without this.

    Returns:
        Findings, row counts, and tokens with their time and memory, or their cost.

    Raises:
        NotFoundError: No installed package brings the job's backend.
        JobError: The job names no base model for its backend, or budget.yaml is not valid.
        Unsupported: The vendor should count tokens, and counts none.
        BackendError: It refused to, or did not answer.
    """
    resolved = preflight(job)
    if vendor_counts and not _has_error(resolved.findings):
        resolved = _counted_by_vendor(resolved)
    return plan_of(resolved, money_of(resolved.job))


def plans(job: Job, backends: Sequence[str]) -> PlanSet:
    """Return what a job would do on each of several backends, by name; imports none of them.

    Raises:
        NotFoundError: No installed package brings one of them.
        JobError: budget.yaml is not valid.
    """
    rows, money = Rows(read_job(job)), money_of(job)
    made: list[Plan] = []
    for moved in map(job.with_backend, backends):
        try:
            resolved = preflight(moved, rows=rows)
        except JobError as problem:
            made.append(_without_model(moved, problem))
        else:
            made.append(plan_of(resolved, money, alone=False))
    return PlanSet(job=job.name, day=today(), plans=tuple(made))


def plan_of(resolved: ResolvedJob, money: Money, *, alone: bool = True) -> Plan:
    """Return the plan of a resolved job: what a launch is refused by.

    Args:
        resolved: The job.
        money: What is known of it.
        alone: Whether its backend is imported, to forecast and to validate options. Beside other
            backends it is not, and of the data, the same for all, only errors are findings.
    """
    findings, read = list(resolved.offer_findings), resolved.rows.read.report
    if alone or read.errors or resolved.job.data.train is None:
        findings += read.findings
    if _has_error(findings):
        return _document(resolved, findings, None, None)
    findings += _row_findings(resolved)
    here = resolved.offer.training_price == "none"
    made = None if here else estimated(resolved, money)
    if made is not None:
        findings += _money_findings(resolved, made, money)
    forecast = None
    if not alone:
        findings += _no_backend(resolved)
    elif here:
        more, forecast = _forecast(resolved)
        findings += more
    else:
        findings += _backend_findings(resolved)
    return _document(resolved, findings, made, forecast, launchable=True)


def calibrate(job: Job | ResolvedJob) -> None:
    """Time a few steps of a job's training here, so that its plans become narrow.

    The backend keeps what it measured, and makes every later forecast from it.

    Raises:
        Unsupported: Its backend does not train on this machine.
        BackendError: The measuring process died.
    """
    resolved = preflight(job)
    backend = resolved.backend
    if not isinstance(backend, Calibrates):
        raise Unsupported(
            f"backend {resolved.offer.name!r} does not train on this machine, so there is nothing "
            "to calibrate. Leave --calibrate out."
        )
    splits = resolved.splits
    backend.calibrate(resolved.job, splits.train, splits.validation)


def estimated(resolved: ResolvedJob, money: Money = NOTHING_KNOWN) -> Estimate:
    """Return what a training and the answers of its comparison cost at a vendor."""
    job = resolved.job
    others = {
        spec.name: resolved.rows.counted_for(spec.model)
        for spec in job.evaluate.contenders
        if isinstance(spec, Model) and spec.model != job.base_model
    }
    lessons = money.lessons.get((job.backend, job.base_model), ())
    return estimate(job, resolved.workload, resolved.book, today(), others=others, lessons=lessons)


def _document(
    resolved: ResolvedJob,
    findings: Sequence[Finding],
    made: Estimate | None,
    forecast: Forecast | None,
    *,
    launchable: bool = False,
) -> Plan:
    """Return the plan; its rows are counted and bound where it can be launched."""
    job, offer, model = resolved.job, resolved.offer, resolved.model
    splits, bound = None, None
    if launchable:
        files = {name: file.sha256 for name, file in resolved.files.items()}
        content = job.model_dump(mode="json")
        splits, bound = (
            resolved.splits,
            Bound(job=content, files=files, given_prices=job.given_prices),
        )
    charge = offer.training_price or "unknown"
    return Plan(
        job=job.name,
        backend=job.backend,
        model=job.base_model,
        method=job.method,
        day=today(),
        listed=model is not None or (offer.hub_models and "/" in job.base_model),
        charge="estimated" if made is not None and made.launch_usd is not None else charge,
        train_rows=len(splits.train) if splits else 0,
        validation_rows=len(splits.validation) if splits else 0,
        test_rows=len(splits.test) if splits and splits.test is not None else None,
        findings=tuple(findings),
        tunable_until=model.tunable_until if model else None,
        retires_on=model.retires_on if model else None,
        forecast=forecast,
        estimate=made,
        bound=bound,
    )


def _without_model(job: Job, problem: JobError) -> Plan:
    """Return the plan of a job that names no model for a backend."""
    offer = registry.offer(job.backend)
    finding = error("no-model", str(problem))
    if offer.closed is not None and today() >= offer.closed.by:
        finding = error("closed-backend", registry.unavailable(offer))
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


def _has_error(findings: Sequence[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def _row_findings(resolved: ResolvedJob) -> tuple[Finding, ...]:
    limited = resolved.offer.limits_for(resolved.job.base_model).row_tokens is not None
    lengths = resolved.workload.train.totals if limited else None
    return row_findings(resolved.job, resolved.offer, resolved.splits, resolved.files, lengths)


def _money_findings(resolved: ResolvedJob, made: Estimate, money: Money) -> Iterator[Finding]:
    job = resolved.job
    limits = caps(job.budget and job.budget.usd, money.project, money.spent)
    yield from budget_findings(limits, made.launch_usd, made.backend, unpriced=money.unpriced)
    yield from unknown_findings(limits, money.spent)
    yield from age_findings(made.launch_prices, made.day, allow_stale=money.unpriced or not limits)
    yield from _free_findings(resolved, made)


def _free_findings(resolved: ResolvedJob, made: Estimate) -> Iterator[Finding]:
    """Warn of what costs nothing by the word of the job's own folder alone: no budget holds it."""
    book = resolved.book.without_own()
    for row in made.prices:
        if row.usd or row.origin not in ("job", "project"):
            continue
        listed = book.find(
            row.backend,
            made.model,
            row.kind,
            method=row.method,
            tier=row.tier,
            tuned=row.tuned,
            on=made.day,
        )
        if listed is not None and not listed.usd:
            continue
        known = "no price of it is known otherwise" if listed is None else f"${listed.usd:f} else"
        yield warning(
            "free-by-own-price",
            f"{row.kind} costs $0 by {OWN_WORD[row.origin]} ({known}), so no budget limits it.",
            f"Take the price out unless {row.backend} charges you nothing.",
        )


def _counted_by_vendor(resolved: ResolvedJob) -> ResolvedJob:
    """Return the job with its rows counted as its vendor counts a sample of them."""
    backend, model = resolved.backend, resolved.job.base_model
    if not isinstance(backend, CountsTokens):
        raise Unsupported(f"{resolved.offer.name} counts no tokens before a launch.")
    own = counter_for(model, aliases=resolved.model.aliases if resolved.model else ())
    sample = [row.example for row in spread(resolved.splits.train.rows, SAMPLE_ROWS)]
    counters = {model: VendorCounter.sampled(backend, model, own, sample)}
    return replace(resolved, rows=Rows(resolved.rows.read, counters))


def _forecast(resolved: ResolvedJob) -> tuple[tuple[Finding, ...], Forecast | None]:
    """Return what a backend that trains on this machine says, and its forecast."""
    try:
        backend = resolved.backend
    except MissingExtra as missing:
        return (error("missing-extra", str(missing)),), None
    refused = _options_findings(resolved)
    if refused or not isinstance(backend, Forecasts):
        return refused, None
    splits = resolved.splits
    forecast = backend.forecast(resolved.job, splits.train, splits.validation)
    return forecast.findings, forecast


def _backend_findings(resolved: ResolvedJob) -> tuple[Finding, ...]:
    """Return what a hosted backend itself says against the job, where it is installed."""
    if no_backend := _no_backend(resolved):
        return no_backend
    name = resolved.offer.name
    missing = registry.missing_packages(name)
    if not missing:
        return _options_findings(resolved)
    what = f"to launch there, {', '.join(missing)} must be installed."
    return (note("missing-extra", what, f"Install with: {install_command(name)}"),)


def _no_backend(resolved: ResolvedJob) -> tuple[Finding, ...]:
    if resolved.offer.name in registry.backend_names():
        return ()
    return (error(NO_BACKEND, registry.unavailable(resolved.offer)),)


def _options_findings(resolved: ResolvedJob) -> tuple[Finding, ...]:
    try:
        if isinstance(resolved.backend, ValidatesOptions):
            resolved.backend.validate_options(resolved.job)
    except JobError as refusal:
        return (error("refused-options", str(refusal)),)
    except Unsupported as refusal:
        return (error("unsupported-options", str(refusal)),)
    return ()
