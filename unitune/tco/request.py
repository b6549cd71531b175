"""What one request costs, with a cache that holds the beginning of the prompt.

Not here: what is paid whether anybody asks or not (`unitune.cost.break_even`).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from unitune.cost.break_even import Crossover, cheaper
from unitune.cost.spread import Spread
from unitune.cost.tokens import Count

MILLION = 1_000_000
NO_TOKENS = Count()
BEST_HIT_RATE, WORST_HIT_RATE = Decimal("0.95"), Decimal(0)
"""What a range reckons with beside the expected rate: some requests always come first, or after
the vendor has forgotten the prompt; and traffic so thin that none finds it."""


@dataclass(frozen=True, slots=True)
class CachingRule:
    """How a vendor caches the beginning of a prompt.

    Args:
        minimum_tokens: A shorter beginning is not cached.
        step_tokens: It is cached in multiples of so many tokens.
        write_factor: What a token that is written to the cache costs, in prices of plain input.

    Source:
        OpenAI before GPT-5.6 caches from 1,024 tokens in steps of 128 and charges nothing for
        writing (openai/openai-cookbook, examples/Prompt_Caching_201.ipynb); from GPT-5.6 on writing
        costs 1.25 times the input (developers.openai.com/api/docs/guides/prompt-caching).
    """

    minimum_tokens: int = 0
    step_tokens: int = 1
    write_factor: Decimal = Decimal(1)

    def cacheable(self, shared_tokens: int) -> int:
        """Return how many tokens of the beginning that requests share a cache holds."""
        if shared_tokens < self.minimum_tokens:
            return 0
        return self.step_tokens * (shared_tokens // self.step_tokens)


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices of a model's tokens, in US dollars a million; None is unknown.

    Args:
        input: Of the prompt.
        output: Of the answer, hidden reasoning included.
        cached_input: Of what a cache holds of the prompt; unknown, nothing is reckoned as cached.
    """

    input: Decimal | None = None
    output: Decimal | None = None
    cached_input: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A usual request to a model.

    Args:
        prompt: Tokens of the prompt, on average.
        answer: Tokens of the answer that is seen, on average.
        shared: Tokens at the beginning of the prompt that all requests share.
        rates: What they cost.
        caching: How the vendor caches; None: not known, and reckoned as not at all.
        hit_rate: Share of requests, 0 to 1, whose beginning is in the cache.
        reasoning: Factor by which hidden reasoning lengthens the billed answer: low, expected and
            high, at least 1.
    """

    prompt: Count
    answer: Count
    rates: Rates
    shared: Count = NO_TOKENS
    caching: CachingRule | None = None
    hit_rate: Decimal = Decimal(0)
    reasoning: tuple[Decimal, Decimal, Decimal] = (Decimal(1), Decimal(1), Decimal(1))

    @property
    def caches(self) -> bool:
        """Whether anything of the expected prompt comes from the cache where it is hit."""
        return self._held(self.prompt.expected, self.shared.expected) > 0

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

    def expected_at(self, hit_rate: Decimal) -> Decimal | None:
        """Return the expected US dollars at another hit rate; None where a price is not known."""
        if self.rates.input is None or self.rates.output is None:
            return None
        answer = self.answer.expected * self.reasoning[1]
        return self._at(self.prompt.expected, self.shared.expected, answer, hit_rate)

    def _at(self, prompt: int, shared: int, answer: Decimal, hit_rate: Decimal) -> Decimal:
        """Return [(P - C) i + h C c + (1 - h) C w i + O o] / 1,000,000.

        P prompt, O answer, C tokens that the cache holds, h hit rate; i, o, c prices of input,
        output and cached input; w the factor of writing. With w = 1 it is (P - hC) i + hCc + Oo.
        """
        assert self.rates.input is not None
        assert self.rates.output is not None
        held = self._held(prompt, shared)
        plain = (prompt - held) * self.rates.input + answer * self.rates.output
        if not held or self.rates.cached_input is None or self.caching is None:
            return plain / MILLION
        read = hit_rate * self.rates.cached_input
        written = (1 - hit_rate) * self.caching.write_factor * self.rates.input
        return (plain + held * (read + written)) / MILLION

    def _held(self, prompt: int, shared: int) -> int:
        """Return the tokens that a hit finds; 0 where caching saves nothing that is known."""
        if self.caching is None or self.rates.cached_input is None:
            return 0
        return self.caching.cacheable(min(shared, prompt))


def hit_rate_threshold(challenger: Request, incumbent: Request) -> Crossover | None:
    """Return at which hit rates the challenger's requests cost less; None where that is unknown.

    Both have the same hit rate. Where only the incumbent caches, the threshold is
    h* = (k_incumbent(h=0) - k_challenger) / (C (i - c)).
    """
    ends = [
        (challenger.expected_at(rate), incumbent.expected_at(rate))
        for rate in (Decimal(0), Decimal(1))
    ]
    (first, first_other), (last, last_other) = ends
    if first is None or first_other is None or last is None or last_other is None:
        return None
    difference = first - first_other
    return cheaper(difference, (last - last_other) - difference, most=Decimal(1))
