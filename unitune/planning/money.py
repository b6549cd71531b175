"""What is known of money before a plan is made: limits, what was spent and learnt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unitune.cost.budget import ProjectBudget, Spent, project_budget
from unitune.cost.narrowing import Narrowing
from unitune.job.job import Job
from unitune.workspace.home import home, ledger_url
from unitune.workspace.today import today

if TYPE_CHECKING:
    from unitune.ledger import CostRecord


@dataclass(frozen=True, slots=True)
class Money:
    """What is known of money before a plan is made.

    Args:
        project: Limits of the project.
        spent: What its runs and deployments have cost.
        costs: Of earlier runs, from which is learnt.
        unpriced: Whether the user takes a price that is unknown or old.
    """

    project: ProjectBudget = field(default_factory=ProjectBudget)
    spent: Spent = field(default_factory=Spent)
    costs: tuple[CostRecord, ...] = ()
    unpriced: bool = False

    def learnt(self, job: Job, basis: str) -> Narrowing | None:
        """Return what earlier runs of a job's model tell of its cost.

        Args:
            job: On its backend.
            basis: What its rows were counted with.
        """
        if not self.costs:
            return None
        from unitune.ledger.budgeting import lessons  # noqa: PLC0415 - brings the database

        return Narrowing.of(lessons(self.costs, job.backend, job.base_model), basis)


def money_of(job: Job, *, unpriced: bool = False) -> Money:
    """Return what is known of money where a job stands.

    A ledger that machines share is only asked when budget.yaml makes it matter: a plan opens no
    connection of its own accord.

    Args:
        job: Its folder has the project's budget.
        unpriced: Whether the user takes a price that is unknown or old.

    Raises:
        JobError: budget.yaml is not valid.
    """
    project = project_budget(job.folder)
    shared = ledger_url() is not None
    wanted = project != ProjectBudget() if shared else (home() / "ledger.db").exists()
    if not wanted:
        return Money(project, unpriced=unpriced)
    from unitune.ledger import Ledger, budgeting  # noqa: PLC0415 - brings the database

    ledger = Ledger(home())
    books = budgeting.books_of(ledger)
    spent = budgeting.spent(books, today())
    return Money(project, spent, tuple(books.costs), unpriced)
