"""What a job's budget says against an estimate: what plan shows and launch refuses by."""

from __future__ import annotations

from unitune.cost.estimate import Estimate
from unitune.data.findings import Finding, error
from unitune.job import Job


def budget_findings(job: Job, priced: Estimate | None) -> tuple[Finding, ...]:
    """Return what the job's budget says against an estimate.

    Args:
        job: With or without a budget.
        priced: What it would cost; None where no price is known.
    """
    if job.budget is None:
        return ()
    limit = job.budget.usd
    if priced is None:
        return (
            error(
                "unknown-price",
                f"the budget is ${limit}, and no price of {job.backend} is known for this job.",
                "Take the budget out to launch all the same, or choose another backend.",
            ),
        )
    if priced.usd_high <= limit:
        return ()
    return (
        error(
            "over-budget",
            f"the job may cost ${priced.usd_high}, and the budget is ${limit}.",
            "Raise budget.usd, lower the epochs, or leave rows out.",
        ),
    )
