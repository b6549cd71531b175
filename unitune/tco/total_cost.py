"""Total cost of ownership of a job's tuned model, as one document: `TotalCost`.

Everything is reckoned for one horizon: the planned months, or fewer where base and tuned model are
switched off before. Nobody is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from itertools import combinations

from unitune.backends import registry
from unitune.backends.capabilities import StoredModel, Stores
from unitune.backends.offer import Offer
from unitune.cost.break_even import break_even, payback, times
from unitune.cost.prices.book import PriceBook
from unitune.cost.prices.staleness import age_findings
from unitune.cost.spread import WIDE, Spread
from unitune.cost.tokens import counter_for
from unitune.data.check import read_job
from unitune.data.split import Splits
from unitune.errors import JobError, UnituneError, UserError
from unitune.findings import Finding
from unitune.job.job import Job
from unitune.job.prices import PriceRow
from unitune.job.usage import Alternative
from unitune.planning.plan import training_usd
from unitune.planning.preflight import ResolvedJob, Rows, preflight
from unitune.tco.billed import Billed, billed
from unitune.tco.columns import ServingOption, tuned, untuned
from unitune.tco.counted import Counted, count
from unitune.tco.documents import BreakEven, Column, CostAt, LeftOut, TotalCost, TotalCostList
from unitune.tco.horizon import Horizon
from unitune.tco.measured import measured
from unitune.tco.pricing import Pricing
from unitune.tco.request import hit_rate_threshold
from unitune.tco.usage import Profile, profile, says_all_tokens
from unitune.workspace.today import today

VOLUMES = (1_000, 10_000, 100_000, 1_000_000)
"""Requests a month at which costs are told beside the planned ones."""
SMALLEST = Decimal("0.000001")
"""US dollars."""


def total_costs(
    job: Job, backends: Iterable[str], *, requests_month: int | None = None
) -> TotalCostList:
    """Return the total cost of ownership of a job's tuned model on each of several backends.

    Args:
        job: What is tuned, and how it will be used.
        backends: Their names; where nothing can be said of one, it is left out with the reason.
        requests_month: In place of the job's own.

    Raises:
        UnituneError: Nothing can be said of any; the reason of the first.
    """
    found: list[TotalCost] = []
    refused: list[tuple[str, UnituneError]] = []
    rows = Rows(read_job(job))
    for name in backends:
        try:
            found.append(
                total_cost(
                    preflight(job.with_backend(name), rows=rows), requests_month=requests_month
                )
            )
        except UnituneError as problem:
            refused.append((name, problem))
    if not found and refused:
        raise refused[0][1]
    left_out = tuple(LeftOut(backend=name, reason=str(problem)) for name, problem in refused)
    return TotalCostList(backends=tuple(found), left_out=left_out)


def total_cost(
    job: Job | ResolvedJob, book: PriceBook | None = None, *, requests_month: int | None = None
) -> TotalCost:
    """Return the total cost of ownership of a job's tuned model, against prompting.

    Args:
        job: What is tuned, on which backend, and how it will be used (`usage`).
        book: Prices; None: those that hold where the job stands.
        requests_month: In place of the job's own.

    Raises:
        NotFoundError: No installed package brings the backend.
        JobError: The job trains nothing.
        DataError: Its rows cannot be read.
        UserError: The model is switched off already.
    """
    resolved = preflight(job, book=book)
    job, offer, book = resolved.job, resolved.offer, resolved.book
    if job.data.train is None:
        raise JobError(
            f"job {job.name!r} names no training rows (data.train), so nothing is tuned."
        )
    horizon = _horizon(job, offer, today())
    splits = resolved.splits
    alternative = _alternative(job, offer)
    used = profile(
        job,
        alternative=alternative and alternative.model,
        requests_month=requests_month,
        measured=measured(job),
        counted=None if says_all_tokens(job.usage) else _counted(job, offer, splits),
    )
    bill = billed(resolved)
    once = _once(resolved, bill)
    answerers = _answerers(_pricings(job, book, horizon.begins, alternative), used, once)
    notes = (
        *_refusals(resolved.offer_findings),
        *_limits(horizon, once),
        *([f"a training has cost ${bill.usd:f}, as run {bill.run} was billed."] if bill else ()),
        *(note for one in answerers for note in _told(one)),
        *used.notes,
        *_ages(answerers, horizon.begins),
    )
    return _document(job, horizon, used, answerers, notes)


def _horizon(job: Job, offer: Offer, day: date) -> Horizon:
    """Return the horizon of the tuned model, which lives no longer than its base."""
    offered = offer.model(job.base_model)
    retires_on = offered.retires_on if offered else None
    horizon = Horizon.of(job.usage.months, day, retires_on)
    if not horizon.months:
        raise UserError(
            f"{job.base_model} on {job.backend}, and what was tuned from it, is switched off on "
            f"{retires_on}; today is {day}. Choose another model or backend: unitune backends."
        )
    return horizon


def _alternative(job: Job, offer: Offer) -> Alternative | None:
    """Return the newest untuned model: the job's choice, else the offer's."""
    if job.usage.alternative is None and offer.newest is not None:
        return Alternative(model=offer.newest.model)
    return job.usage.alternative


def _counted(job: Job, offer: Offer, splits: Splits) -> Counted:
    offered = offer.model(job.base_model)
    aliases = offered.aliases if offered else ()
    return count(job, splits, counter_for(job.base_model, _stored(offer), aliases=aliases))


def _stored(offer: Offer) -> list[StoredModel]:
    """Return the models that a backend keeps on this machine: they bring their tokenizers."""
    if offer.training_price != "none" or registry.missing_packages(offer.name):
        return []
    backend = registry.backend(offer.name)
    return backend.stored() if isinstance(backend, Stores) else []


def _pricings(
    job: Job, book: PriceBook, day: date, alternative: Alternative | None
) -> tuple[Pricing, ...]:
    """Return who is priced: the base, the base again as tuned, and the alternative."""
    names = [(job.backend, job.base_model)] * 2
    names += [(alternative.backend or job.backend, alternative.model)] if alternative else []
    return tuple(
        Pricing(book, backend, model, day, book.offer(backend).tier(job.options.get(backend, {})))
        for backend, model in names
    )


def _answerers(
    pricings: tuple[Pricing, ...], used: Profile, once: _Once
) -> tuple[ServingOption, ...]:
    base, again, *alternatives = pricings
    prompted = untuned("prompted", base, used.prompted, used)
    ours = tuned(again, used.tuned, used)
    paid = once.usd(prompted.cost.request, ours.cost.request)
    ours = replace(ours, cost=replace(ours.cost, once=paid))
    return prompted, ours, *(untuned("newest", one, used.alternative, used) for one in alternatives)


@dataclass(frozen=True, slots=True)
class _Once:
    """What is paid before the first request: R (training + N r (k + k')) + preparation.

    Args:
        training: Of one training; None: its price is not known.
        answers: Answers of each side that judging it asks for: N cases, r times each.
        runs: Trainings R, each of which is judged.
        preparation_usd: What the rows cost.
    """

    training: Spread | None
    answers: int
    runs: int
    preparation_usd: Decimal

    def usd(self, *requests: Spread | None) -> Spread | None:
        """Return the sum; None where a part is not known.

        Args:
            requests: What a request costs to each side that is judged.
        """
        known = [one for one in requests if one is not None]
        if self.training is None or (len(known) < len(requests) and self.answers):
            return None
        judging = times(Spread.total(known), Decimal(self.answers))
        paid = times(self.training + judging, Decimal(self.runs))
        return paid + Spread.of(self.preparation_usd)


def _once(resolved: ResolvedJob, bill: Billed | None) -> _Once:
    job, splits = resolved.job, resolved.splits
    training = training_usd(resolved) if bill is None else Spread.of(bill.usd)
    here = resolved.offer.training_price == "none"
    if here and resolved.book.find(job.backend, job.base_model, "machine", on=today()) is None:
        training = None  # its hours are the machine's, and nobody has said what those cost
    return _Once(
        training=training,
        answers=len(splits.test or ()) * job.evaluate.repeats,
        runs=job.usage.runs,
        preparation_usd=job.usage.preparation_usd,
    )


def _document(
    job: Job,
    horizon: Horizon,
    used: Profile,
    answerers: tuple[ServingOption, ...],
    notes: tuple[str, ...],
) -> TotalCost:
    prompted, ours = answerers[:2]
    volume = Decimal(used.requests_month)
    return TotalCost(
        job=job.name,
        backend=job.backend,
        model=job.base_model,
        method=job.method,
        requests_month=used.requests_month,
        horizon=horizon,
        columns=tuple(_column(one, used.requests_month, horizon) for one in answerers),
        break_even=break_even(ours.cost, prompted.cost, horizon.months),
        pays_back=payback(ours.cost, prompted.cost, volume),
        cache_threshold=hit_rate_threshold(ours.request, prompted.request),
        meetings=tuple(_meetings(answerers, horizon.months)),
        figures=used.figures,
        notes=tuple(dict.fromkeys(notes)),
        prices=_rows(answerers),
    )


def _column(one: ServingOption, requests_month: int, horizon: Horizon) -> Column:
    volumes = sorted({*VOLUMES, requests_month})
    return Column(
        role=one.role,
        backend=one.backend,
        model=one.model,
        retires_on=one.retires_on,
        request_usd=one.cost.request,
        month_usd=_rounded(one.cost.month),
        once_usd=_rounded(one.cost.once),
        total_usd=_rounded(one.cost.total(Decimal(requests_month), horizon.months)),
        costs=tuple(
            CostAt(
                requests_month=volume,
                usd_month=_rounded(one.cost.monthly(Decimal(volume), horizon.months)),
            )
            for volume in volumes
        ),
    )


def _rounded(usd: Spread | None) -> Spread | None:
    """Return an amount as it is told: beyond a ten-thousandth of a cent there are only thirds."""
    if usd is None:
        return None
    ends = (usd.low, usd.expected, usd.high)
    return Spread(*(end.quantize(SMALLEST, context=WIDE) for end in ends))


def _meetings(answerers: Iterable[ServingOption], months: Decimal) -> Iterator[BreakEven]:
    """Yield where any two ways of answering cost the same."""
    for first, second in combinations(answerers, 2):
        found = break_even(first.cost, second.cost, months)
        at = found.expected.at if found else None
        usd = first.cost.monthly(at, months) if at else None
        if at and usd:
            yield BreakEven(
                first=first.role, second=second.role, requests_month=at, usd_month=usd.expected
            )


def _refusals(findings: Iterable[Finding]) -> Iterator[str]:
    for finding in findings:
        if finding.severity == "error":
            yield f"it cannot be launched there: {finding.message}"


def _limits(horizon: Horizon, once: _Once) -> Iterator[str]:
    if horizon.ends is not None:
        yield (
            f"the model is switched off on {horizon.ends}: {horizon.months:.1f} months are left of "
            f"the {horizon.planned} planned, and nothing pays back after them."
        )
    if once.training is None:
        yield (
            "what a training costs is not known: its price is not, or that of the machine's hours, "
            "or it is charged by the hour. --price and prices.yaml name one."
        )


def _told(one: ServingOption) -> Iterator[str]:
    yield from one.notes
    if one.role == "newest" and one.retires_on:
        yield f"{one.model} on {one.backend} is switched off on {one.retires_on}."


def _ages(answerers: Iterable[ServingOption], day: date) -> Iterator[str]:
    for finding in age_findings(_rows(answerers), day, allow_stale=True):
        yield finding.message


def _rows(answerers: Iterable[ServingOption]) -> tuple[PriceRow, ...]:
    """Return the prices that were used, each once."""
    return tuple({row.id: row for one in answerers for row in one.rows}.values())
