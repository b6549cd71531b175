"""How much may be spent, and what is left of it: of a job, of a month, of a project.

Pure functions over what was spent. That is read by `unitune.ledger.budgeting` (runs) and
`unitune.planning.plan` (before there is one).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from pydantic import Field

from unitune.cost.prices.staleness import STALE_CODE
from unitune.cost.spread import Spread, cents
from unitune.findings import Finding, error, note
from unitune.job.prices import PriceEntry
from unitune.security.spec import Frozen, Spec
from unitune.workspace import yaml_file

FILE = "budget.yaml"  # of a project, in the job's folder or a folder above it
BUDGET_CODES = frozenset({"over-budget", "unknown-price", STALE_CODE})  # findings about money alone


class ProjectBudget(Spec):
    """The most that all trainings and deployments of a project may cost: the file budget.yaml."""

    month_usd: Annotated[Decimal, Field(ge=0)] | None = None
    """US dollars in a calendar month, UTC."""
    project_usd: Annotated[Decimal, Field(ge=0)] | None = None
    """US dollars in all."""


@dataclass(frozen=True, slots=True)
class HostingBudget:
    """What a deployment may cost besides what the project's budget allows."""

    usd: Decimal | None = None  # US dollars; None: no limit of its own
    unpriced: bool = False  # whether an unknown price is taken, whatever the budgets say
    prices: tuple[PriceEntry, ...] = ()  # of the command line, which win over all others

    @classmethod
    def of(cls, budget: HostingBudget | Decimal | float | None) -> HostingBudget:
        """Return a budget that may be given in US dollars alone."""
        if isinstance(budget, cls):
            return budget
        return cls(None if budget is None else Decimal(str(budget)))


NO_LIMIT = HostingBudget()


class Spent(Frozen):
    """What runs and deployments have cost, or may still cost."""

    month_usd: Decimal = Decimal(0)
    project_usd: Decimal = Decimal(0)
    unknown: int = 0
    """Runs and deployments whose cost is not known; they are in neither sum."""


@dataclass(frozen=True, slots=True)
class Cap:
    """A limit, and what is gone of it, in US dollars."""

    name: str
    usd: Decimal
    spent: Decimal  # by others than what the limit is held against
    raise_: str  # what to change for a higher limit

    @property
    def left(self) -> Decimal:
        """What may still be spent; negative when it is passed already."""
        return self.usd - self.spent

    def __str__(self) -> str:
        gone = f", of which ${cents(self.spent)} are spent or set aside" if self.spent else ""
        return f"{self.name} is ${self.usd}{gone}"


def project_budget(folder: Path) -> ProjectBudget:
    """Read the budgets of the projects that a folder belongs to; without a file there is no limit.

    Every budget.yaml from the folder upwards holds, so of each amount the least does.

    Raises:
        JobError: A file is not valid; the message names the line.
    """
    here = folder.absolute()
    files = (parent / FILE for parent in (here, *here.parents))
    return least(yaml_file.load(file, ProjectBudget) for file in files if file.is_file())


def least(budgets: Iterable[ProjectBudget]) -> ProjectBudget:
    """Return the budget that keeps to all budgets."""
    known = tuple(budgets)
    months = [budget.month_usd for budget in known if budget.month_usd is not None]
    totals = [budget.project_usd for budget in known if budget.project_usd is not None]
    return ProjectBudget(month_usd=min(months, default=None), project_usd=min(totals, default=None))


def caps(
    job_usd: Decimal | None, project: ProjectBudget, spent: Spent, run_spent: Decimal = Decimal(0)
) -> tuple[Cap, ...]:
    """Return all limits that hold for a training.

    Other runs and deployments have spent `spent`, earlier attempts of the same run `run_spent`.
    """
    limits = (
        ("the job's budget", job_usd, Decimal(0), "budget.usd of the job"),
        ("the month's budget", project.month_usd, spent.month_usd, f"month_usd in {FILE}"),
        ("the project's budget", project.project_usd, spent.project_usd, f"project_usd in {FILE}"),
    )
    return tuple(
        Cap(name, usd, gone + run_spent, raise_)
        for name, usd, gone, raise_ in limits
        if usd is not None
    )


def budget_findings(  # noqa: PLR0913 - a cost, and the words for it
    limits: Sequence[Cap],
    usd: Spread | None,
    backend: str,
    *,
    what: str = "the training",
    less: str = "lower the epochs, or leave rows out",
    unpriced: bool = False,
    price: str = "training=25",
) -> Iterator[Finding]:
    """Yield what the limits say against the cost of a launch or a deployment.

    Args:
        limits: That hold for it.
        usd: What it would cost; None: unknown.
        backend: Whose price that is.
        what: What is to be paid.
        less: How it would cost less.
        unpriced: Whether the user takes an unknown price.
        price: Example of the option that gives its price.
    """
    if usd is None:
        if limits and not unpriced:
            yield error(
                "unknown-price",
                f"{limits[0]}, and it is not known what {backend} charges for {what}.",
                f"Give its price in US dollars, e.g. --price {price} or in prices.yaml, choose "
                "another backend, or accept it with --allow-unpriced.",
            )
        return
    for limit in limits:
        if usd.high > limit.left:
            yield error(
                "over-budget",
                f"{what} may cost ${cents(usd.high)}, and {limit}.",
                f"Raise {limit.raise_}, {less}.",
            )


def unknown_findings(limits: Iterable[Cap], spent: Spent) -> Iterator[Finding]:
    """Yield a note when unknown costs are missing in what is spent."""
    if spent.unknown and any("job" not in limit.name for limit in limits):
        yield note(
            "unknown-spending",
            f"of {spent.unknown} runs or deployments the cost is not known; they are not in what "
            "is spent.",
        )
