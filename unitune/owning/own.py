"""What a job's tuned model costs to own, as one document: `own` makes an `Ownership`.

Everything is reckoned for one horizon: the planned months, or fewer where base and tuned model are
switched off before. Nobody is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from itertools import combinations

from unitune import registry
from unitune.cost.estimate import Estimate, estimate
from unitune.cost.ownership import (
    Horizon,
    break_even,
    hit_rate_threshold,
    payback,
)
from unitune.cost.ownership.alternatives import times
from unitune.cost.prices.book import PriceBook
from unitune.cost.prices.staleness import age_findings
from unitune.cost.spread import Spread
from unitune.cost.tokens import counter_for
from unitune.data.split import Splits, load_splits
from unitune.errors import JobError, UserError
from unitune.feasibility import on_its_own_name
from unitune.job import Job
from unitune.owning.columns import NOTHING, Answerer, Pricing, tuned, untuned
from unitune.owning.counted import Counted, count
from unitune.owning.documents import Column, CostAt, Meeting, Ownership
from unitune.owning.measured import measured
from unitune.owning.usage import Profile, profile, says_all_tokens
from unitune.price_specs import PriceRow
from unitune.today import today

VOLUMES = (1_000, 10_000, 100_000, 1_000_000)
"""Requests a month at which costs are told beside the planned ones."""


def own(job: Job, book: PriceBook, *, requests_month: int | None = None) -> Ownership:
    """Say what it costs to own a job's tuned model, against prompting.

    Args:
        job: What is tuned, on which backend, and how it will be used (`usage`).
        book: Prices.
        requests_month: In place of the job's own.

    Raises:
        UnknownName: No installed package brings the backend.
        JobError: The job trains nothing.
        DataError: Its rows cannot be read.
        UserError: The model is switched off already.
    """
    offer = registry.offer(job.backend)
    job = on_its_own_name(job, offer)
    if job.data.train is None:
        raise JobError(
            f"job {job.name!r} names no training rows (data.train), so nothing is tuned."
        )
    horizon = _horizon(job, today())
    splits = load_splits(job)
    used = profile(
        job,
        requests_month=requests_month,
        measured=measured(job),
        counted=None if says_all_tokens(job.usage) else _counted(job, splits),
    )
    once = _once(job, splits, estimate(job, offer, splits.train))
    return _document(job, horizon, used, once, _answerers(job, book, used, once, horizon.begins))


def _horizon(job: Job, day: date) -> Horizon:
    """Return the horizon of the tuned model, which lives no longer than its base."""
    stops = _stops(job.backend, job.base_model)
    horizon = Horizon.of(job.usage.months, day, stops)
    if not horizon.months:
        raise UserError(
            f"{job.base_model} on {job.backend}, and what was tuned from it, is switched off on "
            f"{stops}; today is {day}. Choose another model or backend: unitune backends."
        )
    return horizon


def _stops(backend: str, model: str) -> date | None:
    offered = registry.offer(backend).model(model)
    return offered.stops if offered else None


def _counted(job: Job, splits: Splits) -> Counted:
    offered = registry.offer(job.backend).model(job.base_model)
    aliases = offered.aliases if offered else ()
    return count(job, splits, counter_for(job.base_model, aliases=aliases))


def _answerers(
    job: Job, book: PriceBook, used: Profile, once: _Once, day: date
) -> tuple[Answerer, ...]:
    def pricing(backend: str, model: str) -> Pricing:
        tier = registry.offer(backend).tier(job.options.get(backend, {}))
        return Pricing(book, backend, model, day, tier)

    prompted = untuned("prompted", pricing(job.backend, job.base_model), used.prompted, used)
    ours = tuned(pricing(job.backend, job.base_model), used.tuned, used)
    paid = once.usd(prompted.alternative.request, ours.alternative.request)
    ours = replace(ours, alternative=replace(ours.alternative, once=paid))
    rival = _rival(job)
    if rival is None:
        return prompted, ours
    return prompted, ours, untuned("newest", pricing(*rival), used.rival, used)


def _rival(job: Job) -> tuple[str, str] | None:
    """Return backend and model of the newest untuned model."""
    named = job.usage.rival
    if named is not None:
        return named.backend or job.backend, named.model
    newest = registry.offer(job.backend).newest
    return None if newest is None else (job.backend, newest.model)


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


def _once(job: Job, splits: Splits, priced: Estimate | None) -> _Once:
    return _Once(
        training=_training(job, priced),
        answers=len(splits.test or ()) * job.evaluate.repeats,
        runs=job.usage.runs,
        preparation_usd=job.usage.preparation_usd,
    )


def _training(job: Job, priced: Estimate | None) -> Spread | None:
    if registry.offer(job.backend).training_price == "none":
        return NOTHING
    return priced and Spread(priced.usd_low, priced.usd_expected, priced.usd_high)


def _document(
    job: Job, horizon: Horizon, used: Profile, once: _Once, answerers: tuple[Answerer, ...]
) -> Ownership:
    prompted, ours = answerers[:2]
    volume = Decimal(used.requests_month)
    return Ownership(
        job=job.name,
        backend=job.backend,
        model=job.base_model,
        method=job.method,
        requests_month=used.requests_month,
        horizon=horizon,
        columns=tuple(_column(one, used.requests_month, horizon) for one in answerers),
        break_even=break_even(ours.alternative, prompted.alternative, horizon.months),
        pays_back=payback(ours.alternative, prompted.alternative, volume),
        cache_threshold=hit_rate_threshold(ours.request, prompted.request),
        meetings=tuple(_meetings(answerers, horizon.months)),
        figures=used.figures,
        notes=tuple(dict.fromkeys(_notes(horizon, used, once, answerers))),
        prices=_rows(answerers),
    )


def _column(one: Answerer, requests_month: int, horizon: Horizon) -> Column:
    volumes = sorted({*VOLUMES, requests_month})
    return Column(
        role=one.role,
        backend=one.backend,
        model=one.model,
        stops=_stops(one.backend, one.model),
        request_usd=one.alternative.request,
        month_usd=one.alternative.month,
        once_usd=one.alternative.once,
        total_usd=one.alternative.total(Decimal(requests_month), horizon.months),
        costs=tuple(
            CostAt(
                requests_month=volume,
                usd_month=one.alternative.monthly(Decimal(volume), horizon.months),
            )
            for volume in volumes
        ),
    )


def _meetings(answerers: Iterable[Answerer], months: Decimal) -> Iterator[Meeting]:
    """Yield where any two ways of answering cost the same."""
    for first, second in combinations(answerers, 2):
        found = break_even(first.alternative, second.alternative, months)
        at = found.expected.at if found else None
        usd = first.alternative.monthly(at, months) if at else None
        if at and usd:
            yield Meeting(
                first=first.role, second=second.role, requests_month=at, usd_month=usd.expected
            )


def _notes(
    horizon: Horizon, used: Profile, once: _Once, answerers: Iterable[Answerer]
) -> Iterator[str]:
    if horizon.ends is not None:
        yield (
            f"the model is switched off on {horizon.ends}: {horizon.months:.1f} months are left of "
            f"the {horizon.planned} planned, and nothing pays back after them."
        )
    if once.training is None:
        yield "what a training costs is not known: its price is not, or it is charged by the hour."
    for one in answerers:
        yield from one.notes
        stops = _stops(one.backend, one.model)
        if one.role == "newest" and stops and stops < (horizon.ends or date.max):
            yield f"{one.model} on {one.backend} is switched off on {stops}."
    yield from used.notes
    for finding in age_findings(_rows(answerers), horizon.begins, allow_stale=True):
        yield finding.message


def _rows(answerers: Iterable[Answerer]) -> tuple[PriceRow, ...]:
    """Return the prices that were used, each once."""
    return tuple({row.id: row for one in answerers for row in one.rows}.values())
