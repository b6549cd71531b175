"""The prices of a comparison's answers, and their budget: a cap that no request may break.

A price is the vendor's (`unitune.cost.prices`), or the job's own under `evaluate.prices` where that
is dearer or the only one. What costs money and has neither is named, since no budget can hold it.

Before a request is sent, the most that it may cost is reserved: its text, counted high, and the
longest answer that it allows, hidden reasoning included. The tokens that the vendor counted then
take its place; where it gave no count, or an impossible one, the most stays counted. Near the cap
requests wait for one another.

Not here: what a training costs, and what answers may cost, before any is there (`unitune.cost`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from unitune.cost.prices.book import PriceBook, PriceLookup
from unitune.cost.prices.staleness import freshness
from unitune.errors import OverBudget
from unitune.evaluate.records import Record, Uncounted
from unitune.job.contenders import ContenderSpec, Model, Recorded, Server, Tuned
from unitune.job.job import Evaluate, Job, TokenPrice
from unitune.models import Reply, Request
from unitune.workspace.today import today

# Tokens that a chat template may put around the messages, such as a system prompt of its own where
# a request has none: about 75 in openai-harmony 0.0.8, fewer in Llama's and Qwen's
AROUND_REQUEST = 100
# Tokens of what vendors tell a model about tools in general: up to 530 at Anthropic
# (docs.anthropic.com, Tool use pricing and tokens, read 2026-11-26)
AROUND_TOOLS = 1_000
IMPOSSIBLE = 10  # A count more than so many times the most that can be is taken for a mistake


def most_tokens(request: Request) -> Uncounted:
    """Return the most tokens that a request can take, and its answer.

    No tokenizer makes more tokens of a text than it has bytes, and JSON of plain ASCII has at least
    as many bytes as the texts in it. Tools are indented, as some chat templates show them.
    """
    messages = json.dumps([message.wire for message in request.messages])
    tools = json.dumps(request.tools, indent=4) if request.tools else ""
    around = AROUND_REQUEST + (AROUND_TOOLS if request.tools else 0)
    return Uncounted(
        prompt_tokens=len(messages) + len(tools) + around, completion_tokens=request.max_tokens
    )


def without_impossible_counts(request: Request, reply: Reply) -> Reply:
    """Return a reply without the vendor's token counts where these cannot be true."""
    most = most_tokens(request)
    if 0 <= (reply.prompt_tokens or 0) <= IMPOSSIBLE * most.prompt_tokens and (
        0 <= (reply.completion_tokens or 0) <= IMPOSSIBLE * most.completion_tokens
    ):
        return reply
    return replace(reply, prompt_tokens=None, completion_tokens=None)


def uncounted(request: Request, reply: Reply) -> Uncounted | None:
    """Return the tokens that a request may have taken where its vendor did not count them."""
    if reply.error is None:
        counted = reply.prompt_tokens is not None and reply.completion_tokens is not None
        return None if counted else most_tokens(request)
    # No answer came; the vendor may have generated one all the same.
    return most_tokens(request) if reply.retryable and reply.status is None else None


def usd(price: TokenPrice, prompt: int | None, completion: int | None) -> Decimal | None:
    """Return the price of prompt and completion tokens in US dollars; None where not known."""
    if prompt is None or completion is None:
        return None
    return (price.input * prompt + price.output * completion) / 1_000_000


def _usd_of(price: TokenPrice, tokens: Uncounted | None) -> Decimal:
    known = tokens and usd(price, tokens.prompt_tokens, tokens.completion_tokens)
    return known or Decimal(0)


def most_usd(price: TokenPrice, request: Request) -> Decimal:
    """Return the most that a request may cost, in US dollars."""
    return _usd_of(price, most_tokens(request))


def record_usd(price: TokenPrice, record: Record) -> Decimal:
    """Return the cost of a recorded answer or error, in US dollars: at most, where not counted."""
    if record.cached:
        return Decimal(0)
    cost = _usd_of(price, record.uncounted)
    if record.error is None:
        cost += usd(price, record.prompt_tokens, record.completion_tokens) or Decimal(0)
    return cost


@dataclass(frozen=True, slots=True)
class AnswerPrices:
    """The known token prices of a comparison's answers.

    Args:
        contenders: By contender.
        unpriced: Contenders that cost money at a vendor, at an unknown price.
    """

    contenders: dict[str, TokenPrice] = field(default_factory=dict[str, TokenPrice])
    unpriced: tuple[str, ...] = ()

    @property
    def charged(self) -> bool:
        """Whether a vendor takes money, as far as that is known."""
        known = self.contenders.values()
        return bool(self.unpriced) or any(price.input or price.output for price in known)


