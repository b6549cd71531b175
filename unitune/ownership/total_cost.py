"""Compute the total cost of ownership of a job's tuned model, without calling a vendor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from decimal import Decimal

from unitune.backends.capabilities import StoredModel, Stores
from unitune.cost.break_even import break_even, payback
from unitune.cost.estimate import HOURS_A_MONTH
from unitune.cost.prices.book import PriceBook, PriceLookup, book_for
from unitune.cost.prices.refresh import age_findings
from unitune.cost.spread import WIDE, Spread
from unitune.cost.tokens import counter_for
from unitune.data.check import read_job
from unitune.errors import JobError, MissingExtra, UnituneError, Unsupported, UserError
from unitune.job.job import Job
from unitune.job.tuning import Alternative
from unitune.ownership.serving import Column, Horizon, Serving, TotalCost, TotalCostList, serving
from unitune.ownership.tokens import Tokens, count, measured, says_all_tokens, use_of
from unitune.planning.feasibility import proposed_bases
from unitune.planning.money import estimated
from unitune.planning.preflight import ResolvedJob, preflight, refuse
from unitune.planning.rows import Rows
from unitune.workspace.user_settings import today

# Requests per month that are shown in addition to the planned ones
VOLUMES = (1_000, 10_000, 100_000, 1_000_000)
SMALLEST = Decimal("0.000001")  # US dollars


def total_costs(
    job: Job,
    backends: Iterable[str],
    *,
    requests_month: int | None,
    only_launchable: bool,
) -> TotalCostList:
    """Return the total cost of ownership of a job's tuned model on several backends.

    With `only_launchable`, leave out backends on which the job cannot be launched, and use the
    closest base model if the job names none.

    Raises:
        UnituneError: No backend has a total cost; gives the reason of the first.
    """
    costs: list[TotalCost] = []
    refused: list[tuple[str, UnituneError]] = []
    rows, book = Rows(read_job(job)), book_for(job)
    for name in backends:
        moved = job.with_backend(name)
        try:
            offer = book.offer(name)
            if offer.closed is not None and today() >= offer.closed.by:
                raise Unsupported(offer.unavailable)
            if only_launchable and (bases := proposed_bases(moved, book)):
                moved = moved.model_copy(update={"model": bases[0]})
            resolved = preflight(moved, book=book, rows=rows)
            if only_launchable:
                refuse(resolved.offer_findings)
            costs.append(total_cost(resolved, requests_month=requests_month))
        except UnituneError as problem:
            refused.append((name, problem))
    if not costs and refused:
        raise refused[0][1]
    left_out = {name: str(problem) for name, problem in refused}
    return TotalCostList(backends=tuple(costs), left_out=left_out)


def total_cost(
    job: Job | ResolvedJob, book: PriceBook | None = None, *, requests_month: int | None = None
) -> TotalCost:
    """Return the total cost of ownership of a job's tuned model, compared with prompting.

    Args:
        job: What is tuned, on which backend, and how it will be used (`usage`).
        book: Prices; by default those of the job's folder.
        requests_month: Overrides the job's requests per month.

    Raises:
        NotFoundError: No installed package provides the backend.
        JobError: The job trains nothing.
        DataError: The job's rows cannot be read.
        UserError: The model is already switched off.
    """
    resolved = preflight(job, book=book)
    job, usage = resolved.job, resolved.job.usage
    if job.data.train is None:
        raise JobError(f"job {job.name!r} has no training rows (data.train), so nothing is tuned.")
    horizon, alternative = _horizon(resolved), usage.alternative
    if alternative is None and resolved.offer.newest is not None:
        alternative = Alternative(model=resolved.offer.newest.model)
    counted = Tokens({}) if says_all_tokens(usage) else _counted(resolved)
    known = measured(job, alternative and alternative.model, counted.shared_tuned)
    use = use_of(job, known, counted, requests_month)
    options = [
        serving("prompted", _lookup(resolved), use.requests["prompted"], usage),
        serving("tuned", _lookup(resolved), use.requests["tuned"], usage),
    ]
    if alternative is not None:
        prices = _lookup(resolved, alternative)
        options.append(serving("newest", prices, use.requests["newest"], usage))
    training = _training_usd(resolved)
    once = _paid_once(resolved, training, [each.cost.request_usd for each in options[:2]])
    costs = [options[0].cost, options[1].cost.model_copy(update={"once_usd": once})]
    options[1] = options[1]._replace(cost=costs[1])
    volume = usage.requests_month if requests_month is None else requests_month
    columns = tuple(_column(option, volume, horizon) for option in options)
    rows = tuple({row.id: row for each in options for row in each.prices.used.values()}.values())
    notes = (
        *_limits(resolved, horizon, training),
        *(note for option in options for note in option.notes),
        *(
            f"{newest.model} on {newest.backend} is switched off on {newest.retires_on}."
            for newest in columns[2:]
            if newest.retires_on
        ),
        *use.notes,
        *(each.message for each in age_findings(rows, horizon.begins, allow_stale=True)),
    )
    prompted, tuned = use.requests["prompted"], use.requests["tuned"]
    return TotalCost(
        job=job.name,
        backend=job.backend,
        model=job.base_model,
        method=job.method,
        requests_month=volume,
        prompted_tokens=prompted.prompt.expected + prompted.answer.expected,
        tuned_tokens=tuned.prompt.expected + tuned.answer.expected,
        horizon=horizon,
        columns=columns,
        break_even=break_even(costs[1], costs[0], horizon.months),
        pays_back=payback(costs[1], costs[0], Decimal(volume)),
        figures=use.figures,
        notes=tuple(dict.fromkeys(notes)),
        prices=rows,
    )


def _horizon(resolved: ResolvedJob) -> Horizon:
    job, begins, planned = resolved.job, today(), resolved.job.usage.months
    ends = resolved.terms.model.retires_on if resolved.terms.model else None
    left = Decimal((ends - begins).days) * 24 / HOURS_A_MONTH if ends else Decimal(planned)
    if left <= 0:
        raise UserError(
            f"{job.base_model} on {job.backend} and models tuned from it were switched off on "
            f"{ends} (today is {begins}). Choose another model or backend: unitune backends."
        )
    if left >= planned:
        return Horizon(months=Decimal(planned), planned=planned, begins=begins)
    return Horizon(months=left, planned=planned, begins=begins, ends=ends)


def _training_usd(resolved: ResolvedJob) -> Spread | None:
    """Return the price of a training. On the user's own machine, the monthly cost covers it."""
    if resolved.offer.training_price != "none":
        return estimated(resolved).launch_usd
    return Spread.of(Decimal(0)) if _lookup(resolved).find("machine") else None


