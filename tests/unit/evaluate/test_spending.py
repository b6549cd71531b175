"""A cap that no request may break."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from decimal import Decimal

import pytest
from pydantic import JsonValue

from unitune.cost.prices.book import PriceBook
from unitune.data.example import Message
from unitune.errors import BackendError, OverBudget, Unreachable
from unitune.evaluate.documents.records import Record
from unitune.evaluate.inference.budget import (
    AnswerPrices,
    Budget,
    answer_prices,
    most_tokens,
    most_usd,
    record_usd,
    usd,
)
from unitune.evaluate.inference.requests import AdaptiveLimiter, Outcome, request_with_retry
from unitune.job.job import Data, Evaluate, Job, TokenPrice
from unitune.models import Reply, Request

PRICE = TokenPrice(input=Decimal(1), output=Decimal(10))
QUESTION = Request(messages=(Message(role="user", content="12 bytes long"[:12]),), max_tokens=100)
MOST = Decimal("0.001145")
"""45 bytes of JSON and 100 around them x $1, 100 x $10, a million tokens."""


SERVER = {"type": "server", "url": "http://127.0.0.1:1/v1", "model": "m", "prompt": "zero-shot"}


class Model:
    """Gives prepared replies."""

    fingerprint = "m"

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)

    async def reply(self, _: Request) -> Reply:
        return self.replies.pop(0)

    async def aclose(self) -> None:
        pass


ANSWER = Reply(text="yes", prompt_tokens=5, completion_tokens=2)


def pay(spending: Budget, *replies: Reply) -> Outcome:
    purse = spending.guard("c", PRICE)
    return asyncio.run(request_with_retry(Model(*replies), QUESTION, AdaptiveLimiter(), purse))


def recorded(name: str) -> Record:
    return Record(contender=name, case="a", request_hash="h", prompt_tokens=5, completion_tokens=2)


def test_the_most_is_bytes_and_the_longest_answer() -> None:
    assert most_usd(PRICE, QUESTION) == MOST


def test_an_answer_costs_what_the_vendor_counted() -> None:
    spending = Budget(Decimal(1))
    pay(spending, ANSWER)
    assert (Decimal("0.000025"), Decimal(0)) == (spending.spent, spending.reserved)


def test_an_answer_of_unknown_length_counts_as_the_longest() -> None:
    spending = Budget(Decimal(1))
    pay(spending, Reply(text="yes"))
    assert spending.spent == MOST


def test_a_refusal_costs_nothing_and_silence_may_have_cost_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unitune.backends.retry.FIRST_PAUSE_SECONDS", 0.001)
    refused, silent = BackendError("too many", status=429), Unreachable("no answer")
    spending = Budget(Decimal(1))
    outcome = pay(spending, Reply.failed(refused), Reply.failed(silent), ANSWER)
    assert spending.spent == MOST + Decimal("0.000025")
    kept = replace(recorded("c"), uncounted=outcome.uncounted)
    assert spending.spent == record_usd(PRICE, kept), "also for the next call of the comparison"


@pytest.mark.parametrize(
    ("prompt", "completion"), [(-1_000_000, 2), (5, -1), (10**9, 2), (5, 10**12)]
)
def test_a_count_that_cannot_be_true_is_not_believed(prompt: int, completion: int) -> None:
    spending = Budget(Decimal(1))
    told = Reply(text="yes", prompt_tokens=prompt, completion_tokens=completion)
    outcome = pay(spending, told)
    assert (MOST, Decimal(0)) == (spending.spent, spending.reserved)
    assert (outcome.reply.prompt_tokens, outcome.reply.text) == (None, "yes")
    assert most_tokens(QUESTION) == outcome.uncounted


def test_a_count_above_the_most_that_was_reckoned_with_is_paid_as_counted() -> None:
    """A vendor may put more around a request than is known of any."""
    spending = Budget(Decimal(1))
    pay(spending, Reply(text="yes", prompt_tokens=500, completion_tokens=2))
    assert spending.spent == Decimal("0.00052")


def test_calls_and_tools_are_in_what_a_request_may_cost() -> None:
    arguments = json.dumps({"text": "x" * 40_000})
    call: JsonValue = {
        "id": "c",
        "type": "function",
        "function": {"name": "f", "arguments": arguments},
    }
    called = Message(role="assistant", tool_calls=(call,))
    assert most_tokens(Request(messages=(called,))).prompt_tokens > 40_000
    tool: dict[str, JsonValue] = {"type": "function", "function": {"name": "y" * 40_000}}
    told = Request(messages=QUESTION.messages, tools=(tool,))
    assert most_tokens(told).prompt_tokens > 40_000


def test_the_request_that_might_break_the_cap_is_not_sent() -> None:
    spending = Budget(MOST + Decimal("0.00004"))
    pay(spending, ANSWER)
    pay(spending, ANSWER)
    model = Model(ANSWER)
    with pytest.raises(OverBudget, match=r"\$0\.001185, and \$0\.000050 is spent"):
        asyncio.run(
            request_with_retry(model, QUESTION, AdaptiveLimiter(), spending.guard("c", PRICE))
        )
    assert len(model.replies) == 1


def test_what_was_answered_before_counts() -> None:
    records = [recorded(name) for name in ("c", "c: 4 shots", "another")]
    records += [replace(records[0], case="b", cached=True), replace(records[0], error="down")]
    spending = Budget(Decimal(1))
    spending.charge(records, {"c": PRICE})
    assert spending.spent == Decimal("0.00005")


def test_a_contender_whose_name_has_a_colon_is_charged() -> None:
    records = [recorded(name) for name in ("a: b", "a: b: 4 shots")]
    spending = Budget(Decimal(1))
    spending.charge(records, {"a: b": PRICE})
    assert spending.spent == Decimal("0.00005")


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


def prices(wanted: Job, *, allow_unpriced: bool = False) -> AnswerPrices:
    return answer_prices(wanted, PriceBook(), allow_unpriced=allow_unpriced)


BASE = {"base": {"input": 1, "output": 10}}
BOTH = {**BASE, "tuned": {"input": 2, "output": 20}}


def test_prices_go_by_contender_or_by_the_base_they_ask() -> None:
    found = prices(job(prices=BOTH))
    assert found.contenders["zero-shot"] == found.contenders["few-shot"] == PRICE
    assert found.contenders["tuned"].output == Decimal(20)
    assert (found.charged, found.unpriced) == (True, ())


def test_a_vendors_price_is_known_without_the_job_saying_it() -> None:
    """Azure's, of gpt-4.1-mini and what is tuned from it, in its offer."""
    wanted = job().model_copy(
        update={"backend": "azure", "model": "gpt-4.1-mini-2025-04-14", "budget": None}
    )
    found = prices(wanted).contenders
    assert "tuned" in found


