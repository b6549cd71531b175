"""Ask for confirmation before money is spent.

A budget or a saved plan makes it unnecessary. Without either, a script is refused and a person may
decline, which raises `OverBudget`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from pydantic import JsonValue

from unitune.backends import registry
from unitune.backends.capabilities import Deploys
from unitune.cli.output import confirmed
from unitune.cost.budget import HostingBudget, ProjectBudget, project_budget
from unitune.cost.spread import Spread
from unitune.data.dataset import Dataset
from unitune.data.split import Splits
from unitune.errors import OverBudget, UserError
from unitune.evaluate.inference.budget import answer_prices
from unitune.evaluate.readiness import readiness_findings
from unitune.findings import shown
from unitune.job.job import Job
from unitune.planning.money import estimated
from unitune.planning.plan import plan
from unitune.planning.preflight import ResolvedJob
from unitune.planning.rows import Rows
from unitune.render.typography import dollars, usd_range
from unitune.run.deploying import budget_of, usd_per_hour
from unitune.run.run import Run

TRAINING = (
    "Set a budget (--budget 20, or budget: {usd: 20} in the job, or budget.yaml). Or save a plan, "
    "review it and launch it: unitune plan FILE -o plan.json, unitune run --plan plan.json."
)
ANSWERS = (
    "Set a budget (--budget 5, or budget: {usd: 5} under evaluate in the job). `--replay` scores "
    "recorded answers and costs nothing."
)
DEPLOYMENT = "Set a budget: --budget 20, or month_usd or project_usd in budget.yaml."


def confirm_training(resolved: ResolvedJob, *, allow_unpriced: bool) -> None:
    """Ask the user to confirm the cost of a training, unless a budget covers it."""
    job = resolved.job
    if job.budget is not None or project_budget(job.folder) != ProjectBudget():
        return  # the launch enforces the budgets
    is_own = resolved.offer.training_price == "none"
    if is_own and not job.judged_rewards:
        return
    planned = plan(resolved)
    launch = planned.estimate and planned.estimate.launch_usd
    if planned.errors or (launch is None and (allow_unpriced or is_own)):
        return  # the launch refuses a plan with errors; own servers count only with a price
    if is_own and launch and not launch.high:
        return
    usd = usd_range(launch)
    if usd == "unknown":
        usd += f"; set {job.backend}'s price per million tokens in US dollars: --price training=25"
    what = f"sweep of {len(planned.runs)} runs" if planned.runs else "training"
    confirm_cost(what, usd, "Launch it?", TRAINING)


def confirm_deployment(
    run: Run,
    seconds: float,
    budget: HostingBudget,
    options: Mapping[str, JsonValue] | None = None,
) -> None:
    """Ask the user to confirm the cost of a deployment, unless a budget covers it."""
    if budget.usd is not None or budget_of(run) != ProjectBudget():
        return  # deploying enforces the budgets
    if not isinstance(registry.backend(run.backend_name), Deploys):
        return  # deploying reports that there is nothing to deploy
    rate = usd_per_hour(run, budget.prices, options)
    if rate == 0 or (rate is None and budget.unpriced):
        return
    hours = Decimal(seconds) / 3600
    usd = "unknown" if rate is None else f"{dollars(rate * hours)} at ${rate:f} per hour"
    confirm_cost("deployment", usd, f"Deploy it for {hours:.4g} h?", DEPLOYMENT)


def confirm_answers(
    resolved: ResolvedJob, trained: Mapping[str, Job], *, allow_unpriced: bool
) -> None:
    """Ask the user to confirm the cost of answers, unless a budget covers it.

    The user's own servers and endpoints count only if the job has their prices. `trained` holds the
    jobs that trained the contenders, by contender.
    """
    if resolved.job.evaluate.budget is not None:
        return
    prices = answer_prices(resolved.job, resolved.book, trained)
    unknown_alone = not replace(prices, unpriced=()).charged
    if not prices.charged or (unknown_alone and allow_unpriced):
        return
    # Recorded answers are free.
    lines = estimated(resolved, trained=trained).of("evaluation")
    by_contender = {line.what: line.usd for line in lines if line.usd is not None}
    paid = [usd for name, usd in by_contender.items() if name in prices.contenders]
    parts = [usd_range(Spread.total(paid))] if paid else []
    parts += [f"unknown for {name}" for name in prices.unpriced]
    confirm_cost("comparison", "; ".join(parts), "Continue?", ANSWERS)


def limited(resolved: ResolvedJob, limit: int) -> ResolvedJob:
    """Return a job limited to so many test and validation rows, to price a preview."""

    def few(rows: Dataset) -> Dataset:
        return replace(rows, rows=rows.rows[:limit])

    splits = resolved.splits
    test = splits.test and few(splits.test)
    read = replace(resolved.rows.read, usable=Splits(splits.train, few(splits.validation), test))
    return replace(resolved, rows=Rows(read, resolved.rows.counters))


def confirm_cost(what: str, usd: str, question: str, otherwise: str) -> None:
    """Ask a person to confirm a cost; refuse it if no one can answer."""
    if not is_interactive():
        raise OverBudget(f"the {what} costs money: {usd}. {otherwise}")
    if not confirmed(f"The {what} costs money: {usd}. {question}"):
        raise OverBudget(f"nothing was spent. {otherwise}")


def refuse_unready(resolved: ResolvedJob) -> None:
    """Refuse a training whose model a comparison could not evaluate; raises `UserError`."""
    if resolved.rows.read.report.errors:
        return  # the launch refuses such rows
    findings = readiness_findings(resolved.job, resolved.rows.read, resolved.book)
    if errors := [finding for finding in findings if finding.severity == "error"]:
        raise UserError("\n".join(shown(errors)))


def is_interactive() -> bool:
    """Return whether a person can answer: CI systems set CI, and scripts have no terminal."""
    return not os.environ.get("CI") and sys.stdin.isatty() and sys.stderr.isatty()
