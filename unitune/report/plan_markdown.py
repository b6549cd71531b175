"""A plan as Markdown for CI: the one comment of a pull request that changes what a job costs.

Held against the plan of the base branch it tells what changed, and is empty when nothing did, so
that nobody is told what nobody has to know. The first line finds the comment again, as in
`unitune.report.markdown`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from unitune.cost.budget import BUDGET_CODES
from unitune.cost.documents import LAUNCH, MONTHLY, Estimate, Line
from unitune.cost.spread import Spread, cents
from unitune.cost.tokens import Count
from unitune.planning.documents import Plan
from unitune.report.markdown import said
from unitune.report.typography import usd_range

MOST_FINDINGS = 10


def marker(job: str) -> str:
    """Return the line by which the comment of a job is found again."""
    return f"<!-- unitune plan: {re.sub('[^a-z0-9-]', '-', job)[:40]} -->"


def render(found: Plan, base: Plan | None = None) -> str:
    """Return a plan as Markdown; empty when it is as it was.

    Args:
        found: The plan.
        base: Of the base branch; None: there is nothing to hold it against.
    """
    if base is not None and not changed(base, found):
        return ""
    blocks = [marker(found.job), f"### {_headline(found)}", _verdict(found)]
    if base is not None:
        blocks.append(_changes(base, found))
    if found.estimate is not None:
        blocks.append(_table(found.estimate))
    blocks += _findings(found)
    if found.estimate is not None:
        told = "\n".join(f"- {said(line)}" for line in found.estimate.assumptions)
        blocks.append(f"<details><summary>What this rests on</summary>\n\n{told}\n\n</details>")
    return "\n\n".join(block for block in blocks if block) + "\n"


def changed(base: Plan, found: Plan) -> bool:
    """Whether a plan says anything else than that of the base branch."""
    return _told(base) != _told(found)


def _told(plan: Plan) -> list[tuple[str, str]]:
    rows = list(_figures(plan))
    rows += [("finding", str(finding)) for finding in plan.errors]
    return rows


def _figures(plan: Plan) -> Iterator[tuple[str, str]]:
    yield "backend", plan.backend
    yield "base model", plan.model
    yield "training rows", f"{plan.train_rows:,}"
    made = plan.estimate
    if made is None:
        yield "training", "no charge" if plan.charge == "none" else "unknown"
        return
    yield "epochs", _count(made.epochs)
    yield "trained tokens", _count(made.trained_tokens)
    yield "training", usd_range(made.launch_usd)
    yield "answers of the comparison", usd_range(made.evaluation_usd)
    yield "a month after it", usd_range(made.month_usd)


def _headline(plan: Plan) -> str:
    where = f"{plan.method} of {plan.model} on {plan.backend}"
    made = plan.estimate
    if made is None:
        cost = "costs nothing" if plan.charge == "none" else "has no known cost"
    else:
        usd = made.launch_usd
        cost = "has no known cost" if usd is None else f"may cost {usd_range(usd)}"
    return said(f"{plan.job}: {where} {cost}")


def _verdict(plan: Plan) -> str:
    money = [finding for finding in plan.errors if finding.code in BUDGET_CODES]
    if money:
        return f"\U0001f534 **Over budget:** {said(money[0].message)}"
    if plan.errors:
        return f"\U0001f534 **It cannot be launched:** {said(plan.errors[0].message)}"
    if any(finding.severity == "warning" for finding in plan.findings):
        return "\U0001f7e1 It can be launched; look at the warnings."
    return "\U0001f7e2 It can be launched."


def _changes(base: Plan, found: Plan) -> str:
    before, after = dict(_figures(base)), dict(_figures(found))
    rows = [
        f"| {name} | {said(before.get(name, ''))} | {said(after[name])} |"
        for name in after
        if before.get(name) != after[name]
    ]
    return "\n".join(["| changed | base | here |", "|---|--:|--:|", *rows]) if rows else ""


def _table(made: Estimate) -> str:
    heads = "| US dollars | tokens | low | expected | high |\n|---|--:|--:|--:|--:|"
    rows = [_row(line) for line in made.lines]
    sums = {"launch": (LAUNCH, made.launch_usd), "a month": (MONTHLY, made.month_usd)}
    for name, (items, usd) in sums.items():
        if any(line.item in items for line in made.lines):
            rows.append(f"| **{name}** | | {_cells(usd)} |")
    return "\n".join([heads, *rows])


def _row(line: Line) -> str:
    name = f"{line.item} of {line.what}" if line.what else line.item
    if line.item in MONTHLY:
        name += " a month"
    return f"| {said(name)} | {_count(line.tokens) if line.tokens else ''} | {_cells(line.usd)} |"


def _findings(plan: Plan) -> Iterator[str]:
    grave = [one for one in plan.findings if one.severity != "note"]
    if not grave:
        return
    shown = [f"- **{one.severity}** {said(str(one))}" for one in grave[:MOST_FINDINGS]]
    more = len(grave) - MOST_FINDINGS
    yield "\n".join([*shown, f"- and {more:,} more"] if more > 0 else shown)


def _cells(usd: Spread | None) -> str:
    if usd is None:
        return "| unknown |"
    return f"{cents(usd.low):,} | {cents(usd.expected):,} | {cents(usd.high):,}"


def _count(count: Count | None) -> str:
    if count is None:
        return "unknown"
    return f"{count.low:,}" if count.exact else f"{count.low:,} to {count.high:,}"
