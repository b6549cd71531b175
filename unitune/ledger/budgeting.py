"""Reserve money for a run before its create call, check it during the run, settle it at the end.

One process at a time reserves money, so two launches cannot both take the last of a budget. The
process that polls a run compares its costs with the limits.
"""

from __future__ import annotations

import time
from calendar import monthrange
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from unitune.backends import registry
from unitune.backends.protocol import State
from unitune.cost.budget import Cap, ProjectBudget, Spent, budget_findings, caps
from unitune.cost.documents import Estimate
from unitune.cost.estimate import repriced
from unitune.cost.prices.book import PriceBook
from unitune.cost.reconcile import End, Lesson, Reconciliation, reconcile
from unitune.cost.spread import Spread
from unitune.documents import Frozen
from unitune.errors import Mismatch, OverBudget
from unitune.findings import Finding
from unitune.job.prices import PriceRow
from unitune.ledger import Books, CostRecord, DeploymentRecord, Ledger, RunRecord
from unitune.ledger.metering import SECONDS_AN_HOUR, bill_of, costs_so_far, running_seconds
from unitune.ledger.records import unreadable
from unitune.workspace.user_settings import today

# Time before its limit at which a job charged by the hour is cancelled: polls are up to 5 seconds
# apart, and a vendor needs time to stop
AHEAD_SECONDS = 30.0
SECONDS_A_DAY = 86400


Document = TypeVar("Document", bound=BaseModel)


class Approval(Frozen):
    """Terms of a launch."""

    estimate: Estimate
    files: dict[str, str]
    """SHA-256 of each file that is uploaded, by its name."""
    budget_usd: Decimal | None = None
    """Smaller of the job's budget and the estimate of an applied plan."""
    hours: Decimal | None = None
    """Limit for the duration of the training."""
    project: ProjectBudget = ProjectBudget()
    own_prices: tuple[PriceRow, ...] = ()
    """Prices of the job, the project and the user, for machines that lack their files."""
    discount: Decimal | None = None
    """Fraction of the list price that is paid."""
    unpriced: bool = False
    """True if the user accepted an unknown or old price."""

    @property
    def is_capped(self) -> bool:
        """True if money is limited."""
        return bool(caps(self.budget_usd, self.project, Spent()))

    @property
    def is_limited(self) -> bool:
        """True if money or hours are limited."""
        return self.hours is not None or self.is_capped


def approval_of(ledger: Ledger, run_id: str) -> Approval | None:
    """Return the terms of a run's launch; None if it costs nothing or they are not recorded."""
    costs = ledger.costs(run_id)
    return _approval(costs[-1]) if costs else None


def outcome_of(cost: CostRecord) -> Reconciliation:
    """Return the recorded cost of an attempt; UnreadableRecord if it is not valid."""
    return _parsed(Reconciliation, cost, "outcome")


def _approval(cost: CostRecord) -> Approval:
    return _parsed(Approval, cost, "approval")


def _parsed(
    model: type[Document], cost: CostRecord, field: Literal["approval", "outcome"]
) -> Document:
    try:
        return model.model_validate_json(getattr(cost, field))
    except ValidationError as error:
        raise unreadable(error, f"run {cost.run_id}", f"{field}.") from error


def reserve(ledger: Ledger, record: RunRecord) -> None:
    """Reserve money for a run's next create call.

    Raises:
        Mismatch: An uploaded file is not the file that the estimate is based on.
        OverBudget: The call may cost more than is left, or the price is unknown.
    """
    # Read before locking the money: a holder of the lock that waits for a connection would wait for
    # processes that wait for the lock.
    uploaded = {name: upload.sha256 for name, upload in ledger.uploads(record.id).items()}

    def allow(books: Books, cost: CostRecord) -> str:
        approval = _approval(cost)
        _refuse_other_files(record, approval, uploaded)
        discounts = {} if approval.discount is None else {record.backend: approval.discount}
        book = PriceBook(own=approval.own_prices, discounts=discounts)
        fresh = repriced(approval.estimate, book, today())
        limits = _limits(approval, books, record)
        usd, unpriced = fresh.launch_usd, approval.unpriced
        findings = budget_findings(limits, usd, record.backend, unpriced=unpriced)
        _refuse_over_budget(
            findings,
            f"Run {record.id} is kept. Continue with `unitune runs resume {record.id}` once "
            f"there is enough money, or end it with `unitune runs cancel {record.id}`.",
        )
        return approval.model_copy(update={"estimate": fresh}).model_dump_json()

    ledger.reserve(record, allow)


