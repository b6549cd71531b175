"""The runs of a sweep, each launched once: `launch_sweep`.

What its runs cost together is held against every budget before the first of them is launched. Each
run then gets its share of the job's budget, by what it may cost at most, so that the runs together
keep to it whatever becomes of each. A run that goes on or is done is not launched again, so the
same call goes on where a killed one stopped. On this machine a run waits for the one before.
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

    What would be refused is refused before the first of them. A run that goes on or is done is
    given as it is, an interrupted launch is finished, a paused training goes on, and one that
    failed is launched anew.

    Examples:
        >>> runs = list(unitune.launch_sweep(job, budget=20))
        >>> print(unitune.compare(job).verdict)  # of the run that is best on validation rows

    Args:
        job: With lists of values under `tuning`; without, its only run is launched.
        budget: The most that all runs together may cost, in US dollars; None: as the job says.
        allow_duplicate: Launch every run anew, whatever is there.
        allow_unpriced: Train even if prices are not known, whatever the budget says.
        plan: A saved one, which must still hold.

    Returns:
        The runs, each when it is launched, in the order of the lists, the last changing fastest. On
        this machine the next is launched when the one before has come to rest.

    Raises:
        UnituneError: As of `unitune.launch`.
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
                earlier.refresh()  # its worker may have been killed with whoever launched it
            if earlier.interrupted or earlier.state is State.PAUSED:
                earlier.resume()
        yield earlier


def _with_shares(resolved: ResolvedJob, made: Plan, plan: Plan | None) -> Iterator[ResolvedJob]:
    """Yield the job of each run, with its share of the budget and of what a saved plan allows.

    Together they may cost no more than that, so a share is at least what its run may cost; where
    that is not known, all shares are equal.
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
