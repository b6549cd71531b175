"""A cap that no request may break."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest

from unitune.data.example import Message
from unitune.errors import BackendError, OverBudget, Unreachable
from unitune.evaluate.asking.attempts import persist
from unitune.evaluate.asking.pace import Pace
from unitune.evaluate.asking.spending import Spending, contender_prices, most_usd, usd
from unitune.evaluate.results import Record
from unitune.job import Data, Evaluate, Job, TokenPrice
from unitune.models import Reply, Request

PRICE = TokenPrice(input=Decimal(1), output=Decimal(10))
QUESTION = Request(messages=(Message(role="user", content="12 bytes long"[:12]),), max_tokens=100)
MOST = Decimal("0.00102")
"""(12 bytes + 8) x $1 + 100 x $10, a million tokens."""


class Model:
    """Gives prepared replies."""

    fingerprint = "m"

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)

    async def reply(self, _: Request) -> Reply:
        return self.replies.pop(0)

    def close(self) -> None:
        pass


ANSWER = Reply(text="yes", prompt_tokens=5, completion_tokens=2)


def pay(spending: Spending, *replies: Reply) -> Reply:
    purse = spending.purse("c", PRICE)
    return asyncio.run(persist(Model(*replies), QUESTION, Pace(), purse))


def test_the_most_is_bytes_and_the_longest_answer() -> None:
    assert MOST == most_usd(PRICE, QUESTION)


def test_an_answer_costs_what_the_vendor_counted() -> None:
    spending = Spending(Decimal(1))
    pay(spending, ANSWER)
    assert (Decimal("0.000025"), Decimal(0)) == (spending.spent, spending.reserved)


def test_an_answer_of_unknown_length_counts_as_the_longest() -> None:
    spending = Spending(Decimal(1))
    pay(spending, Reply(text="yes"))
    assert MOST == spending.spent


def test_a_refusal_costs_nothing_and_silence_may_have_cost_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unitune.evaluate.asking.attempts.FIRST_PAUSE_SECONDS", 0.001)
    refused, silent = BackendError("too many", status=429), Unreachable("no answer")
    spending = Spending(Decimal(1))
    pay(spending, Reply.failed(refused), Reply.failed(silent), ANSWER)
    assert MOST + Decimal("0.000025") == spending.spent


def test_the_request_that_might_break_the_cap_is_not_sent() -> None:
    spending = Spending(MOST + Decimal("0.00004"))
    pay(spending, ANSWER)
    pay(spending, ANSWER)
    model = Model(ANSWER)
    with pytest.raises(OverBudget, match=r"\$0\.00106 that .* may spend \$0\.000050 are spent"):
        asyncio.run(persist(model, QUESTION, Pace(), spending.purse("c", PRICE)))
    assert 1 == len(model.replies)


def test_what_was_answered_before_counts() -> None:
    records = [
        Record(contender=name, case="a", request_hash="h", prompt_tokens=5, completion_tokens=2)
        for name in ("c", "c: 4 shots", "another")
    ]
    records += [replace(records[0], case="b", recalled=True), replace(records[0], error="down")]
    spending = Spending(Decimal(1))
    spending.begin_with(records, {"c": PRICE})
    assert Decimal("0.00005") == spending.spent


def test_unknown_tokens_have_no_price() -> None:
    assert None is usd(PRICE, None, 2)


def job(**evaluate: object) -> Job:
    return Job(
        name="j",
        model="base",
        backend="openai",
        data=Data(train="t.jsonl"),
        evaluate=Evaluate.model_validate(evaluate),
    )


def test_prices_go_by_contender_or_by_the_base_they_ask() -> None:
    prices = contender_prices(
        job(prices={"base": {"input": 1, "output": 10}, "tuned": {"input": 2, "output": 20}}),
        free=False,
    )
    assert PRICE == prices["zero-shot"] == prices["few-shot"]
    assert Decimal(20) == prices["tuned"].output


def test_a_budget_without_a_price_is_refused_with_what_to_write() -> None:
    with pytest.raises(OverBudget, match=r"no price is known of tuned\. .* \{tuned: \{input"):
        contender_prices(
            job(budget={"usd": "1"}, prices={"base": {"input": 1, "output": 10}}), free=False
        )


def test_a_backend_that_takes_no_money_needs_no_price() -> None:
    assert {} == contender_prices(job(budget={"usd": "1"}), free=True)
