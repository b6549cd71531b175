"""A plan as Markdown for CI: the one comment of a pull request that changes what a job costs.

Compared with the plan of the base branch it shows what changed, and is empty when nothing did. The
first line finds the comment again, as in `unitune.report.markdown`.
"""

from __future__ import annotations

from collections.abc import Iterator

from unitune.cost.budget import BUDGET_CODES
from unitune.cost.documents import LAUNCH, MONTHLY, Estimate
from unitune.cost.spread import Spread, cents
from unitune.cost.tokens import Count
from unitune.planning.documents import Plan
from unitune.report.markdown import escaped, marker
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
    blocks = [marker("plan", plan.job), f"### {_headline(plan)}", _verdict(plan)]
    if base is not None:
        blocks.append(_changes(base, plan))
    if plan.estimate is not None:
        blocks.append(_table(plan.estimate))
    blocks.append(_findings(plan))
    if plan.estimate is not None:
        lines = "\n".join(f"- {escaped(line)}" for line in plan.estimate.assumptions)
        blocks.append(f"<details><summary>What this rests on</summary>\n\n{lines}\n\n</details>")
    return "\n\n".join(filter(None, blocks)) + "\n"


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
    return escaped(f"{plan.job}: {plan.method} of {plan.model} on {plan.backend} {cost}")


def _verdict(plan: Plan) -> str:
    over_budget = [finding for finding in plan.errors if finding.code in BUDGET_CODES]
    if over_budget:
        return f"\U0001f534 **Over budget:** {escaped(over_budget[0].message)}"
    if plan.errors:
        return f"\U0001f534 **It cannot be launched:** {escaped(plan.errors[0].message)}"
    if any(finding.severity == "warning" for finding in plan.findings):
        return "\U0001f7e1 It can be launched; look at the warnings."
    return "\U0001f7e2 It can be launched."


def _changes(base: Plan, plan: Plan) -> str:
    before, after = dict(_figures(base)), dict(_figures(plan))
    rows = [
        f"| {name} | {escaped(before.get(name, ''))} | {escaped(value)} |"
        for name, value in after.items()
        if before.get(name) != value
    ]
    return "\n".join(["| changed | base | here |", "|---|--:|--:|", *rows]) if rows else ""


def _table(estimate: Estimate) -> str:
    lines = ["| US dollars | tokens | low | expected | high |", "|---|--:|--:|--:|--:|"]
    for line in estimate.lines:
        name = f"{line.item} of {line.what}" if line.what else line.item
        name += " a month" if line.item in MONTHLY else ""
        tokens = _count(line.tokens) if line.tokens else ""
        lines.append(f"| {escaped(name)} | {tokens} | {_cells(line.usd)} |")
    for name, items, usd in (
        ("launch", LAUNCH, estimate.launch_usd),
        ("a month", MONTHLY, estimate.month_usd),
    ):
        if any(line.item in items for line in estimate.lines):
            lines.append(f"| **{name}** | | {_cells(usd)} |")
    return "\n".join(lines)


def _findings(plan: Plan) -> str:
    findings = [finding for finding in plan.findings if finding.severity != "note"]
    lines = [f"- **{each.severity}** {escaped(str(each))}" for each in findings[:MAX_FINDINGS]]
    if (more := len(findings) - MAX_FINDINGS) > 0:
        lines.append(f"- and {more:,} more")
    return "\n".join(lines)


def _cells(usd: Spread | None) -> str:
    if usd is None:
        return "| unknown |"
    return f"{cents(usd.low):,} | {cents(usd.expected):,} | {cents(usd.high):,}"


def _count(count: Count | None) -> str:
    if count is None:
        return "unknown"
    return f"{count.low:,}" if count.exact else f"{count.low:,} to {count.high:,}"
