"""Price a comparison's answers, and enforce their budget as a hard limit.

Each request first reserves its maximum cost: a high count of its text and the longest answer. The
vendor's token counts then replace it, unless they are missing or impossible.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from unitune.cost.prices.book import PriceBook, PriceLookup
from unitune.cost.prices.refresh import freshness
from unitune.cost.tokens.images import most_image_tokens
from unitune.errors import OverBudget
from unitune.evaluate.documents.records import Record, Uncounted
from unitune.job.contenders import ContenderSpec, Model, Recorded, Server, Tuned
from unitune.job.job import Evaluate, Job, TokenPrice
from unitune.models import Reply, Request
from unitune.workspace.user_settings import today

# Tokens that a chat template may add around messages, such as a default system prompt: about 75 in
# openai-harmony 0.0.8, fewer in Llama's and Qwen's
AROUND_REQUEST = 100
# Tokens of vendors' general instructions about tools: up to 530 at Anthropic (docs.anthropic.com,
# Tool use pricing and tokens, read 2026-11-26)
AROUND_TOOLS = 1_000
IMPOSSIBLE = 10  # a count above this multiple of the maximum is considered wrong


def most_tokens(request: Request) -> Uncounted:
    """Return the maximum tokens of a request and its answer.

    No tokenizer produces more tokens than a text has bytes, and JSON in plain ASCII has at least as
    many bytes as its texts. Tools are indented, as in some chat templates.
    """
    images = [image for message in request.messages for image in message.images]
    texts = sum(len(image.url) for image in images)
    messages = len(json.dumps([message.wire for message in request.messages])) - texts
    messages += sum(map(most_image_tokens, images))
    tools = json.dumps(request.tools, indent=4) if request.tools else ""
    around = AROUND_REQUEST + (AROUND_TOOLS if request.tools else 0)
    return Uncounted(
        prompt_tokens=messages + len(tools) + around, completion_tokens=request.max_tokens
    )


def without_impossible_counts(most: Uncounted, reply: Reply) -> Reply:
    """Return a reply without the vendor's token counts if they are impossible.

    `most` is the maximum of its request, as in the functions below.
    """
    if 0 <= (reply.prompt_tokens or 0) <= IMPOSSIBLE * most.prompt_tokens and (
        0 <= (reply.completion_tokens or 0) <= IMPOSSIBLE * most.completion_tokens
    ):
        return reply
    return replace(reply, prompt_tokens=None, completion_tokens=None)


def uncounted(most: Uncounted, reply: Reply) -> Uncounted | None:
    """Return the maximum tokens of a request whose vendor did not count them, else None."""
    if reply.error is None:
        counted = reply.prompt_tokens is not None and reply.completion_tokens is not None
        return None if counted else most
    # Without a reply, the vendor may still have generated an answer.
    return most if reply.retryable and reply.status is None else None


def usd(price: TokenPrice, prompt: int | None, completion: int | None) -> Decimal | None:
    """Return the price of prompt and completion tokens in US dollars, or None if unknown."""
    if prompt is None or completion is None:
        return None
    return (price.input * prompt + price.output * completion) / 1_000_000


def _usd_of(price: TokenPrice, tokens: Uncounted | None) -> Decimal:
    known = tokens and usd(price, tokens.prompt_tokens, tokens.completion_tokens)
    return known or Decimal(0)


def most_usd(price: TokenPrice, request: Request) -> Decimal:
    """Return the maximum cost of a request, in US dollars."""
    return _usd_of(price, most_tokens(request))


def record_usd(price: TokenPrice, record: Record) -> Decimal:
    """Return the (maximum) cost of a recorded answer or error, in US dollars."""
    if record.cached:
        return Decimal(0)
    cost = _usd_of(price, record.uncounted)
    if record.error is None:
        cost += usd(price, record.prompt_tokens, record.completion_tokens) or Decimal(0)
    return cost


@dataclass(frozen=True, slots=True)
class AnswerPrices:
    """Known token prices by contender, and contenders that have an unknown price."""

    contenders: dict[str, TokenPrice] = field(default_factory=dict[str, TokenPrice])
    unpriced: tuple[str, ...] = ()

    @property
    def charged(self) -> bool:
        """True if a vendor is known to charge for any answer."""
        known = self.contenders.values()
        return bool(self.unpriced) or any(price.input or price.output for price in known)


def answer_prices(
    job: Job,
    book: PriceBook,
    trained: Mapping[str, Job] | None = None,
    *,
    allow_unpriced: bool = False,
) -> AnswerPrices:
    """Return the known prices of a comparison's answers.

    `trained` has jobs of tuned contenders that differ from the job. Under a budget, stale prices
    are not used unless `allow_unpriced`.

    Raises:
        OverBudget: The answers have a budget, but something that costs money has no price.
    """
    budget, day = job.evaluate.budget, today()
    at_backend = PriceLookup(book, job.backend, job.base_model, day).with_options(job)
    prices: dict[str, TokenPrice] = {}
    unpriced: list[str] = []
    unknown: list[str] = []
    for spec in job.evaluate.requested:
        lookup = at_backend
        if trained and spec.name in trained:
            lookup = lookup.of_training(trained[spec.name])
        if isinstance(spec, Model):
            lookup = PriceLookup(book, spec.backend, spec.model, day)
        price = job.evaluate.price_of(spec, job.base_model)
        is_uncharged = isinstance(spec, Recorded) or book.offer(lookup.backend).is_own
        if not (is_uncharged or isinstance(spec, Server)):
            # Stale prices are not used, but a job may not lower them either.
            stale = allow_unpriced or budget is None or price is not None
            known = _price_of_vendor(spec, lookup, stale=stale)
            price = price.at_least(known) if price and known else price or known
        if price is not None:
            prices[spec.name] = price
        elif isinstance(spec, Server):
            unknown.append(spec.name)
        elif not (is_uncharged or _is_hosted(spec, lookup)):
            unpriced.append(spec.name)
    unknown = [*unpriced, *unknown]
    if budget is not None and unknown and not allow_unpriced:
        raise OverBudget(
            f"evaluate.budget is ${budget.usd}, but the price of {', '.join(unknown)} is unknown. "
            "Set it in US dollars per million tokens under evaluate.prices: "
            f"{{{unknown[0]}: {{input: 0.15, output: 0.60}}}} (0 if free), or accept it with "
            "--allow-unpriced."
        )
    return AnswerPrices(prices, tuple(unpriced))


def _price_of_vendor(spec: ContenderSpec, lookup: PriceLookup, *, stale: bool) -> TokenPrice | None:
    tuned = isinstance(spec, Tuned)
    read, written = lookup.tokens("input", tuned=tuned), lookup.tokens("output", tuned=tuned)
    if read is None or written is None:
        return None
    if not stale and "stale" in (freshness(read, lookup.day), freshness(written, lookup.day)):
        return None
    if not read.usd and not written.usd and _is_hosted(spec, lookup):
        return None  # only the deployment costs money
    return TokenPrice(input=read.usd, output=written.usd)


def _is_hosted(spec: ContenderSpec, lookup: PriceLookup) -> bool:
    hosting = lookup.hosting() if isinstance(spec, Tuned) else None
    return hosting is not None and bool(hosting[1].usd) and hosting[1].per in ("hour", "gpu-hour")


@dataclass(slots=True)
class Budget:
    """Money of a comparison, in US dollars."""

    cap: Decimal | None  # maximum to spend; None for no limit
    spent: Decimal = Decimal(0)  # for recorded answers
    reserved: Decimal = Decimal(0)  # for requests in flight
    _settled: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(cls, evaluate: Evaluate, spent: Decimal = Decimal(0)) -> Budget:
        """Return the budget of a job's evaluation, of which `spent` is already used."""
        return cls(evaluate.budget and evaluate.budget.usd, spent)

    def charge(self, records: Iterable[Record], prices: Mapping[str, TokenPrice]) -> None:
        """Add the cost of recorded answers from earlier calls or from batches."""
        for record in records:
            name = record.contender
            fitting = [each for each in prices if name == each or name.startswith(f"{each}: ")]
            if fitting:
                self.spent += record_usd(prices[max(fitting, key=len)], record)

    def afford(self, most: Decimal, what: str = "in batches") -> None:
        """Raise OverBudget if answers, such as batches paid at once, may exceed the limit."""
        if self.cap is not None and self.spent + most > self.cap:
            raise OverBudget(
                f"the answers {what} may cost up to ${most:.6f}. The limit is ${self.cap}, "
                f"and ${self.spent:.6f} is spent. Nothing was sent. Raise --budget, or use fewer "
                "cases."
            )

    async def reserve(self, most: Decimal) -> bool:
        """Reserve money, waiting for requests in flight if needed; return False if none is left."""
        while self.cap is not None and self.spent + self.reserved + most > self.cap:
            if not self.reserved:
                return False
            await self._settled.wait()
        self.reserved += most
        return True

    def settle(self, most: Decimal, cost: Decimal) -> None:
        """Replace a reservation with the actual cost."""
        self.reserved -= most
        self.spent += cost
        self._settled.set()
        self._settled = asyncio.Event()

    def guard(self, contender: str, price: TokenPrice) -> BudgetGuard:
        """Return the guard of one contender, which shares the limit with all others."""
        return BudgetGuard(self, contender, price)


@dataclass(frozen=True, slots=True)
class BudgetGuard:
    """Pays one contender's requests from the shared budget."""

    budget: Budget
    contender: str
    price: TokenPrice

    async def reserve(self, tokens: Uncounted) -> None:
        """Reserve the maximum cost of a request. Raises OverBudget if it could exceed the limit."""
        most = _usd_of(self.price, tokens)
        if not await self.budget.reserve(most):
            raise OverBudget(
                f"{self.contender}: the next answer may cost up to ${most:.6f}. The limit is "
                f"${self.budget.cap}, and ${self.budget.spent:.6f} is spent. Existing answers are "
                "kept. Raise --budget, or use fewer cases."
            )

    def settle(self, tokens: Uncounted, reply: Reply) -> Uncounted | None:
        """Pay for a reserved request; return the tokens charged without a count."""
        most = uncounted(tokens, reply)
        counted = usd(self.price, reply.prompt_tokens, reply.completion_tokens)
        cost = _usd_of(self.price, most) if most else counted or Decimal(0)
        self.budget.settle(_usd_of(self.price, tokens), cost)
        return most
