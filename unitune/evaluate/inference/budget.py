"""What a comparison may spend on answers: a cap that no request may break.

Before a request is sent, what it may cost at most is set aside: all of it as it is sent, counted
high, and the longest answer that it allows, hidden reasoning included. When the answer is there,
the tokens that the vendor counted take its place; where it gave no count, or one that cannot be
true, the most stays counted. So the cap holds whatever is in flight, and is known before anything
is asked; near it requests wait for one another.

Not here: whose answers have which price (`unitune.evaluate.inference.pricing`), and what a training
costs (`unitune.cost`).
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
ABSURD = 10
"""A count so many times the most that can be is a mistake, and not believed."""


def most_tokens(request: Request) -> Uncounted:
    """Return the most tokens that a request can take, and its answer.

    No tokenizer makes more tokens of a text than it has bytes, and JSON of plain ASCII has at least
    as many bytes as the texts in it. Tools are indented, as some chat templates show them.
    """
    messages = json.dumps([message.asked for message in request.messages])
    tools = json.dumps(request.tools, indent=4) if request.tools else ""
    around = AROUND_REQUEST + (AROUND_TOOLS if request.tools else 0)
    return Uncounted(
        prompt_tokens=len(messages) + len(tools) + around, completion_tokens=request.max_tokens
    )


def believed(request: Request, reply: Reply) -> tuple[Reply, str]:
    """Return a reply without counts that cannot be true, and what they said; empty: nothing."""
    most = most_tokens(request)
    wrong = {
        name: count
        for name, count, limit in (
            ("prompt_tokens", reply.prompt_tokens, most.prompt_tokens),
            ("completion_tokens", reply.completion_tokens, most.completion_tokens),
        )
        if count is not None and not 0 <= count <= ABSURD * limit
    }
    said = ", ".join(f"{name} {count}" for name, count in wrong.items())
    return (replace(reply, prompt_tokens=None, completion_tokens=None) if wrong else reply), said


@dataclass(slots=True)
class Budget:
    """What was spent in a comparison, of how much.

    Args:
        cap: US dollars; None: no end to it.
        spent: US dollars, for answers that are there.
        reserved: US dollars, for requests in flight.
    """

    cap: Decimal | None
    spent: Decimal = Decimal(0)
    reserved: Decimal = Decimal(0)
    _waiting: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]])

    def charge(self, records: Iterable[Record], prices: Mapping[str, TokenPrice]) -> None:
        """Count what recorded answers have cost.

        Args:
            records: Of earlier calls of the same comparison, or of batches; on dev a contender's
                name stands before the prompt's.
            prices: By contender.
        """
        for record in records:
            price = _price_of(record.contender, prices)
            if price is not None:
                self.spent += record_usd(price, record)

    def afford(self, what: str, most: Decimal) -> None:
        """Refuse what is paid all at once, as batches are, where it may pass the cap.

        Args:
            what: What is to be paid.
            most: US dollars.

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
        """Set money aside, when need be after the requests in flight have said what they cost.

        Returns:
            Whether there is as much.
        """
        while self.cap is not None and self.spent + self.reserved + most > self.cap:
            if not self.reserved:
                return False
            settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(settled)
            await settled
        self.reserved += most
        return True

    def settle(self, most: Decimal, cost: Decimal) -> None:
        """Put what was paid in the place of what was set aside."""
        self.reserved -= most
        self.spent += cost
        waiting, self._waiting = self._waiting, []
        for settled in waiting:
            if not settled.done():
                settled.set_result(None)

    def guard(self, contender: str, price: TokenPrice) -> BudgetGuard:
        """Return the guard of one contender, which shares the cap with all others."""
        return BudgetGuard(self, contender, price)