def _counted(resolved: ResolvedJob) -> Tokens:
    """Count the requests, with the tokenizers of models that the backend stores on this machine."""
    stored: list[StoredModel] = []
    if resolved.offer.is_own:
        with suppress(MissingExtra):
            stored = resolved.backend.stored() if isinstance(resolved.backend, Stores) else []
    counter = counter_for(resolved.job.base_model, stored, aliases=resolved.terms.aliases)
    return count(resolved.job, resolved.splits, counter)


def _lookup(resolved: ResolvedJob, alternative: Alternative | None = None) -> PriceLookup:
    job, book = resolved.job, resolved.book
    backend = (alternative and alternative.backend) or job.backend
    model = alternative.model if alternative else job.base_model
    return PriceLookup(book, backend, model, today()).with_options(job)


def _paid_once(
    resolved: ResolvedJob, training: Spread | None, requests: Sequence[Spread | None]
) -> Spread | None:
    """Return the cost before the first request: R (training + N r (k + k')) + preparation.

    R trainings in US dollars, each evaluated on N cases, r times each, at k and k' a request. None
    if a part is unknown.
    """
    job = resolved.job
    answers = len(resolved.splits.test or ()) * job.evaluate.repeats
    known = [usd for usd in requests if usd is not None]
    if training is None or (answers and len(known) < len(requests)):
        return None
    judged = training + Spread.total(known).scaled(Decimal(answers))
    return judged.scaled(Decimal(job.usage.runs)) + Spread.of(job.usage.preparation_usd)


def _column(option: Serving, requests_month: int, horizon: Horizon) -> Column:
    prices, cost, months = option.prices, option.cost, horizon.months
    offered = prices.book.offer(prices.backend).model(prices.model)
    return Column(
        role=option.role,
        backend=prices.backend,
        model=prices.model,
        retires_on=offered.retires_on if offered else None,
        request_usd=cost.request_usd,
        month_usd=_rounded(cost.month_usd),
        once_usd=_rounded(cost.once_usd),
        total_usd=_rounded(cost.total(Decimal(requests_month), months)),
        by_volume_usd={
            volume: _rounded(cost.monthly(Decimal(volume), months))
            for volume in sorted({*VOLUMES, requests_month})
        },
    )


def _rounded(usd: Spread | None) -> Spread | None:
    """Return an amount rounded to a ten-thousandth of a cent, which removes repeating decimals."""
    if usd is None:
        return None
    ends = (usd.low, usd.expected, usd.high)
    return Spread(*(end.quantize(SMALLEST, context=WIDE) for end in ends))


def _limits(resolved: ResolvedJob, horizon: Horizon, training: Spread | None) -> Iterator[str]:
    for finding in resolved.offer_findings:
        if finding.severity == "error":
            yield f"the job cannot be launched there: {finding.message}"
    if horizon.ends is not None:
        yield (
            f"the model is retired on {horizon.ends}, so only {horizon.months:.1f} of the "
            f"{horizon.planned} planned months are left for a break-even."
        )
    if training is None:
        yield (
            "the cost of a training is unknown: it has no price, the machine's hourly price is "
            "missing, or it is charged by the hour. Set it with --price or in prices.yaml."
        )
