"""Price the requests and the hosting of a model, in US dollars. Null means unknown, never zero."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from typing import Literal, NamedTuple

from unitune._shown import Printed
from unitune.backends.offer import Caching
from unitune.backends.output_limit import REASONING
from unitune.cost.break_even import Crossovers, ServingCost
from unitune.cost.estimate import HOURS_A_MONTH, machine_assumptions, standing_usd
from unitune.cost.prices.book import PriceLookup
from unitune.cost.spread import MILLION, Spread
from unitune.cost.tokens import Count
from unitune.documents import Frozen
from unitune.job.prices import PriceRow
from unitune.job.tuning import Usage

Role = Literal["prompted", "tuned", "newest"]
Source = Literal["option", "job", "measured", "counted", "assumed"]


class Figure(Frozen):
    """Figure of the usage, with its source."""

    name: str
    value: str
    source: Source
    detail: str = ""
    """Comparison or rows that it comes from, or what is assumed."""


class Horizon(Frozen):
    """Period of use."""

    months: Decimal
    """Planned months, or fewer if the model is switched off earlier; a month is 730 hours."""
    planned: int
    begins: date
    ends: date | None = None
    """Day on which the model is switched off, if that is earlier than planned."""


class Column(ServingCost):
    """Cost of one serving option."""

    role: Role
    backend: str
    model: str
    """Name of the model; for the tuned model, its base."""
    retires_on: date | None
    """Announced retirement day of the model, if any."""
    total_usd: Spread | None
    """Cost over the horizon at the planned volume."""
    by_volume_usd: dict[int, Spread | None]
    """Monthly cost by requests per month, including a share of the one-time cost."""


class TotalCost(Printed, Frozen):
    """Total cost of ownership of a tuned model, compared with prompting."""

    schema_version: int = 1
    job: str
    backend: str
    model: str
    method: str
    requests_month: int
    prompted_tokens: int
    """Expected tokens of a request and its answer when prompting the base model."""
    tuned_tokens: int
    """Expected tokens of a request to the tuned model and its answer."""
    horizon: Horizon
    columns: tuple[Column, ...]
    """Prompted, tuned and, if one is named, the newest untuned model."""
    break_even: Crossovers | None
    """Requests per month at which the tuned model breaks even; null if a price is unknown."""
    pays_back: Crossovers | None
    """Months after which the tuned model costs less, at the planned volume."""
    figures: tuple[Figure, ...]
    """Figures of the usage with their sources."""
    notes: tuple[str, ...]
    """Unknown and assumed values."""
    prices: tuple[PriceRow, ...]
    """Price rows used."""

    def __repr__(self) -> str:
        return f"<TotalCost {self.job!r} on {self.backend}>"


class TotalCostList(Frozen):
    """Total costs of ownership of a tuned model on several backends."""

    schema_version: int = 1
    backends: tuple[TotalCost, ...]
    left_out: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """Reason why a backend has no total cost, by backend."""


NO_REASONING = (Decimal(1), Decimal(1), Decimal(1))
NOTHING = Spread.of(Decimal(0))
# Some requests always miss the cache: the first, those after the vendor drops the prompt and, with
# sparse traffic, all of them.
BEST_HIT_RATE, WORST_HIT_RATE = Decimal("0.95"), Decimal(0)
USUAL_HIT_RATE = Decimal("0.5")  # middle of the range, used if nothing is known


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices of a model's tokens, in US dollars per million; None is unknown.

    Output includes hidden reasoning. Without a price for cached input, nothing counts as cached.
    """

    input: Decimal | None = None
    output: Decimal | None = None
    cached_input: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """Average request to a model, in tokens, with its prices."""

    prompt: Count
    answer: Count
    rates: Rates = field(default_factory=Rates)
    shared: Count = field(default_factory=Count)  # start of the prompt that all requests share
    caching: Caching | None = None  # None if unknown; then nothing counts as cached
    hit_rate: Decimal = Decimal(0)  # share of requests, 0 to 1, whose start is cached
    reasoning: tuple[Decimal, Decimal, Decimal] = NO_REASONING  # factors of the billed answer
    shows_all: bool = False  # True if the measured answer includes hidden reasoning

    @property
    def caches(self) -> bool:
        """True if part of the expected prompt is cached at a known price."""
        return self._cached(self.prompt.expected, self.shared.expected) > 0

    @property
    def usd(self) -> Spread | None:
        """Cost in US dollars, or None if a price is unknown.

        The range covers low and high token counts at the best, expected and worst hit rate, because
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

        P prompt, O answer, C cached tokens, h hit rate; i, o, c prices of input, output and cached
        input; w factor for cache writes. With w = 1 it is (P - hC) i + hCc + Oo.
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
        """Return the tokens that the cache holds, or 0 if their price is unknown.

        Source: OpenAI models before GPT-5.6 cache from 1,024 tokens in steps of 128, with free
        writes (openai/openai-cookbook, examples/Prompt_Caching_201.ipynb); since GPT-5.6 writes
        cost 1.25 times the input (developers.openai.com/api/docs/guides/prompt-caching).
        """
        if self.caching is None or self.rates.cached_input is None:
            return 0
        tokens, step = min(shared, prompt), self.caching.step_tokens
        return step * (tokens // step) if tokens >= self.caching.minimum_tokens else 0


class Serving(NamedTuple):
    """Model that serves requests, with its cost."""

    role: Role
    prices: PriceLookup  # of the model or, if tuned, its base; keeps the rows used
    cost: ServingCost
    notes: list[str]  # unknown or assumed values, one sentence each


def serving(role: Role, prices: PriceLookup, asked: Request, usage: Usage) -> Serving:
    """Price a serving option. Its one-time cost is zero."""
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
    """Return the share of requests, 0 to 1, whose start is cached."""
    return USUAL_HIT_RATE if usage.cache_hit_rate == "auto" else usage.cache_hit_rate


def _rates(prices: PriceLookup, *, tuned: bool) -> Rates:
    rows = (prices.tokens(kind, tuned=tuned) for kind in ("input", "output", "cached-input"))
    plain, output, cached = (row.usd if row else None for row in rows)
    # Rows of different origins may not match: no vendor charges more for cached input.
    fits = plain is not None and cached is not None and cached <= plain
    return Rates(plain, output, cached if fits else None)


def _own_machine(prices: PriceLookup, usage: Usage) -> tuple[Rates, Spread | None, list[str]]:
    """Return rates, monthly cost and notes of the user's own machine, which is paid by the hour."""
    row = prices.find("machine")
    if row is None:
        note = (
            f"{prices.backend} makes no charge, but the hourly cost of the machine is unknown. "
            f"Set it with --price {prices.backend}:machine=0.85 or machine in prices.yaml; use 0 "
            "if it costs nothing."
        )
        return Rates(), None, [note]
    note = "the estimate assumes one machine, regardless of volume and prompt length."
    return Rates(Decimal(0), Decimal(0)), standing_usd((row, row), _hours(usage)), [note]


