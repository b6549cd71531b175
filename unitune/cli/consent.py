"""Asking before money is spent: with a budget or a plan nobody is asked, and a script never is."""

from __future__ import annotations

import os
import sys

import typer

from unitune.cli.money import between
from unitune.cost.budget import ProjectBudget
from unitune.errors import OverBudget
from unitune.job import Job
from unitune.planning.money import money_of
from unitune.planning.plan import plan

WITHOUT_ASKING = (
    "Give a budget (--budget 20, or budget: {usd: 20} in the job, or budget.yaml), or save a plan, "
    "read it and launch it: unitune plan FILE -o plan.json, unitune apply plan.json."
)


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
    if not _somebody_is_there():
        raise OverBudget(f"the training costs money: {usd}. {WITHOUT_ASKING}")
    if not typer.confirm(f"The training costs money: {usd}. Launch it?", err=True):
        raise OverBudget(f"nothing was launched. {WITHOUT_ASKING}")


def _somebody_is_there() -> bool:
    """Whether a person can answer: CI systems set CI, and scripts have no terminal."""
    return not os.environ.get("CI") and sys.stdin.isatty() and sys.stderr.isatty()
