"""Check costs against the budgets of a job, a month and a project."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from pydantic import Field

from unitune.cost.prices.refresh import STALE_CODE
from unitune.cost.spread import Spread, cents
from unitune.documents import Frozen, Spec
from unitune.files import yaml_file
from unitune.findings import Finding, error, note
from unitune.job.prices import PriceEntry

FILE = "budget.yaml"  # in the job's folder or a parent folder
# Codes of findings about money alone
BUDGET_CODES = frozenset({"over-budget", "unknown-price", STALE_CODE})


class ProjectBudget(Spec):
    """Limits on the cost of all trainings and deployments of a project: the file budget.yaml."""

    month_usd: Annotated[Decimal, Field(ge=0)] | None = None
    """US dollars per calendar month, UTC."""
    project_usd: Annotated[Decimal, Field(ge=0)] | None = None
    """US dollars in total."""


@dataclass(frozen=True, slots=True)
class HostingBudget:
    """Limit on the cost of one deployment, in addition to the project's budget."""

    usd: Decimal | None = None  # US dollars; None for no separate limit
    unpriced: bool = False  # accept an unknown price regardless of budgets
    prices: tuple[PriceEntry, ...] = ()  # from the command line; they override all other prices

    @classmethod
    def of(cls, budget: HostingBudget | Decimal | float | None) -> HostingBudget:
        """Return a budget from a `HostingBudget` or an amount in US dollars."""
        if isinstance(budget, cls):
            return budget
        return cls(None if budget is None else Decimal(str(budget)))


NO_LIMIT = HostingBudget()


class Spent(Frozen):
    """Actual and committed cost of runs and deployments."""

    month_usd: Decimal = Decimal(0)
    project_usd: Decimal = Decimal(0)
    unknown: int = 0
    """Number of runs and deployments with unknown cost, which are in neither sum."""


@dataclass(frozen=True, slots=True)
class Cap:
    """Limit in US dollars and the amount already used."""

    name: str
    usd: Decimal
    spent: Decimal  # by anything other than what is checked
    raise_: str  # setting that raises the limit

    @property
    def left(self) -> Decimal:
        """Amount that may still be spent; negative if the limit is already exceeded."""
        return self.usd - self.spent

    def __str__(self) -> str:
        gone = f"; ${cents(self.spent)} of it is spent or reserved" if self.spent else ""
        return f"{self.name} is ${self.usd}{gone}"


def project_budget(folder: Path) -> ProjectBudget:
    """Return the lowest limits of the budget.yaml files in a folder and its parents.

    Raises:
        JobError: A file is not valid; the message names the line.
    """
    here = folder.absolute()
    files = (parent / FILE for parent in (here, *here.parents))
    return least(yaml_file.load(file, ProjectBudget) for file in files if file.is_file())


def least(budgets: Iterable[ProjectBudget]) -> ProjectBudget:
    """Return the lowest limits of several budgets."""
    known = tuple(budgets)
    months = [budget.month_usd for budget in known if budget.month_usd is not None]
    totals = [budget.project_usd for budget in known if budget.project_usd is not None]
    return ProjectBudget(month_usd=min(months, default=None), project_usd=min(totals, default=None))


def caps(
    job_usd: Decimal | None, project: ProjectBudget, spent: Spent, run_spent: Decimal = Decimal(0)
) -> tuple[Cap, ...]:
    """Return all limits that apply to a training.

    `spent` is from other runs and deployments, `run_spent` from earlier attempts of the same run.
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


def budget_findings(  # noqa: PLR0913 - a cost and the words for it
    limits: Sequence[Cap],
    usd: Spread | None,
    backend: str,
    *,
    what: str = "the training",
    less: str = "lower the epochs, or leave rows out",
    unpriced: bool = False,
    price: str = "training=25",
) -> Iterator[Finding]:
    """Yield errors if a cost exceeds a limit, or is unknown (None) under a limit.

    `what` names the charge, `less` a way to reduce it and `price` an example value for --price.
    """
    if usd is None:
        if limits and not unpriced:
            yield error(
                "unknown-price",
                f"{limits[0]}, but {backend}'s price for {what} is unknown.",
                f"Set the price in US dollars with --price {price} or in prices.yaml, choose "
                "another backend, or accept it with --allow-unpriced.",
            )
        return
    for limit in limits:
        if usd.high > limit.left:
            yield error(
                "over-budget",
                f"{what} may cost ${cents(usd.high)}, but {limit}.",
                f"Raise {limit.raise_}, {less}.",
            )


def unknown_findings(limits: Iterable[Cap], spent: Spent) -> Iterator[Finding]:
    """Yield a note if the amount spent lacks unknown costs."""
    if spent.unknown and any("job" not in limit.name for limit in limits):
        yield note(
            "unknown-spending",
            f"the cost of {spent.unknown} runs or deployments is unknown and not included in the "
            "amount spent.",
        )
