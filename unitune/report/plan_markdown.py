"""A plan as Markdown for CI: the one comment of a pull request that changes what a job costs.

Compared with the plan of the base branch it shows what changed, and is empty when nothing did. The
template is ``plan.md.j2``; the first line finds the comment again, as in `unitune.report.markdown`.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from unitune.cost import spread
from unitune.cost.budget import BUDGET_CODES
from unitune.cost.documents import LAUNCH, MONTHLY
from unitune.cost.tokens import Count
from unitune.planning.plan import Plan
from unitune.report.markdown import fill, marker
from unitune.report.typography import usd_range

MAX_FINDINGS = 10


def render(plan: Plan, base: Plan | None = None) -> str:
    """Return a plan as Markdown; empty when it is as it was.

    Args:
        plan: What to write.
        base: Of the base branch; None: there is nothing to compare it with.
    """
    if base is not None and _content(base) == _content(plan):
        return ""
    before = dict(_figures(base)) if base is not None else {}
    changes = [
        (name, before.get(name, ""), after)
        for name, after in _figures(plan)
        if base is not None and before.get(name) != after
    ]
    estimate = plan.estimate
    return fill(
        "plan.md.j2",
        marker=marker("plan", plan.job),
        plan=plan,
        headline=_headline(plan),
        over_budget=[finding for finding in plan.errors if finding.code in BUDGET_CODES],
        changes=changes,
        monthly=MONTHLY,
        sums=[("launch", LAUNCH, estimate.launch_usd), ("a month", MONTHLY, estimate.month_usd)]
        if estimate
        else [],
        findings=[finding for finding in plan.findings if finding.severity != "note"],
        max_findings=MAX_FINDINGS,
        count=_count,
        cents=_cents,
    )


def _content(plan: Plan) -> list[tuple[str, str]]:
    return [*_figures(plan), *(("finding", str(finding)) for finding in plan.errors)]


def _figures(plan: Plan) -> Iterator[tuple[str, str]]:
    yield "backend", plan.backend
    yield "base model", plan.model
    yield "training rows", f"{plan.train_rows:,}"
    estimate = plan.estimate
    if estimate is None:
        yield "training", "no charge" if plan.charge == "none" else "unknown"
        return
    yield "epochs", _count(estimate.epochs)
    yield "trained tokens", _count(estimate.trained_tokens)
    yield "training", usd_range(estimate.launch_usd)
    yield "answers of the comparison", usd_range(estimate.evaluation_usd)
    yield "a month after it", usd_range(estimate.month_usd)


def _headline(plan: Plan) -> str:
    usd = plan.estimate.launch_usd if plan.estimate else None
    if usd is not None:
        cost = f"may cost {usd_range(usd)}"
    else:
        cost = "costs nothing" if plan.charge == "none" else "has no known cost"
    return f"{plan.job}: {plan.method} of {plan.model} on {plan.backend} {cost}"


def _count(count: Count | None) -> str:
    if count is None:
        return "unknown"
    return f"{count.low:,}" if count.exact else f"{count.low:,} to {count.high:,}"


def _cents(usd: Decimal) -> str:
    return f"{spread.cents(usd):,}"
