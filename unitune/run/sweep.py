"""Launch the runs of a sweep, each once.

Their total cost is checked against every budget before the first launch. Each run gets a share of
the job's budget in proportion to its maximum cost. Runs that are running or done are not launched
again, so repeating the call continues where a killed one stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from decimal import ROUND_FLOOR, Decimal

from unitune.backends.protocol import State
from unitune.cost.spread import CENT
from unitune.errors import DuplicateRunError
from unitune.job.job import Job, TrainingBudget
from unitune.planning import saved
from unitune.planning.money import money_of
from unitune.planning.plan import Plan, plan_of
from unitune.planning.preflight import ResolvedJob, preflight, refuse
from unitune.run.run import Run, find_run, launch


def launch_sweep(
    job: Job | ResolvedJob,
    *,
    budget: Decimal | float | None = None,
    allow_duplicate: bool = False,
    allow_unpriced: bool = False,
    plan: Plan | None = None,
) -> Iterator[Run]:
    """Launch the runs of a sweep, one for each combination of its values, each once.

    Everything that would be refused is refused before the first launch. Existing runs are returned,
    interrupted launches finished, paused trainings resumed, and failed runs launched again.

    Examples:
        >>> runs = list(unitune.launch_sweep(job, budget=20))
        >>> print(unitune.compare(job).verdict)  # compares the run that is best on validation rows

    Args:
        job: Job with lists of values under `tuning`; without lists, its only run is launched.
        budget: Maximum cost of all runs together, in US dollars; None for the job's own.
        allow_duplicate: Launch every run again, even if it exists.
        allow_unpriced: Train even if prices are unknown, whatever the budget.
        plan: A saved plan, which must still hold.

    Returns:
        The runs as they are launched, in the order of the lists, the last changing fastest. On this
        machine, each is launched when the previous one is at rest.

    Raises:
        UnituneError: As in `unitune.launch`.
    """
    resolved = preflight(job)
    if budget is not None:
        resolved = replace(resolved, job=resolved.job.with_budget(Decimal(str(budget))))
    made = plan_of(resolved, money_of(resolved.job, unpriced=allow_unpriced))
    if plan is not None and made.bound is not None:
        saved.refuse_changes(plan, made)
    refuse(made.findings)
    return _launched(
        _with_shares(resolved, made, plan),
        here=resolved.offer.trains_here,
        allow_duplicate=allow_duplicate,
        allow_unpriced=allow_unpriced,
    )


def _launched(
    runs: Iterable[ResolvedJob], *, here: bool, allow_duplicate: bool, allow_unpriced: bool
) -> Iterator[Run]:
    earlier: Run | None = None
    for each in runs:
        for _ in earlier.watch() if earlier and here else ():
            pass
        try:
            earlier = launch(each, allow_duplicate=allow_duplicate, allow_unpriced=allow_unpriced)
        except DuplicateRunError as duplicate:
            earlier = find_run(duplicate.run_id)
            if here:
                earlier.refresh()  # its worker may have died with its launcher
            if earlier.interrupted or earlier.state is State.PAUSED:
                earlier.resume()
        yield earlier


def _with_shares(resolved: ResolvedJob, made: Plan, plan: Plan | None) -> Iterator[ResolvedJob]:
    """Yield the job of each run with its share of the budget and of a saved plan's estimate.

    A share is at least the maximum cost of its run; if that is unknown, all shares are equal.
    """
    budget, saved_usd = resolved.job.budget, plan and plan.estimate and plan.estimate.launch_usd
    limits = [budget.usd] if budget else []
    limits += [saved_usd.high] if saved_usd else []
    if not limits or not made.runs:
        yield from resolved.runs
        return
    whole, hours = min(limits), budget and budget.hours
    usd = [each.estimate and each.estimate.launch_usd for each in made.runs]
    highs = [each.high for each in usd if each is not None]
    is_known = len(highs) == len(usd) and sum(highs) > 0
    for at, run in enumerate(resolved.runs):
        least = highs[at] if is_known else Decimal(0)
        share = whole * least / sum(highs) if is_known else whole / len(usd)
        part = TrainingBudget(usd=max(least, share.quantize(CENT, ROUND_FLOOR)), hours=hours)
        yield replace(run, job=run.job.model_copy(update={"budget": part}))
