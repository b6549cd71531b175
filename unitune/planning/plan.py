"""What would happen: the findings, and the forecast or the estimate, of one job on each backend.

`plan` looks at the offer (data, no SDK), the data files, and, for backends that train on this
machine, at model and machine. It starts nothing, spends nothing and asks nobody. `unitune.runs.run`
refuses a launch for the same findings, so that a plan without errors is a job that can be launched.
`plans` looks at several backends at once: data are read, checked and counted once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from unitune.backends import registry
from unitune.backends.capabilities import CountsTokens, Forecasts, ValidatesOptions
from unitune.backends.offer import Offer
from unitune.cost.budget import budget_findings, caps, unknown_findings
from unitune.cost.documents import Estimate, Line
from unitune.cost.estimate import answer_lines, estimate
from unitune.cost.prices.book import PriceBook
from unitune.cost.prices.staleness import age_findings
from unitune.cost.spread import Spread
from unitune.cost.tokens import TokenCounter, VendorCounter, counter_for
from unitune.cost.tokens.by_vendor import ROWS_ASKED
from unitune.cost.workload import Workload
from unitune.data.check import check_and_split
from unitune.data.dataset import spread
from unitune.data.split import Splits, load_splits
from unitune.errors import JobError, MissingExtra, Unsupported
from unitune.findings import Finding, error, note, warning
from unitune.job.contenders import Model
from unitune.job.job import Job
from unitune.job.prices import OWN_WORD
from unitune.planning.documents import NO_BACKEND, Bound, Plan, PlanSet
from unitune.planning.feasibility import offer_findings, on_its_own_name, row_findings
from unitune.planning.money import Money, money_of
from unitune.planning.rows import Rows
from unitune.workspace.install import install_command
from unitune.workspace.today import today


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
    made = tuple(_there(job.with_backend(name), report.findings, rows, money) for name in backends)
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
                given_prices=job.given_prices,
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
    yield from _free_findings(made, money.book)


def _free_findings(made: Estimate, book: PriceBook) -> Iterator[Finding]:
    """Warn of what costs nothing by the word of the job's own folder alone: no budget holds it."""
    for row in made.prices:
        if row.usd or row.origin not in ("job", "project"):
            continue
        listed = book.without_own().find(
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
    sample = [row.example for row in spread(splits.train.rows, ROWS_ASKED)]
    return {job.base_model: VendorCounter.asking(backend, job.base_model, ours, sample)}


def answers(job: Job, book: PriceBook) -> tuple[Line, ...]:
    """Return what the answers of a comparison may cost, a line for each contender that is asked.

    Args:
        job: With the offer's own name of its model; it need not train anything.
        book: Prices.
    """
    offer, rows = book.offer(job.backend), Rows(load_splits(job))
    work, others = _counted(job, offer, rows), _others(job, rows)
    return answer_lines(job, offer, work, book, today(), others=others)


def _estimated(job: Job, offer: Offer, rows: Rows, money: Money) -> Estimate:
    work, others = _counted(job, offer, rows), _others(job, rows)
    learnt = money.learnt(job, work.basis)
    return estimate(job, offer, work, money.book, today(), others=others, learnt=learnt)


def _others(job: Job, rows: Rows) -> dict[str, Workload]:
    """Return the rows as the models of other contenders count them, by contender."""
    return {
        spec.name: rows.counted_for(spec.model)
        for spec in job.evaluate.contenders
        if isinstance(spec, Model) and spec.model != job.base_model
    }


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
            f"Install with: {install_command(job.backend)}",
        ),
    )


def _no_backend(name: str) -> tuple[Finding, ...]:
    if name in registry.backend_names():
        return ()
    return (error(NO_BACKEND, registry.unavailable(registry.offer(name))),)


def _told(job: Job) -> tuple[Finding, ...]:
    backend = registry.backend(job.backend)
    try:
        if isinstance(backend, ValidatesOptions):
            backend.validate_options(job)
    except (JobError, Unsupported) as refusal:
        return (error("refused-options", str(refusal)),)
    return ()
