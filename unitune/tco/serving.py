"""Price the requests and the hosting of a model.

A request costs its tokens, with a cache that holds the beginning of the prompt. Prices are those of
the day; what no row prices is unknown. A base model answers at a price a token and needs no
deployment; a tuned one may need one, whose hours are those of the plan, and all hours at the high
end, because a deployment that is left running costs that much.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import NamedTuple

from unitune.backends.offer import Caching
from unitune.backends.output_limit import REASONING
from unitune.cost.break_even import ServingCost
from unitune.cost.estimate import HOURS_A_MONTH, machine_assumptions, standing_usd
from unitune.cost.prices.book import PriceLookup
from unitune.cost.spread import MILLION, Spread
from unitune.cost.tokens import Count
from unitune.job.tuning import Usage
from unitune.tco.documents import Role

NO_REASONING = (Decimal(1), Decimal(1), Decimal(1))
NOTHING = Spread.of(Decimal(0))
# Ends of the range beside the expected rate: some requests always come first, or after the vendor
# has forgotten the prompt; and traffic may be so thin that none finds it.
BEST_HIT_RATE, WORST_HIT_RATE = Decimal("0.95"), Decimal(0)
USUAL_HIT_RATE = Decimal("0.5")  # the middle of the range, where nothing is known


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices of a model's tokens, in US dollars a million; None is unknown.

    Output includes hidden reasoning. Where cached input has no price, nothing counts as cached.
    """

    input: Decimal | None = None
    output: Decimal | None = None
    cached_input: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """An average request to a model, in tokens, and what prices it."""

    prompt: Count
    answer: Count
    rates: Rates = field(default_factory=Rates)
    shared: Count = field(default_factory=Count)  # beginning of the prompt that all requests share
    caching: Caching | None = None  # None: not known, and nothing counts as cached
    hit_rate: Decimal = Decimal(0)  # share of requests, 0 to 1, whose beginning is in the cache
    reasoning: tuple[Decimal, Decimal, Decimal] = NO_REASONING  # factors of the billed answer
    shows_all: bool = False  # whether hidden reasoning is in the answer, because a vendor counted

    @property
    def caches(self) -> bool:
        """Whether a cache holds anything of the expected prompt, at a known price."""
        return self._cached(self.prompt.expected, self.shared.expected) > 0

    @property
    def usd(self) -> Spread | None:
        """US dollars; None where a price is not known.

        The range spans few and many tokens, each at the best, the expected and the worst hit rate:
        a prompt just long enough for the cache may cost less than a shorter one.
        """
        if self.rates.input is None or self.rates.output is None:
            return None
        least, usual, most = self.reasoning
        sizes = (
            (self.prompt.low, self.shared.low, self.answer.low * least),
            (self.prompt.expected, self.shared.expected, self.answer.expected * usual),
            (self.prompt.high, self.shared.high, self.answer.high * most),
        )
        rates = (max(self.hit_rate, BEST_HIT_RATE), self.hit_rate, WORST_HIT_RATE)
        ends = [self._at(*size, rate) for size in sizes for rate in rates]
        return Spread(min(ends), self._at(*sizes[1], self.hit_rate), max(ends))

    def _at(self, prompt: int, shared: int, answer: Decimal, hit_rate: Decimal) -> Decimal:
        """Return [(P - C) i + h C c + (1 - h) C w i + O o] / 1,000,000.

        P prompt, O answer, C tokens that the cache holds, h hit rate; i, o, c prices of input,
        output and cached input; w the factor of writing. With w = 1 it is (P - hC) i + hCc + Oo.
        """
        assert self.rates.input is not None
        assert self.rates.output is not None
        cached = self._cached(prompt, shared)
        usd = (prompt - cached) * self.rates.input + answer * self.rates.output
        if cached and self.caching is not None and self.rates.cached_input is not None:
            read = hit_rate * self.rates.cached_input
            written = (1 - hit_rate) * self.caching.write_factor * self.rates.input
            usd += cached * (read + written)
        return usd / MILLION

    def _cached(self, prompt: int, shared: int) -> int:
        """Return the tokens that the cache holds; 0 where their price is not known.

        Source: OpenAI before GPT-5.6 caches from 1,024 tokens in steps of 128 and charges nothing
        for writing (openai/openai-cookbook, examples/Prompt_Caching_201.ipynb); from GPT-5.6 on
        writing costs 1.25 times the input (developers.openai.com/api/docs/guides/prompt-caching).
        """
        if self.caching is None or self.rates.cached_input is None:
            return 0
        tokens, step = min(shared, prompt), self.caching.step_tokens
        return step * (tokens // step) if tokens >= self.caching.minimum_tokens else 0


class Serving(NamedTuple):
    """A model that answers, with its cost."""

    role: Role
    prices: PriceLookup  # prices of the model or, for a tuned one, its base; keeps the rows used
    cost: ServingCost
    notes: list[str]  # what is not known, or was assumed, a sentence each


def serving(role: Role, prices: PriceLookup, asked: Request, usage: Usage) -> Serving:
    """Price a way of answering; its one-time cost is zero."""
    offer, tuned = prices.book.offer(prices.backend), role == "tuned"
    if offer.is_own:
        rates, month, notes = _own_machine(prices, usage)
    else:
        rates = _rates(prices, tuned=tuned)
        month, notes = _hosting(prices, usage) if tuned else (NOTHING, [])
    terms, factor = offer.terms(prices.model).serving, usage.reasoning_factor
    reasons = terms is not None and terms.reasons and not asked.shows_all
    reasoning = REASONING if factor == "auto" else (factor, factor, factor)
    asked = replace(
        asked,
        rates=rates,
        caching=terms.caching if terms else None,
        hit_rate=hit_rate(usage),
        reasoning=reasoning if reasons else NO_REASONING,
    )
    if not offer.is_own:
        notes = [*_price_notes(prices, asked, tuned=tuned), *notes]
    cost = ServingCost(once_usd=NOTHING, month_usd=month, request_usd=asked.usd)
    return Serving(role, prices, cost, notes)


def hit_rate(usage: Usage) -> Decimal:
    """Return the share of requests, 0 to 1, whose beginning is in the cache."""
    return USUAL_HIT_RATE if usage.cache_hit_rate == "auto" else usage.cache_hit_rate


def _rates(prices: PriceLookup, *, tuned: bool) -> Rates:
    rows = (prices.tokens(kind, tuned=tuned) for kind in ("input", "output", "cached-input"))
    plain, output, cached = (row.usd if row else None for row in rows)
    # Rows of two origins may not fit together: no vendor charges more for what it has cached.
    fits = plain is not None and cached is not None and cached <= plain
    return Rates(plain, output, cached if fits else None)


def _own_machine(prices: PriceLookup, usage: Usage) -> tuple[Rates, Spread | None, list[str]]:
    """Return rates, a month and notes of the user's own machine, which is paid by the hour."""
    row = prices.find("machine")
    if row is None:
        note = (
            f"{prices.backend} makes no charge, and what an hour of the machine costs is not "
            f"known: set it by --price {prices.backend}:machine=0.85 or machine in prices.yaml, to "
            "0 where it costs nothing."
        )
        return Rates(), None, [note]
    note = "the estimate assumes one machine at any volume and length of prompts."
    return Rates(Decimal(0), Decimal(0)), standing_usd((row, row), _hours(usage)), [note]


def _hosting(prices: PriceLookup, usage: Usage) -> tuple[Spread | None, list[str]]:
    """Return hosting and storage of a tuned model a month; None where hosting has no price."""
    ends, storage = prices.hosting(), prices.find("storage")
    if ends is None:
        note = (
            f"no price is known for hosting a tuned {prices.model} on {_place(prices)}; hosting in "
            "prices.yaml sets it, 0 where none is charged."
        )
        return None, [note]
    units = Spread.of(Decimal(1)) if ends[0].per == "month" else _hours(usage)
    month, notes = standing_usd(ends, units), list(machine_assumptions(ends))
    if storage is not None and storage.per != "month":
        notes.append(f"storage is charged by {storage.per} and not counted: its size is unknown.")
    elif storage is not None and month is not None:
        month += Spread.of(storage.usd)
    return month, notes


def _hours(usage: Usage) -> Spread:
    """Return a month's hours: as planned, and all of them at the high end."""
    planned = HOURS_A_MONTH * usage.hosting_hours_day / 24
    return Spread(planned, planned, HOURS_A_MONTH)


def _price_notes(prices: PriceLookup, request: Request, *, tuned: bool) -> Iterator[str]:
    model = f"{'a tuned ' if tuned else ''}{prices.model} on {_place(prices)}"
    rates, caching = request.rates, request.caching
    kinds = (("input", rates.input), ("output", rates.output))
    if unknown := [kind for kind, usd in kinds if usd is None]:
        yield f"no price is known for {' and '.join(unknown)} of {model}; prices.yaml can set it."
    elif tuned or request.caches:
        return
    elif caching is None and rates.cached_input is not None:
        yield f"how {model} caches prompts is not known; nothing counts as cached."
    elif caching is not None and rates.cached_input is None:
        yield f"no price is known for cached input of {model}; nothing counts as cached."
    elif caching is not None and request.shared.expected:
        yield (
            f"{model} caches from {caching.minimum_tokens:,} tokens on; the "
            f"{request.shared.expected:,} that prompts share are fewer."
        )


def _place(prices: PriceLookup) -> str:
    return f"{prices.backend} ({prices.tier})" if prices.tier else prices.backend
