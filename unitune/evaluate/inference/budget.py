"""The budget of a comparison's answers: a cap that no request may break.

Before a request is sent, the most that it may cost is reserved: its text, counted high, and the
longest answer that it allows, hidden reasoning included. The tokens that the vendor counted then
take its place; where it gave no count, or an impossible one, the most stays counted. Near the cap
requests wait for one another.

Not here: the prices (`unitune.evaluate.inference.pricing`), and what a training costs
(`unitune.cost`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from unitune.errors import OverBudget
from unitune.evaluate.inference.journal import Journal
from unitune.evaluate.records import Record, Uncounted
from unitune.job.job import TokenPrice
from unitune.models import Reply, Request

AROUND_REQUEST = 100
"""Tokens that a chat template may put around the messages, such as a system prompt of its own where
a request has none: about 75 in openai-harmony 0.0.8, fewer in Llama's and Qwen's."""
AROUND_TOOLS = 1_000
"""Tokens of what vendors tell a model about tools in general: up to 530 at Anthropic
(docs.anthropic.com, Tool use pricing and tokens, read 2026-11-26)."""
IMPOSSIBLE = 10
"""A count more than so many times the most that can be is taken for a mistake."""


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
    counts = (
        (reply.prompt_tokens, most.prompt_tokens),
        (reply.completion_tokens, most.completion_tokens),
    )
    if all(count is None or 0 <= count <= IMPOSSIBLE * limit for count, limit in counts):
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


@dataclass(slots=True)
class Budget:
    """The money of a comparison, in US dollars.

    Args:
        cap: The most that may be spent; None: no limit.
        spent: For answers that are there.
        reserved: For requests in flight.
    """

    cap: Decimal | None
    spent: Decimal = Decimal(0)
    reserved: Decimal = Decimal(0)
    _settled: asyncio.Event = field(default_factory=asyncio.Event)

    def charge(self, records: Iterable[Record], prices: Mapping[str, TokenPrice]) -> None:
        """Count the cost of recorded answers, of earlier calls of the comparison or of batches.

        Args:
            records: On dev a contender's name stands before the prompt's.
            prices: By contender; what has none is not counted.
        """
        for record in records:
            price = _price_of(record.contender, prices)
            if price is not None:
                self.spent += record_usd(price, record)

    def afford(self, what: str, most: Decimal) -> None:
        """Refuse what is paid all at once, as batches are, where it may pass the cap.

        Raises:
            OverBudget: It may.
        """
        if self.cap is not None and self.spent + most > self.cap:
            raise OverBudget(
                f"{what} may cost up to ${most:.6f}, and of the ${self.cap} that this comparison "
                f"may spend ${self.spent:.6f} are spent. Nothing was sent. Raise --budget, or use "
                "fewer cases."
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


@dataclass(slots=True)
class ScorerBudget:
    """Pays for scorers that call a model, by their prices, out of the comparison's budget.

    Payments are recorded in the journal, for the next call of the comparison.
    """

    budget: Budget
    prices: Mapping[str, TokenPrice]
    journal: Journal | None = None

    def afford(self, scorer: str, most: int) -> None:
        """Refuse a request of at most so many tokens where it may pass the cap.

        Raises:
            OverBudget: It may.
        """
        price = self.prices.get(scorer)
        if price is not None:
            self.budget.afford(f"the scorer {scorer}", price.input * most / 1_000_000)

    def pay(self, scorer: str, key: str, most: int, counted: int | None) -> None:
        """Count a request, by its hash, at the tokens that were counted, or else at the most."""
        known = counted is not None and 0 <= counted <= IMPOSSIBLE * most
        record = Record(
            contender=scorer,
            case=key,
            request_hash=key,
            prompt_tokens=counted if known else None,
            completion_tokens=0 if known else None,
            uncounted=None if known else Uncounted(prompt_tokens=most, completion_tokens=0),
        )
        self.budget.charge([record], self.prices)
        if self.journal is not None and scorer in self.prices:
            self.journal.append([record])


def _price_of(name: str, prices: Mapping[str, TokenPrice]) -> TokenPrice | None:
    """Return the price of a recorded contender; on dev its name is followed by the prompt's."""
    if name in prices:
        return prices[name]
    fitting = [contender for contender in prices if name.startswith(f"{contender}: ")]
    return prices[max(fitting, key=len)] if fitting else None