@pytest.mark.parametrize("usd", ["0", "100"])
@pytest.mark.parametrize("by", ["gpt-4.1-mini-2025-04-14", "zero-shot"])
def test_a_job_never_lowers_the_price_of_a_vendors_answers(usd: str, by: str) -> None:
    """The job may be a stranger's, and the cap and the user's consent rest on the price."""
    spec = {"contenders": ["zero-shot", "tuned"]}
    named = {"backend": "azure", "model": "gpt-4.1-mini-2025-04-14"}
    known = prices(job(**spec).model_copy(update=named)).contenders["zero-shot"]
    given = {by: {"input": usd, "output": usd}}
    for budget in ({"usd": "1"}, None):
        wanted = job(**spec, prices=given, budget=budget).model_copy(update=named)
        found = prices(wanted, allow_unpriced=True)
        assert known.at_least(TokenPrice.model_validate(given[by])) == found.contenders["zero-shot"]
        assert found.charged


def test_a_budget_without_a_price_is_refused_with_what_to_write() -> None:
    wanted = job(budget={"usd": "1"}, prices=BASE)
    with pytest.raises(OverBudget, match=r"the price of tuned is unknown\. .* \{tuned: \{input"):
        prices(wanted)
    assert prices(wanted, allow_unpriced=True).unpriced == ("tuned",)


def test_all_that_is_asked_is_under_the_budget() -> None:
    evaluate = {"contenders": ["zero-shot", SERVER], "prices": BASE}
    with pytest.raises(OverBudget, match="of m"):
        prices(job(budget={"usd": "1"}, **evaluate))
    assert prices(job(**evaluate)).charged


def test_a_backend_that_takes_no_money_needs_no_price() -> None:
    wanted = job(budget={"usd": "1"}).model_copy(update={"backend": "local"})
    assert AnswerPrices() == prices(wanted)
    assert not prices(wanted).charged
