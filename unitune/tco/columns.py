"""The ways of answering that are put side by side, priced: prompted, tuned, newest untuned.

Each is looked up in the price book by the day; what no row prices leaves its line unknown. A base
model answers at a price a token and needs no deployment; a tuned one may need one, whose hours are
those of the plan, and all of them at the high end, because one left running costs just that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal

from unitune.cost.break_even import ServingCost, times
from unitune.cost.spread import Spread
from unitune.job.prices import PriceRow
from unitune.tco.horizon import hours_a_month
from unitune.tco.pricing import Pricing
from unitune.tco.request import CachingRule, Rates, Request
from unitune.tco.usage import PLAIN, Profile, Tokens

Role = Literal["prompted", "tuned", "newest"]
NOTHING = Spread.of(Decimal(0))


@dataclass(frozen=True, slots=True)
class ServingOption:
    """A model that answers, with what that costs.

    Args:
        role: Which way of answering it is.
        backend: Who answers.
        model: Its name there; of a tuned model, that of its base.
        retires_on: Day on which it is switched off, where one is announced.
        request: A usual request.
        cost: What it costs once, a month and a request.
        rows: The prices that were used.
        notes: What is not known, or was assumed, a sentence each.
    """

    role: Role
    backend: str
    model: str
    retires_on: date | None
    request: Request
    cost: ServingCost
    rows: tuple[PriceRow, ...]
    notes: tuple[str, ...]


def untuned(role: Role, pricing: Pricing, tokens: Tokens, profile: Profile) -> ServingOption:
    """Price a model that answers as it is.

    Args:
        role: prompted or newest.
        pricing: Of that model.
        tokens: Of its requests.
        profile: How it is used.
    """
    request = _request(pricing, tokens, profile, tuned=False)
    month, notes = _machine(pricing, profile) if _is_here(pricing) else (NOTHING, ())
    cost = ServingCost(once=NOTHING, month=month, request=request.usd)
    return ServingOption(
        role=role,
        backend=pricing.backend,
        model=pricing.model,
        retires_on=pricing.retires_on,
        request=request,
        cost=cost,
        rows=tuple(pricing.rows),
        notes=(*_token_notes(pricing, request, tuned=False), *notes),
    )


def tuned(pricing: Pricing, tokens: Tokens, profile: Profile) -> ServingOption:
    """Price the tuned model, but for what is paid once.

    Args:
        pricing: Of its base.
        tokens: Of its requests.
        profile: How it is used.
    """
    request = _request(pricing, tokens, profile, tuned=True)
    month, notes = _machine(pricing, profile) if _is_here(pricing) else _hosting(pricing, profile)
    return ServingOption(
        role="tuned",
        backend=pricing.backend,
        model=pricing.model,
        retires_on=pricing.retires_on,
        request=request,
        cost=ServingCost(once=None, month=month, request=request.usd),
        rows=tuple(pricing.rows),
        notes=(*_token_notes(pricing, request, tuned=True), *notes),
    )


def _request(pricing: Pricing, tokens: Tokens, profile: Profile, *, tuned: bool) -> Request:
    """Return a usual request; on one's own machine a token costs nothing but its hours."""
    serving = pricing.offer.serving_of(pricing.model)
    caching = serving.caching if serving else None
    reasons = serving is not None and serving.reasons and not tokens.hidden
    return Request(
        prompt=tokens.prompt,
        answer=tokens.answer,
        rates=_rates_here(pricing) if _is_here(pricing) else pricing.rates(tuned=tuned),
        shared=tokens.shared,
        caching=caching
        and CachingRule(caching.minimum_tokens, caching.step_tokens, caching.write_factor),
        hit_rate=profile.hit_rate,
        reasoning=profile.reasoning if reasons else PLAIN,
    )


def _rates_here(pricing: Pricing) -> Rates:
    """Return the rates of one's own machine, which is paid by the hour, if its price is known."""
    nothing = None if pricing.find("machine") is None else Decimal(0)
    return Rates(nothing, nothing)


