"""How much may be spent, and what is left of it: of a job, of a month, of a project.

Pure functions over what was spent. Where that is read, and when it is looked at, is the business of
`unitune.ledger.budgeting` (runs) and `unitune.planning.plan` (before there is one).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unitune.cost.prices.staleness import STALE_CODE
from unitune.cost.spread import Spread, cents
from unitune.errors import JobError
from unitune.findings import Finding, error, note
from unitune.job.prices import PriceEntry
from unitune.security.spec import Spec
from unitune.workspace import yaml_file

FILE = "budget.yaml"
"""Of a project: in the job's folder and in those above it."""


BUDGET_CODES = frozenset({"over-budget", "unknown-price", STALE_CODE})
"""Findings that speak of money alone."""


class ProjectBudget(Spec):
    """The most that all trainings and deployments of a project may cost: the file budget.yaml."""

    month_usd: Annotated[Decimal, Field(ge=0)] | None = None
    """US dollars in a calendar month, UTC."""
    project_usd: Annotated[Decimal, Field(ge=0)] | None = None
    """US dollars in all."""


@dataclass(frozen=True, slots=True)
class HostingBudget:
    """What a deployment may cost besides what the project's budget says.

    Args:
        usd: US dollars; None: no limit of its own.
        unpriced: Whether an unknown price is taken, whatever the budgets say.
        prices: Of the command line, which win over all others.
    """

    usd: Decimal | None = None
    unpriced: bool = False
    prices: tuple[PriceEntry, ...] = ()


NO_LIMIT = HostingBudget()
"""A deployment is held to the project's budget alone."""


class Spent(BaseModel):
    """What runs and deployments have cost, or may still cost."""

    model_config = ConfigDict(frozen=True)
    month_usd: Decimal = Decimal(0)
    project_usd: Decimal = Decimal(0)
    unknown: int = 0
    """Runs and deployments whose cost nobody knows; they are in neither sum."""


@dataclass(frozen=True, slots=True)
class Cap:
    """A limit, and what is gone of it.

    Args:
        name: What it is a limit of, for messages.
        usd: US dollars.
        spent: By others than what is asked about.
        raise_: What to change for a higher limit.
    """

    name: str
    usd: Decimal
    spent: Decimal
    raise_: str

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
    places = (each / FILE for each in (here, *here.parents))
    return least(_read(place) for place in places if place.is_file())


def least(budgets: Iterable[ProjectBudget]) -> ProjectBudget:
    """Return the budget that keeps to all budgets."""
    both = tuple(budgets)
    return ProjectBudget(
        month_usd=min((one.month_usd for one in both if one.month_usd is not None), default=None),
        project_usd=min(
            (one.project_usd for one in both if one.project_usd is not None), default=None
        ),
    )


def _read(file: Path) -> ProjectBudget:
    document = yaml_file.read(file)
    try:
        return ProjectBudget.model_validate(document.value)
    except ValidationError as invalid:
        raise JobError(yaml_file.explain(document, invalid, ProjectBudget)) from invalid


def caps(
    job_usd: Decimal | None, project: ProjectBudget, spent: Spent, run_spent: Decimal = Decimal(0)
) -> tuple[Cap, ...]:
    """Return all limits that hold for a training.

    Args:
        job_usd: The job's own budget.
        project: Of its project.
        spent: By other runs, and by deployments.
        run_spent: By earlier attempts of the same run.
    """
    found: list[Cap] = []
    if job_usd is not None:
        found.append(Cap("the job's budget", job_usd, run_spent, "budget.usd of the job"))
    if project.month_usd is not None:
        gone = spent.month_usd + run_spent
        found.append(Cap("the month's budget", project.month_usd, gone, f"month_usd in {FILE}"))
    if project.project_usd is not None:
        gone = spent.project_usd + run_spent
        name = "the project's budget"
        found.append(Cap(name, project.project_usd, gone, f"project_usd in {FILE}"))
    return tuple(found)


def budget_findings(  # noqa: PLR0913 - what is asked about, in whose words
    limits: Sequence[Cap],
    usd: Spread | None,
    backend: str,
    *,
    what: str = "the training",
    less: str = "lower the epochs, or leave rows out",
    unpriced: bool = False,
) -> Iterator[Finding]:
    """Yield what the limits say against the cost of a launch or a deployment.

    Args:
        limits: That hold for it.
        usd: What it would cost; None: unknown.
        backend: Whose price that is.
        what: What is to be paid.
        less: How it would cost less.
        unpriced: Whether the user takes an unknown price.
    """
    if usd is None:
        if limits and not unpriced:
            yield error(
                "unknown-price",
                f"{limits[0]}, and it is not known what {backend} charges for {what}.",
                "Name the price in prices.yaml, choose another backend, or take it all the same "
                "with --allow-unpriced.",
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
    """Yield a note when costs that nobody knows are missing in what is spent."""
    if spent.unknown and any("job" not in limit.name for limit in limits):
        yield note(
            "unknown-spending",
            f"of {spent.unknown} runs or deployments the cost is not known; they are not in what "
            "is spent.",
        )