def add_deployment(
    ledger: Ledger,
    record: DeploymentRecord,
    project: ProjectBudget,
    usd: Decimal | None = None,
    *,
    unpriced: bool = False,
) -> None:
    """Record a deployment before it is created; OverBudget if it may exceed a budget."""
    rate = record.usd_per_hour
    most = None if rate is None else rate * _hours(record.created, record.until)

    def allow(books: Books) -> None:
        limits = caps(None, project, spent(books, today()))
        if usd is not None:
            limits = (Cap("the deployment's budget", usd, Decimal(0), "--budget"), *limits)
        findings = budget_findings(
            limits,
            None if most is None else Spread.of(most),
            record.backend,
            what="the deployment",
            less="or shorten its time",
            unpriced=unpriced,
            price="hosting=1.70",
        )
        _refuse_over_budget(findings)

    ledger.add_deployment(record, allow)


def hold_deployment(
    ledger: Ledger, record: DeploymentRecord, usd: Decimal | None, *, unpriced: bool = False
) -> None:
    """Raise OverBudget if a deployment's remaining time may cost more than a budget."""
    if usd is None:
        return
    rate = record.usd_per_hour
    rest = None if rate is None else Spread.of(rate * _hours(ledger.now(), record.until))
    limit = Cap("the deployment's budget", usd, Decimal(0), "--budget")
    what, less = "the rest of the deployment's time", "or take it down"
    findings = budget_findings(
        (limit,),
        rest,
        record.backend,
        what=what,
        less=less,
        unpriced=unpriced,
        price="hosting=1.70",
    )
    _refuse_over_budget(findings)


def _refuse_over_budget(findings: Iterable[Finding], *advice: str) -> None:
    if refusals := [*map(str, findings)]:
        raise OverBudget("\n".join([*refusals, *advice]))


def spent(books: Books, day: date) -> Spent:
    """Return the money that runs and deployments have cost, or may still cost.

    A running deployment costs at least what it has cost so far, even after its time is over.
    """
    begin, end = _month(day)
    month, total, unknown = Decimal(0), Decimal(0), 0
    for cost in books.costs:
        if (usd := _usd(cost)) is None:
            unknown += 1
            continue
        total += usd
        if cost.reserved is not None and begin <= cost.reserved < end:
            month += usd
    for deployment in books.deployments:
        if (rate := deployment.usd_per_hour) is None:
            unknown += 1
            continue
        if (until := deployment.ended) is None:
            until = max(deployment.until, books.now)
        total += rate * _hours(deployment.created, until)
        month += rate * _hours(max(deployment.created, begin), min(until, end))
    return Spent(month_usd=month, project_usd=total, unknown=unknown)


def books_of(ledger: Ledger) -> Books:
    """Return all runs and deployments of a ledger that cost money."""
    costs, deployments = ledger.costs(), ledger.deployments()
    return Books(costs, deployments, ledger.now() if deployments else time.time())


