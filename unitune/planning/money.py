"""What is known of money before a plan is made: limits, what was spent, and earlier bills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unitune.cost.budget import ProjectBudget, Spent, project_budget
from unitune.cost.narrowing import Lesson
from unitune.job.job import Job
from unitune.workspace.home import home, ledger_url
from unitune.workspace.today import today


@dataclass(frozen=True, slots=True)
class Money:
    """What is known of money before a plan is made.

    Args:
        project: Limits of the project.
        spent: What its runs and deployments have cost.
        lessons: What the bills of earlier runs have shown, by backend and base model.
        unpriced: Whether the user takes a price that is unknown or old.
    """

    project: ProjectBudget = field(default_factory=ProjectBudget)
    spent: Spent = field(default_factory=Spent)
    lessons: Mapping[tuple[str, str], Sequence[Lesson]] = field(
        default_factory=dict[tuple[str, str], Sequence[Lesson]]
    )
    unpriced: bool = False


NOTHING_KNOWN = Money()


def money_of(job: Job, *, unpriced: bool = False) -> Money:
    """Return what is known of money where a job stands.

    A ledger that machines share is only read when budget.yaml makes it matter: a plan opens no
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

    books = budgeting.books_of(Ledger(home()))
    return Money(project, budgeting.spent(books, today()), budgeting.lessons(books.costs), unpriced)