def _is_here(pricing: Pricing) -> bool:
    """Whether it runs on the user's own machine."""
    return pricing.offer.training_price == "none"


def _machine(pricing: Pricing, profile: Profile) -> tuple[Spread | None, tuple[str, ...]]:
    """Return what a machine of one's own costs a month; None where an hour of it has no price."""
    row = pricing.find("machine")
    if row is None:
        note = (
            f"{pricing.backend} makes no charge, and what an hour of the machine costs is not "
            f"known: --price {pricing.backend}:machine=0.85 or machine in prices.yaml says it, 0 "
            "where nothing is to be reckoned."
        )
        return None, (note,)
    note = "one machine is reckoned with, whatever the volume and however long the prompts."
    return _by_the_hour(row, profile), (note,)


def _hosting(pricing: Pricing, profile: Profile) -> tuple[Spread | None, tuple[str, ...]]:
    """Return hosting and storage of a tuned model a month; None where hosting has no price."""
    hosting, storage = pricing.hosting(), pricing.find("storage")
    if hosting is None:
        where = f"{pricing.backend}{f' ({pricing.tier})' if pricing.tier else ''}"
        note = (
            f"no price is known for hosting a tuned {pricing.model} on {where}; hosting in "
            "prices.yaml sets it, 0 where none is charged."
        )
        return None, (note,)
    cheap, dear = hosting
    month = _between(_a_month(cheap, profile), _a_month(dear, profile))
    notes = _machine_notes(cheap, dear)
    if storage is not None and storage.per == "month":
        return month + Spread.of(storage.usd), notes
    if storage is not None:
        notes += (f"storage is charged by {storage.per} and not counted: its size is unknown.",)
    return month, notes


def _a_month(row: PriceRow, profile: Profile) -> Spread:
    return Spread.of(row.usd) if row.per == "month" else _by_the_hour(row, profile)


def _between(cheap: Spread, dear: Spread) -> Spread:
    """Return the range of both; the cheap one is what is expected."""
    return Spread(cheap.low, cheap.expected, max(cheap.high, dear.high))


def _machine_notes(cheap: PriceRow, dear: PriceRow) -> tuple[str, ...]:
    if cheap == dear:
        return ()
    note = (
        f"hosting depends on the machine: from ${cheap.usd:f} a {cheap.per} ({cheap.tier}), which "
        f"is expected, to ${dear.usd:f} ({dear.tier}); one is reckoned with, whatever the volume."
    )
    return (note,)


def _by_the_hour(row: PriceRow, profile: Profile) -> Spread:
    """Return a month of an hourly price: the planned hours, and all of them at the high end."""
    always = hours_a_month(Decimal(24))
    planned = Spread(profile.hosting_hours, profile.hosting_hours, always)
    return times(planned, row.usd)


def _token_notes(pricing: Pricing, request: Request, *, tuned: bool) -> Iterator[str]:
    where = f"{pricing.backend}{f' ({pricing.tier})' if pricing.tier else ''}"
    named = f"{'a tuned ' if tuned else ''}{pricing.model} on {where}"
    prices = (("input", request.rates.input), ("output", request.rates.output))
    if _is_here(pricing):
        return
    if lacking := [name for name, usd in prices if usd is None]:
        yield f"no price is known for {' and '.join(lacking)} of {named}; prices.yaml can name it."
    elif tuned or request.caches:
        return
    elif request.caching is None and request.rates.cached_input is not None:
        yield f"how {named} caches prompts is not known; nothing is reckoned as cached."
    elif request.caching is not None and request.rates.cached_input is None:
        yield f"no price is known for cached input of {named}; nothing is reckoned as cached."
    elif request.caching is not None and request.shared.expected:
        yield (
            f"{named} caches from {request.caching.minimum_tokens:,} tokens on; the "
            f"{request.shared.expected:,} that prompts share are fewer."
        )