def overrun(ledger: Ledger, record: RunRecord) -> str | None:
    """Return why a polled run must be ended now; None if it may continue."""
    if (cost := _of_attempt(ledger.costs(record.id), record)) is None:
        return None
    if not (approval := _approval(cost)).is_limited:
        return None
    seconds, hours = running_seconds(ledger, record), approval.hours
    if hours is not None and seconds + AHEAD_SECONDS >= float(hours * SECONDS_AN_HOUR):
        return f"its limit is {hours} hours, and it has taken {seconds / 3600:.2f}"
    if not (limits := _limits(approval, books_of(ledger), record)):
        return None
    tightest = min(limits, key=lambda limit: limit.left)
    events = [seen.event for seen in ledger.events(record.id, record.attempt)]
    for usd, words in costs_so_far(approval.estimate, events, seconds + AHEAD_SECONDS):
        if usd > tightest.left:
            return f"{words}; {tightest}"
    return None


def reconciled(ledger: Ledger, record: RunRecord) -> Reconciliation | None:
    """Return cost and estimate of a run's newest attempt, and record them once.

    Returns:
        None before the end of the attempt, and without an estimate.
    """
    cost = _of_attempt(ledger.costs(record.id), record)
    if cost is None or not record.state.ended or record.job_id is None:
        return None
    if cost.outcome is not None:
        return outcome_of(cost)
    approval = _approval(cost)
    outcome = reconcile(
        approval.estimate,
        bill_of(ledger, record),
        _END[record.state],
        registry.offer(record.backend).terms(approval.estimate.model).billing,
    )
    ledger.settle(record, outcome.model_dump_json())
    return outcome


def lessons(costs: Iterable[CostRecord]) -> dict[tuple[str, str], list[Lesson]]:
    """Return the bills of earlier runs by backend and base model, the oldest first."""
    shown: dict[tuple[str, str], list[Lesson]] = {}
    for cost in costs:
        lesson = outcome_of(cost).lesson if cost.outcome is not None else None
        if lesson is not None:
            shown.setdefault((cost.backend, cost.base_model), []).append(lesson)
    return shown


_END: dict[State, End] = {
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}


def _refuse_other_files(record: RunRecord, approval: Approval, uploaded: Mapping[str, str]) -> None:
    changed = sorted(name for name in approval.files if uploaded.get(name) != approval.files[name])
    if changed:
        raise Mismatch(
            f"run {record.id}: the uploaded {', '.join(changed)} is not the file whose cost was "
            f"estimated. End the run with `unitune runs cancel {record.id}` and launch the "
            "job again."
        )


def _limits(approval: Approval, books: Books, record: RunRecord) -> tuple[Cap, ...]:
    """Return the limits of an attempt, without the money reserved for it."""
    if not approval.is_capped:
        return ()  # no other run's documents are read
    others = [cost for cost in books.costs if cost.run_id != record.id]
    earlier = [
        cost for cost in books.costs if cost.run_id == record.id and cost.attempt != record.attempt
    ]
    before = sum((_usd(cost) or Decimal(0) for cost in earlier), start=Decimal(0))
    gone = spent(replace(books, costs=others), today())
    return caps(approval.budget_usd, approval.project, gone, before)


def _of_attempt(costs: Iterable[CostRecord], record: RunRecord) -> CostRecord | None:
    attempt = (record.id, record.attempt)
    return next((cost for cost in costs if (cost.run_id, cost.attempt) == attempt), None)


def _usd(cost: CostRecord) -> Decimal | None:
    """Return the cost of an attempt, or its upper bound before that is known."""
    if cost.outcome is not None:
        if (usd := outcome_of(cost).usd) is not None:
            return usd
    elif cost.reserved is None or (cost.over and not cost.has_job):
        return Decimal(0)
    most = _approval(cost).estimate.launch_usd
    return None if most is None else most.high


def _month(day: date) -> tuple[float, float]:
    """Return the start of a day's month and of the next, in seconds since 1970, UTC."""
    first = datetime(day.year, day.month, 1, tzinfo=UTC).timestamp()
    return first, first + monthrange(day.year, day.month)[1] * SECONDS_A_DAY


def _hours(begin: float, end: float) -> Decimal:
    return Decimal(max(0.0, end - begin)) / SECONDS_AN_HOUR
