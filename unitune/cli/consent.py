"""Asking before money is spent: with a budget or a plan nobody is asked, and a script never is."""

from __future__ import annotations

import os
import sys
from decimal import Decimal

import typer

from unitune.cli.money import between, dollars
from unitune.cost.budget import HostingBudget, ProjectBudget
from unitune.errors import OverBudget
from unitune.job import Job
from unitune.planning.money import money_of
from unitune.planning.plan import plan
from unitune.runs.hosting import budget_of, usd_per_hour
from unitune.runs.run import Run

TRAINING = (
    "Give a budget (--budget 20, or budget: {usd: 20} in the job, or budget.yaml), or save a plan, "
    "read it and launch it: unitune plan FILE -o plan.json, unitune apply plan.json."
)
DEPLOYMENT = "Give a budget: --budget 20, or month_usd or project_usd in budget.yaml."


def consent(job: Job, *, allow_unpriced: bool) -> None:
    """Make sure that somebody has agreed to what a training may cost.

    Args:
        job: About to be launched.
        allow_unpriced: Whether the user takes an unknown price.

    Raises:
        OverBudget: Nobody has, and nobody can be asked, or says no.
    """
    if job.budget is not None or money_of(job).project != ProjectBudget():
        return  # the launch itself holds it to them
    found = plan(job)
    if found.charge == "none" or found.errors or (found.charge == "unknown" and allow_unpriced):
        return  # what it has of errors the launch itself refuses
    usd = between(found.estimate.launch_usd) if found.estimate else "unknown"
    agree("training", usd, "Launch it?", TRAINING)


def consent_to_deployment(run: Run, seconds: float, budget: HostingBudget) -> None:
    """Make sure that somebody has agreed to what a deployment may cost.

    Args:
        run: Whose model it is.
        seconds: How long it may stand.
        budget: What the command line says of its cost.

    Raises:
        OverBudget: Nobody has, and nobody can be asked, or says no.
    """
    if budget.usd is not None or budget_of(run) != ProjectBudget():
        return  # deploying holds it to them
    rate = usd_per_hour(run, budget.prices)
    if rate == 0 or (rate is None and budget.unpriced):
        return
    hours = Decimal(seconds) / 3600
    usd = "unknown" if rate is None else f"{dollars(rate * hours)} at ${rate:f} an hour"
    agree("deployment", usd, f"Let it stand for {hours:.4g} h?", DEPLOYMENT)


def agree(what: str, usd: str, question: str, otherwise: str) -> None:
    """Ask a person for money; where there is none, refuse.

    Args:
        what: What is to be paid.
        usd: How much, in words.
        question: What yes means.
        otherwise: How to agree beforehand.

    Raises:
        OverBudget: Nobody can be asked, or says no.
    """
    if not somebody_is_there():
        raise OverBudget(f"the {what} costs money: {usd}. {otherwise}")
    if not typer.confirm(f"The {what} costs money: {usd}. {question}", err=True):
        raise OverBudget(f"nothing was paid for. {otherwise}")


def somebody_is_there() -> bool:
    """Whether a person can answer: CI systems set CI, and scripts have no terminal."""
    return not os.environ.get("CI") and sys.stdin.isatty() and sys.stderr.isatty()
