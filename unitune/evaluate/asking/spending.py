"""What a comparison may spend on answers: a cap that no request may break.

Before a request is sent, what it may cost at most is set aside: its prompt, counted high, and the
longest answer that it allows. When the answer is there, the tokens that the vendor counted take its
place. So the cap holds whatever is in flight, and is known before anything is asked; near it
requests wait for one another.

Not here: prices by vendor, and what a training costs (`unitune.cost`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from unitune import registry
from unitune.errors import OverBudget
from unitune.evaluate.results import Record
from unitune.job import Job, TokenPrice
from unitune.models import Reply, Request
from unitune.specs.contenders import (
    ContenderSpec,
    FewShot,
    Instructed,
    Model,
    Recorded,
    Server,
    ZeroShot,
)

TOKENS_A_MESSAGE = 8
"""Around each message, high: chat templates take 3 to 5, OpenAI counts 3 (its Cookbook, How to
count tokens)."""


@dataclass(slots=True)
class Spending:
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

    def begin_with(self, records: Iterable[Record], prices: Mapping[str, TokenPrice]) -> None:
        """Count what recorded answers have cost, as far as their tokens are known.

        Args:
            records: Of earlier calls of the same comparison; on dev a contender's name stands
                before the prompt's.
            prices: By contender.
        """
        for record in records:
            price = prices.get(record.contender.partition(": ")[0])
            if price is not None and record.error is None and not record.recalled:
                cost = usd(price, record.prompt_tokens, record.completion_tokens)
                self.spent += cost or Decimal(0)

    def afford(self, most: Decimal) -> None:
        """Refuse what is paid all at once, as batches are, where it may pass the cap.

        Raises:
            OverBudget: It may.
        """
        if self.cap is not None and self.spent + most > self.cap:
            raise OverBudget(
                f"the answers in batches may cost up to ${most:.6f}, and of the ${self.cap} that "
                f"this comparison may spend ${self.spent:.6f} are spent. Nothing was handed in. "
                "Raise --budget, or use fewer cases."
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

    def purse(self, contender: str, price: TokenPrice) -> Purse:
        """Return the purse of one contender, which shares the cap with all others."""
        return Purse(self, contender, price)


@dataclass(frozen=True, slots=True)
class Purse:
    """Pays one contender's requests out of what all may spend.

    Args:
        spending: Shared with the other contenders.
        contender: Whose it is.
        price: Of its model.
    """

    spending: Spending
    contender: str
    price: TokenPrice

    async def reserve(self, request: Request) -> None:
        """Set aside what a request may cost at most.

        Raises:
            OverBudget: With it, more than the cap could be spent.
        """
        most = most_usd(self.price, request)
        if not await self.spending.reserve(most):
            raise OverBudget(
                f"{self.contender}: the next answer may cost up to ${most:.6f}, and of the "
                f"${self.spending.cap} that this comparison may spend ${self.spending.spent:.6f} "
                "are spent. What was answered is kept. Raise --budget, or use fewer cases."
            )

    def settle(self, request: Request, reply: Reply) -> None:
        """Pay for a request for which money was set aside.

        Args:
            request: What was asked.
            reply: What came of it.
        """
        most, cost = most_usd(self.price, request), Decimal(0)
        if reply.error is None:
            known = usd(self.price, reply.prompt_tokens, reply.completion_tokens)
            cost = most if known is None else known
        elif reply.passes and reply.status is None:
            cost = most  # no answer came; the vendor may have made one all the same
        self.spending.settle(most, cost)


def contender_prices(job: Job, free: bool) -> dict[str, TokenPrice]:  # noqa: FBT001 - one caller
    """Return the prices of a job's contenders, by contender, as far as they are known.

    Args:
        job: Its `evaluate.prices` go by contender or, for untuned models, by the model's name.
        free: Whether the job's backend takes no money for answers.

    Raises:
        OverBudget: The answers have a budget, and a contender has no price: then nobody could say
            when it is spent.
    """
    evaluate, known = job.evaluate, dict[str, TokenPrice]()
    unpriced: list[str] = []
    for contender in evaluate.contenders:
        price = evaluate.prices.get(contender.name)
        if price is None and isinstance(contender, ZeroShot | Instructed | FewShot):
            price = evaluate.prices.get(job.base_model)
        if price is None and isinstance(contender, Model | Server):
            price = evaluate.prices.get(contender.model)
        if price is not None:
            known[contender.name] = price
        elif not _costs_nothing(contender, free):
            unpriced.append(contender.name)
    if evaluate.budget is not None and unpriced:
        raise OverBudget(
            f"evaluate.budget is ${evaluate.budget.usd}, and no price is known of "
            f"{', '.join(unpriced)}. Give it under evaluate.prices, by contender: "
            f"{{{unpriced[0]}: {{input: 0.15, output: 0.60}}}}, in US dollars a million tokens."
        )
    return known


def _costs_nothing(contender: ContenderSpec, free: bool) -> bool:  # noqa: FBT001 - one caller
    match contender:
        case Recorded():
            return True
        case Model():
            return registry.offer(contender.backend).training_price == "none"
        case Server():
            return False
        case _:
            return free


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


def most_usd(price: TokenPrice, request: Request) -> Decimal:
    """Return what a request may cost at most, in US dollars.

    No tokenizer makes more tokens of a text than it has bytes.

    Args:
        price: In US dollars a million tokens.
        request: What is asked.
    """
    texts = [len(message.text.encode()) + TOKENS_A_MESSAGE for message in request.messages]
    tools = len(str(request.tools or "").encode())
    return (price.input * (sum(texts) + tools) + price.output * request.max_tokens) / 1_000_000
