"""The ways of answering that are put side by side, priced: prompted, tuned, newest untuned.

Each is looked up in the price book by the day; what no row prices leaves its line unknown. A base
model answers at a price a token and needs no deployment; a tuned one may need one, whose hours are
those of the plan, and all of them at the high end, because one left running costs just that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Literal

from unitune import registry
from unitune.cost.ownership import Alternative, CachingRule, Rates, Request, hours_a_month
from unitune.cost.ownership.alternatives import times
from unitune.cost.prices.book import PriceBook
from unitune.cost.spread import Spread
from unitune.offer import Offer
from unitune.owning.usage import PLAIN, Profile, Tokens
from unitune.price_specs import Kind, PriceRow

Role = Literal["prompted", "tuned", "newest"]
NOTHING = Spread.of(Decimal(0))


@dataclass(frozen=True, slots=True)
class Answerer:
    """A model that answers, with what that costs.

    Args:
        role: Which way of answering it is.
        backend: Who answers.
        model: Its name there; of a tuned model, that of its base.
        request: A usual request.
        alternative: What it costs once, a month and a request.
        rows: The prices that were used.
        notes: What is not known, or was assumed, a sentence each.
    """

    role: Role
    backend: str
    model: str
    request: Request
    alternative: Alternative
    rows: tuple[PriceRow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pricing:
    """Looks prices up and keeps those that it found.

    Args:
        book: All prices.
        backend: Whose.
        model: Of which base.
        on: The day.
        tier: Where it runs; None: where it usually does.
    """

    book: PriceBook
    backend: str
    model: str
    on: date
    tier: str | None = None
    rows: list[PriceRow] = field(default_factory=list[PriceRow])

    def find(self, kind: Kind, *, tuned: bool = False) -> PriceRow | None:
        """Return the row that applies, and keep it; None where the price is unknown."""
        row = self.book.find(
            self.backend, self.model, kind, tier=self.tier, tuned=tuned, on=self.on
        )
        if row is not None and row not in self.rows:
            self.rows.append(row)
        return row

    def rates(self, *, tuned: bool) -> Rates:
        """Return the prices of tokens."""
        return Rates(
            input=self._million("input", tuned=tuned),
            output=self._million("output", tuned=tuned),
            cached_input=self._million("cached-input", tuned=tuned),
        )

    def _million(self, kind: Kind, *, tuned: bool) -> Decimal | None:
        row = self.find(kind, tuned=tuned)
        return row.usd if row is not None and row.per == "million-tokens" else None


def untuned(role: Role, pricing: Pricing, tokens: Tokens, profile: Profile) -> Answerer:
    """Price a model that answers as it is.

    Args:
        role: prompted or newest.
        pricing: Of that model.
        tokens: Of its requests.
        profile: How it is used.
    """
    offer = registry.offer(pricing.backend)
    request = _request(offer, pricing, tokens, profile, tuned=False)
    month, notes = (NOTHING, ()) if not _is_here(offer) else _machine(pricing, profile)
    alternative = Alternative(once=NOTHING, month=month, request=request.usd)
    return Answerer(
        role=role,
        backend=pricing.backend,
        model=pricing.model,
        request=request,
        alternative=alternative,
        rows=tuple(pricing.rows),
        notes=(*_token_notes(pricing, request), *notes),
    )


def tuned(pricing: Pricing, tokens: Tokens, profile: Profile) -> Answerer:
    """Price the tuned model, but for what is paid once.

    Args:
        pricing: Of its base.
        tokens: Of its requests.
        profile: How it is used.
    """
    offer = registry.offer(pricing.backend)
    request = _request(offer, pricing, tokens, profile, tuned=True)
    month, notes = _machine(pricing, profile) if _is_here(offer) else _hosting(pricing, profile)
    return Answerer(
        role="tuned",
        backend=pricing.backend,
        model=pricing.model,
        request=request,
        alternative=Alternative(once=None, month=month, request=request.usd),
        rows=tuple(pricing.rows),
        notes=(*_token_notes(pricing, request), *notes),
    )


def _request(
    offer: Offer, pricing: Pricing, tokens: Tokens, profile: Profile, *, tuned: bool
) -> Request:
    """Return a usual request; on one's own machine a token costs nothing."""
    serving = offer.serving_of(pricing.model)
    caching = serving.caching if serving else None
    reasons = serving is not None and serving.reasons and not tokens.hidden
    return Request(
        prompt=tokens.prompt,
        answer=tokens.answer,
        rates=Rates(Decimal(0), Decimal(0)) if _is_here(offer) else pricing.rates(tuned=tuned),
        shared=tokens.shared,
        caching=caching
        and CachingRule(caching.minimum_tokens, caching.step_tokens, caching.write_factor),
        hit_rate=profile.hit_rate,
        reasoning=profile.reasoning if reasons else PLAIN,
    )


def _is_here(offer: Offer) -> bool:
    """Whether it runs on the user's own machine."""
    return offer.training_price == "none"


def _machine(pricing: Pricing, profile: Profile) -> tuple[Spread, tuple[str, ...]]:
    """Return what a machine of one's own costs a month, where an hour of it has a price."""
    row = pricing.find("machine")
    if row is None:
        note = (
            f"{pricing.backend} makes no charge, and an hour of the machine has no price: set one "
            "as machine in prices.yaml to reckon with it."
        )
        return NOTHING, (note,)
    return _by_the_hour(row, profile), ()


def _hosting(pricing: Pricing, profile: Profile) -> tuple[Spread | None, tuple[str, ...]]:
    """Return hosting and storage of a tuned model a month; None where hosting has no price."""
    hosting, storage = pricing.find("hosting"), pricing.find("storage")
    if hosting is None:
        note = (
            f"no price is known for hosting a tuned {pricing.model} on {pricing.backend}; hosting "
            "in prices.yaml sets it, 0 where none is charged."
        )
        return None, (note,)
    month = Spread.of(hosting.usd) if hosting.per == "month" else _by_the_hour(hosting, profile)
    if storage is not None and storage.per == "month":
        return month + Spread.of(storage.usd), ()
    if storage is not None:
        return month, (
            f"storage is charged by {storage.per} and not counted: its size is unknown.",
        )
    return month, ()


def _by_the_hour(row: PriceRow, profile: Profile) -> Spread:
    """Return a month of an hourly price: the planned hours, and all of them at the high end."""
    always = hours_a_month(Decimal(24))
    planned = Spread(profile.hosting_hours, profile.hosting_hours, always)
    return times(planned, row.usd)


def _token_notes(pricing: Pricing, request: Request) -> Iterator[str]:
    named = f"{pricing.model} on {pricing.backend}"
    lacking = [
        name
        for name, usd in (("input", request.rates.input), ("output", request.rates.output))
        if usd is None
    ]
    if lacking:
        yield f"no price is known for {' and '.join(lacking)} of {named}; prices.yaml can name it."
    elif request.rates.cached_input is not None and request.caching is None:
        yield f"how {named} caches prompts is not known; nothing is reckoned as cached."
    elif request.shared and request.caching and not request.cached_tokens:
        yield (
            f"what prompts to {named} share, {request.shared:,} tokens, is too short for its cache."
            if request.rates.cached_input is not None
            else f"no price is known for cached input of {named}; nothing is reckoned as cached."
        )
