"""What one request costs, with a cache that holds the beginning of the prompt.

Not here: what is paid each month, used or not (`unitune.tco.serving`).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from unitune.backends.offer import Caching
from unitune.cost.spread import Spread
from unitune.cost.tokens import Count

MILLION = 1_000_000
NO_TOKENS = Count()
BEST_HIT_RATE, WORST_HIT_RATE = Decimal("0.95"), Decimal(0)
"""Ends of the range beside the expected rate: some requests always come first, or after the vendor
has forgotten the prompt; and traffic may be so thin that none finds it."""


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
    """A usual request to a model, in tokens on average."""

    prompt: Count
    answer: Count
    """As far as it is seen."""
    rates: Rates
    shared: Count = NO_TOKENS
    """At the beginning of the prompt, the same in all requests."""
    caching: Caching | None = None
    """How the vendor caches; None: not known, and nothing counts as cached."""
    hit_rate: Decimal = Decimal(0)
    """Share of requests, 0 to 1, whose beginning is in the cache."""
    reasoning: tuple[Decimal, Decimal, Decimal] = (Decimal(1), Decimal(1), Decimal(1))
    """By which hidden reasoning lengthens the billed answer: low, expected, high."""

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