def _hosting(prices: PriceLookup, usage: Usage) -> tuple[Spread | None, list[str]]:
    """Return a tuned model's monthly hosting and storage cost; None without a hosting price."""
    ends, storage = prices.hosting(), prices.find("storage")
    if ends is None:
        note = (
            f"the price of hosting a tuned {prices.model} on {_place(prices)} is unknown; set "
            "hosting in prices.yaml, or 0 if it is free."
        )
        return None, [note]
    units = Spread.of(Decimal(1)) if ends[0].per == "month" else _hours(usage)
    month, notes = standing_usd(ends, units), list(machine_assumptions(ends))
    notes += _lifetime_notes(prices)
    if storage is not None and storage.per != "month":
        notes.append(
            f"storage is charged by {storage.per} and not counted, because its size is unknown."
        )
    elif storage is not None and month is not None:
        month += Spread.of(storage.usd)
    return month, notes


def _lifetime_notes(prices: PriceLookup) -> Iterator[str]:
    """Yield notes on deployments that the vendor deletes by itself."""
    offer = prices.book.offer(prices.backend)
    tier = prices.serving_tier or prices.tier
    hours = offer.tiers and offer.tiers.facts_of(tier).lifetime_hours
    if hours is not None:
        yield (
            f"a deployment of tier {tier} is deleted after {hours} hours and must be created "
            "again, so it is for evaluation only."
        )
    elif offer.idle_deletion:
        yield offer.idle_deletion


def _hours(usage: Usage) -> Spread:
    planned = HOURS_A_MONTH * usage.hosting_hours_day / 24
    return Spread(planned, planned, HOURS_A_MONTH)


def _price_notes(prices: PriceLookup, request: Request, *, tuned: bool) -> Iterator[str]:
    model = f"{'a tuned ' if tuned else ''}{prices.model} on {_place(prices)}"
    rates, caching = request.rates, request.caching
    kinds = (("input", rates.input), ("output", rates.output))
    if unknown := [kind for kind, usd in kinds if usd is None]:
        yield f"the price of {' and '.join(unknown)} for {model} is unknown; set it in prices.yaml."
    elif tuned or request.caches:
        return
    elif caching is None and rates.cached_input is not None:
        yield f"prompt caching of {model} is unknown, so nothing counts as cached."
    elif caching is not None and rates.cached_input is None:
        yield f"the price of cached input for {model} is unknown, so nothing counts as cached."
    elif caching is not None and request.shared.expected:
        yield (
            f"{model} caches prompts of at least {caching.minimum_tokens:,} tokens; the prompts "
            f"share only {request.shared.expected:,}."
        )


def _place(prices: PriceLookup) -> str:
    return f"{prices.backend} ({prices.tier})" if prices.tier else prices.backend
