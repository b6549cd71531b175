"""What a deployment of a run's model costs by the hour, and which budgets it is held to.

Prices and budgets stand in files of the project, and the job in the ledger does not say where that
is: it is where the training rows are, or the folder that the command runs in.

Bringing the model up is not here (`unitune.run.deploying`).
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

from unitune.cost.budget import ProjectBudget, least, project_budget
from unitune.cost.prices.book import book_for
from unitune.job.prices import PriceEntry
from unitune.ledger import Ledger, budgeting
from unitune.run.handle import Run
from unitune.workspace.home import home
from unitune.workspace.today import today

HOURS_OF = {"hour": Decimal(1), "gpu-hour": Decimal(1)}
"""Units of what is paid while a deployment stands; a price a month buys no hours."""


def usd_per_hour(run: Run, prices: Iterable[PriceEntry] = ()) -> Decimal | None:
    """Return what a deployment costs an hour, on the dearest machine; None: not known.

    Args:
        run: Whose model it is.
        prices: Of the command line, which win over all others.
    """
    job = run.job.model_copy(update={"folder": _project(run) or Path()}).with_prices(prices)
    book = book_for(job)
    tier = book.offer(run.backend_name).tier(job.options.get(run.backend_name, {}))
    ends = book.hosting(run.backend_name, run.base_model, tier=tier, on=today())
    if ends is None or any(row.usd and row.per not in HOURS_OF for row in ends):
        return None
    return ends[1].usd


def budget_of(run: Run) -> ProjectBudget:
    """Return the limits that hold for a deployment of a run's model.

    Those of its project and of the current folder; where the project is not on this machine, those
    that the run was launched under.

    Raises:
        JobError: A budget.yaml is not valid.
    """
    here, project = project_budget(Path()), _project(run)
    if project is not None:
        return least((here, project_budget(project)))
    approval = budgeting.approval_of(Ledger(home()), run.id)
    return least((here, approval.project)) if approval else here


def _project(run: Run) -> Path | None:
    """Return the folder of the rows that a run was trained on, if they are still there."""
    job = run.job
    rows = job.path(job.data.train) if job.data.train else None
    return rows.parent.resolve() if rows is not None and rows.exists() else None