def answer_prices(
    job: Job,
    book: PriceBook,
    trained: Mapping[str, Job] | None = None,
    *,
    allow_unpriced: bool = False,
) -> AnswerPrices:
    """Return the prices of a comparison's answers, as far as they are known.

    Args:
        job: With the offer's own name of its model.
        book: All prices; a stale one is not relied on where the answers have a budget.
        trained: The jobs that made the tuned contenders, by name, where they may be others.
        allow_unpriced: Whether the user accepts prices that are unknown or stale.

    Raises:
        OverBudget: The answers have a budget, and something that costs money has no price.
    """
    budget, day = job.evaluate.budget, today()
    tier = book.offer(job.backend).tier(job.options.get(job.backend, {}))
    at_backend = PriceLookup(book, job.backend, job.base_model, day, tier=tier)
    prices: dict[str, TokenPrice] = {}
    unpriced: list[str] = []
    unknown: list[str] = []
    for spec in job.evaluate.contenders:
        lookup = at_backend
        if trained and spec.name in trained:
            lookup = lookup.of_training(trained[spec.name])
        if isinstance(spec, Model):
            lookup = replace(lookup, backend=spec.backend, model=spec.model, tier=None)
        price = job.evaluate.price_of(spec, job.base_model)
        if not isinstance(spec, Server):
            # A stale price is not relied on, but a job may not lower it either.
            stale = allow_unpriced or budget is None or price is not None
            known = _price_of_vendor(spec, lookup, stale=stale)
            price = price.at_least(known) if price and known else price or known
        if price is not None:
            prices[spec.name] = price
        elif isinstance(spec, Server):
            unknown.append(spec.name)
        elif not _is_free(spec, lookup):
            unpriced.append(spec.name)
    unknown = [*unpriced, *unknown]
    if budget is not None and unknown and not allow_unpriced:
        raise OverBudget(
            f"evaluate.budget is ${budget.usd}, and no price is known of "
            f"{', '.join(unknown)}. Give it under evaluate.prices, by name: "
            f"{{{unknown[0]}: {{input: 0.15, output: 0.60}}}}, in US dollars a million tokens (0 "
            "where nothing is charged), or accept that with --allow-unpriced."
        )
    return AnswerPrices(prices, tuple(unpriced))


def _price_of_vendor(spec: ContenderSpec, lookup: PriceLookup, *, stale: bool) -> TokenPrice | None:
    if _is_uncharged(spec, lookup):
        return None
    tuned = isinstance(spec, Tuned)
    read, written = lookup.tokens("input", tuned=tuned), lookup.tokens("output", tuned=tuned)
    if read is None or written is None:
        return None
    if not stale and "stale" in (freshness(read, lookup.day), freshness(written, lookup.day)):
        return None
    if not read.usd and not written.usd and _is_free(spec, lookup):
        return None  # the deployment costs, and no answer
    return TokenPrice(input=read.usd, output=written.usd)


def _is_free(spec: ContenderSpec, lookup: PriceLookup) -> bool:
    """Whether nothing is paid by the token: nothing at all, or a deployment by the hour."""
    if _is_uncharged(spec, lookup):
        return True
    hosting = lookup.hosting() if isinstance(spec, Tuned) else None
    return hosting is not None and bool(hosting[1].usd) and hosting[1].per in ("hour", "gpu-hour")


def _is_uncharged(spec: ContenderSpec, lookup: PriceLookup) -> bool:
    return isinstance(spec, Recorded) or lookup.book.offer(lookup.backend).is_own


@dataclass(slots=True)
class Budget:
    """The money of a comparison, in US dollars."""

    cap: Decimal | None  # the most that may be spent; None: no limit
    spent: Decimal = Decimal(0)  # for answers that are there
    reserved: Decimal = Decimal(0)  # for requests in flight
    _settled: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(cls, evaluate: Evaluate, spent: Decimal = Decimal(0)) -> Budget:
        """Return what a job's evaluation may spend, of which so much is spent."""
        return cls(evaluate.budget and evaluate.budget.usd, spent)

    def charge(self, records: Iterable[Record], prices: Mapping[str, TokenPrice]) -> None:
        """Count the cost of recorded answers, of earlier calls of the comparison or of batches.

        Args:
            records: On dev a contender's name stands before the prompt's.
            prices: By contender; what has none is not counted.
        """
        for record in records:
            name = record.contender
            # On dev a contender's name is followed by the prompt's.
            fitting = [each for each in prices if name == each or name.startswith(f"{each}: ")]
            if fitting:
                self.spent += record_usd(prices[max(fitting, key=len)], record)

    def afford(self, most: Decimal) -> None:
        """Refuse batches, which are paid all at once, where they may pass the cap.

        Raises:
            OverBudget: They may.
        """
        if self.cap is not None and self.spent + most > self.cap:
            raise OverBudget(
                f"the answers in batches may cost up to ${most:.6f}, and of the ${self.cap} that "
                f"this comparison may spend ${self.spent:.6f} are spent. Nothing was sent. Raise "
                "--budget, or use fewer cases."
            )

    async def reserve(self, most: Decimal) -> bool:
        """Reserve money, if need be after requests in flight have settled; False: there is none."""
        while self.cap is not None and self.spent + self.reserved + most > self.cap:
            if not self.reserved:
                return False
            await self._settled.wait()
        self.reserved += most
        return True

    def settle(self, most: Decimal, cost: Decimal) -> None:
        """Put the cost in the place of what was reserved."""
        self.reserved -= most
        self.spent += cost
        self._settled.set()
        self._settled = asyncio.Event()

    def guard(self, contender: str, price: TokenPrice) -> BudgetGuard:
        """Return the guard of one contender, which shares the cap with all others."""
        return BudgetGuard(self, contender, price)


@dataclass(frozen=True, slots=True)
class BudgetGuard:
    """Pays one contender's requests out of the shared budget."""

    budget: Budget
    contender: str
    price: TokenPrice

    async def reserve(self, request: Request) -> None:
        """Reserve the most that a request may cost.

        Raises:
            OverBudget: With it, more than the cap could be spent.
        """
        most = most_usd(self.price, request)
        if not await self.budget.reserve(most):
            raise OverBudget(
                f"{self.contender}: the next answer may cost up to ${most:.6f}, and of the "
                f"${self.budget.cap} that this comparison may spend ${self.budget.spent:.6f} "
                "are spent. What was answered is kept. Raise --budget, or use fewer cases."
            )

    def settle(self, request: Request, reply: Reply) -> Uncounted | None:
        """Pay for a reserved request; return the tokens that were paid for uncounted."""
        most = uncounted(request, reply)
        counted = usd(self.price, reply.prompt_tokens, reply.completion_tokens)
        cost = _usd_of(self.price, most) if most else counted or Decimal(0)
        self.budget.settle(most_usd(self.price, request), cost)
        return most