@dataclass(frozen=True, slots=True)
class BudgetGuard:
    """Pays one contender's requests out of what all may spend."""

    budget: Budget
    contender: str
    price: TokenPrice

    async def reserve(self, request: Request) -> None:
        """Set aside what a request may cost at most.

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
        """Pay for a request for which money was set aside.

        Returns:
            The tokens that were paid for uncounted, since the vendor said none.
        """
        most = uncounted(request, reply)
        known = usd(self.price, reply.prompt_tokens, reply.completion_tokens)
        cost = tokens_usd(self.price, most) if most else known
        self.budget.settle(most_usd(self.price, request), cost or Decimal(0))
        return most


def uncounted(request: Request, reply: Reply) -> Uncounted | None:
    """Return what a request may have taken where its vendor did not count."""
    if reply.error is None:
        told = reply.prompt_tokens is not None and reply.completion_tokens is not None
        return None if told else most_tokens(request)
    # No answer came; the vendor may have made one all the same.
    return most_tokens(request) if reply.retryable and reply.status is None else None


def usd(price: TokenPrice, prompt: int | None, completion: int | None) -> Decimal | None:
    """Return the price of tokens in US dollars; None where their number is not known.

    Args:
        price: In US dollars a million tokens.
        prompt: Tokens asked.
        completion: Tokens answered.
    """
    if prompt is None or completion is None:
        return None
    return (price.input * prompt + price.output * completion) / 1_000_000


@dataclass(slots=True)
class ScorerBudget:
    """Pays for scorers that ask a model, out of what the whole comparison may spend.

    Args:
        budget: Shared with the contenders.
        prices: By scorer; what has none is not paid for.
        journal: Where is kept what was paid, so that the next call of the comparison knows.
    """

    budget: Budget
    prices: Mapping[str, TokenPrice]
    journal: Journal | None = None

    def afford(self, scorer: str, most: int) -> None:
        """Refuse to ask where that may pass the cap.

        Raises:
            OverBudget: It may.
        """
        price = self.prices.get(scorer)
        if price is not None:
            self.budget.afford(f"the scorer {scorer}", price.input * most / 1_000_000)

    def pay(self, scorer: str, key: str, most: int, told: int | None) -> None:
        """Count what was asked.

        Args:
            scorer: Who has asked.
            key: Hash of what was asked.
            most: Tokens at most.
            told: Tokens as the endpoint counts them; None: it does not say.
        """
        counted = told if told is not None and 0 <= told <= ABSURD * most else None
        record = Record(
            contender=scorer,
            case=key,
            request_hash=key,
            prompt_tokens=counted,
            completion_tokens=None if counted is None else 0,
            uncounted=None
            if counted is not None
            else Uncounted(prompt_tokens=most, completion_tokens=0),
        )
        self.budget.charge([record], self.prices)
        if self.journal is not None and scorer in self.prices:
            self.journal.append([record])


def most_usd(price: TokenPrice, request: Request) -> Decimal:
    """Return what a request may cost at most, in US dollars.

    Args:
        price: In US dollars a million tokens.
        request: What is asked.
    """
    return tokens_usd(price, most_tokens(request))


def tokens_usd(price: TokenPrice, tokens: Uncounted) -> Decimal:
    """Return the price of tokens in US dollars."""
    cost = price.input * tokens.prompt_tokens + price.output * tokens.completion_tokens
    return cost / 1_000_000


def record_usd(price: TokenPrice, record: Record) -> Decimal:
    """Return what a recorded answer has cost, in US dollars: at most, where nobody counted.

    Args:
        price: In US dollars a million tokens.
        record: An answer, or an error.
    """
    if record.cached:
        return Decimal(0)
    cost = tokens_usd(price, record.uncounted) if record.uncounted else Decimal(0)
    if record.error is None:
        cost += usd(price, record.prompt_tokens, record.completion_tokens) or Decimal(0)
    return cost


def _price_of(name: str, prices: Mapping[str, TokenPrice]) -> TokenPrice | None:
    """Return the price of a recorded contender; on dev its name is followed by the prompt's."""
    if name in prices:
        return prices[name]
    fitting = [one for one in prices if name.startswith(f"{one}: ")]
    return prices[max(fitting, key=len)] if fitting else None
