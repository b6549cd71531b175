"""Price a resolved job at a vendor and check the estimate against budgets and price ages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from unitune.cost.budget import (
    ProjectBudget,
    Spent,
    budget_findings,
    caps,
    project_budget,
    unknown_findings,
)
from unitune.cost.documents import Estimate
from unitune.cost.estimate import estimate
from unitune.cost.prices.refresh import age_findings, folder_findings
from unitune.cost.reconcile import Lesson
from unitune.cost.spread import Spread
from unitune.findings import Finding, error
from unitune.job.contenders import Model
from unitune.job.job import Job
from unitune.planning.preflight import ResolvedJob
from unitune.workspace.home import home, ledger_url
from unitune.workspace.user_settings import today


@dataclass(frozen=True, slots=True)
class Money:
    """Budgets, spending and earlier bills that a plan is checked against."""

    project: ProjectBudget = field(default_factory=ProjectBudget)
    # By the project's runs and deployments, if budget.yaml limits their cost
    spent: Spent = field(default_factory=Spent)
    # From the bills of earlier runs, by backend and base model
    lessons: Mapping[tuple[str, str], Sequence[Lesson]] = field(
        default_factory=dict[tuple[str, str], Sequence[Lesson]]
    )
    unpriced: bool = False  # True if the user accepts unknown or old prices
    # Fingerprints of running and finished trainings, whose money is in `spent`
    launched: frozenset[str] = frozenset()


NOTHING_KNOWN = Money()


def money_of(job: Job, *, unpriced: bool = False) -> Money:
    """Return the budgets, spending and earlier bills of a job's project. Raises JobError.

    A shared ledger is read only if budget.yaml needs it, so a plan opens no connection otherwise.
    """
    project = project_budget(job.folder)
    shared = ledger_url() is not None
    wanted = project != ProjectBudget() if shared else (home() / "ledger.db").exists()
    if not wanted:
        return Money(project, unpriced=unpriced)
    from unitune.ledger import Ledger, budgeting  # noqa: PLC0415 - imports the database

    ledger = Ledger(home())
    books = budgeting.books_of(ledger)
    return Money(
        project,
        Spent() if project == ProjectBudget() else budgeting.spent(books, today()),
        budgeting.lessons(books.costs),
        unpriced,
        ledger.fingerprints(),
    )


def estimated(
    resolved: ResolvedJob,
    money: Money = NOTHING_KNOWN,
    trained: Mapping[str, Job] | None = None,
) -> Estimate:
    """Return the vendor's price of a training (or sweep) and of the answers of its comparison.

    `trained` has the jobs of the runs that tuned contenders name, by contender.
    """
    job = resolved.job
    others = {
        spec.name: resolved.rows.counted_for(spec.model)
        for spec in job.evaluate.requested
        if isinstance(spec, Model) and spec.model != job.base_model
    }
    lessons = money.lessons.get((job.backend, job.base_model), ())
    work, day = resolved.workload, today()
    made = estimate(job, work, resolved.book, day, others=others, trained=trained, lessons=lessons)
    if not resolved.is_sweep:
        return made
    return made.of_sweep({run.setting: estimated(run, money) for run in resolved.runs})


def money_findings(resolved: ResolvedJob, made: Estimate, money: Money) -> Iterator[Finding]:
    """Yield findings about budgets and about the age and origin of the prices."""
    job, usd = resolved.job, made.launch_usd
    limits = caps(job.budget and job.budget.usd, money.project, money.spent)
    what, less = "the training", "lower the epochs, or leave rows out"
    if resolved.is_sweep:
        what = f"the sweep of {len(resolved.runs)} runs"
    if job.sweep:
        less = f"leave values out, {less}"
    if usd is not None and resolved.is_sweep:
        # Launched runs are already in `spent`, so the project pays only for the others.
        lines = zip(resolved.runs, made.of("training"), strict=True)
        left = [line.usd for run, line in lines if run.fingerprint not in money.launched]
        others = Spread.total(each for each in left if each is not None)
        project = caps(None, money.project, money.spent)
        yield from budget_findings(project, others, made.backend, what=what, less=less)
        limits = caps(job.budget and job.budget.usd, ProjectBudget(), Spent())
    unpriced = next((x for x in made.of("graders") if x.usd is None), None)
    if limits and unpriced and unpriced.what and not money.unpriced:
        yield error(
            "unknown-price",
            f"{limits[0]}, but the price of the judge {unpriced.what!r} is unknown.",
            f"Set it under evaluate.prices: {{{unpriced.what}: {{input: 0.15, output: 0.60}}}} "
            "(0 if free), or accept it with --allow-unpriced.",
        )
    else:
        yield from budget_findings(
            limits, usd, made.backend, what=what, less=less, unpriced=money.unpriced
        )
    yield from unknown_findings(limits, money.spent)
    yield from age_findings(made.launch_prices, made.day, allow_stale=money.unpriced or not limits)
    yield from folder_findings(made.prices, resolved.book, job, made.day)
