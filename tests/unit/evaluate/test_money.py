"""What a comparison costs and is worth, from its answers to its report and its budget."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from support.told import PAIR, by_number

from unitune.errors import OverBudget
from unitune.evaluate.compare import compare
from unitune.models import Reply, Request
from unitune.report.facts import judged_by
from unitune.report.files import html_page

PRICES = {"zero-shot": {"input": 1, "output": 10}, "instructed": {"input": 3, "output": 10}}
TEN = {"input": 10, "output": 10}


@by_number
def rule(_: int, *, told: bool) -> str:
    return "yes" if told else "no"


def test_dearer_and_better_has_a_price_for_each_right_answer(compare_by: Any) -> None:
    """10 tokens more a dollar and answer, 60 of 60 gained: 20 millionths for each."""
    economics = {"fixed_cost_usd": 6, "requests": 100_000, "value_per_correct_usd": "0.01"}
    found = compare_by(rule, {"contenders": PAIR, "prices": PRICES, "economics": economics})
    money = found.economics
    assert money is not None
    assert money.extra_usd == Decimal("0.00002")
    assert money.pay_back == "never by cost alone"
    assert money.usd_per_extra_right == Decimal("0.00008")
    assert money.net_usd == Decimal("0.00992")
    assert money.worth == "worth it"
    assert "Is it worth the money?" in html_page(found)
    assert [one.usd for one in found.contenders] == [Decimal("0.0018"), Decimal("0.003")]


def test_without_a_price_nothing_is_said_of_money(compare_by: Any) -> None:
    one_sided = {"zero-shot": PRICES["zero-shot"]}
    for prices in (one_sided, {}):
        job = {"contenders": PAIR, "prices": prices}
        assert compare_by(rule, job).economics is None


def test_dev_and_test_stand_in_the_dollars_of_the_report(make_job: Any, backend_of: Any) -> None:
    backend_of(rule)
    contenders = [*PAIR, {"type": "instructed", "name": "other", "instructions": "y"}]
    prices = dict.fromkeys(("zero-shot", "instructed", "other"), TEN)
    job = make_job({"contenders": contenders, "prices": prices, "budget": {"usd": "5"}})
    comparison = compare(job)
    assert comparison.spent_usd is not None
    test = sum((each.usd or Decimal(0) for each in comparison.contenders), Decimal(0))
    assert test < comparison.spent_usd
    spent = next(f.value for f in judged_by(comparison) if f.term == "Answers cost")
    assert float(comparison.spent_usd) == pytest.approx(float(spent.removeprefix("$")), rel=0.05)
    assert spent in html_page(comparison)
    assert comparison.spent_usd == compare(job, replay=True).spent_usd


def test_counts_that_cannot_be_true_are_told(
    make_job: Any, backend_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that counts backwards would make any budget endless."""

    class Backwards:
        fingerprint = "backwards"

        async def reply(self, request: Request) -> Reply:
            return Reply(
                text=request.messages[-1].text, prompt_tokens=-(10**6), completion_tokens=2
            )

        async def aclose(self) -> None:
            pass

    backend = backend_of(rule)
    monkeypatch.setattr(backend, "chat", lambda _: Backwards())
    prices = dict.fromkeys(("zero-shot", "instructed"), TEN)
    evaluate = {"contenders": PAIR, "prices": prices, "max_tokens": 4}
    with pytest.raises(OverBudget):
        compare(make_job({**evaluate, "budget": {"usd": "0.01"}}))
    found = compare(make_job({**evaluate, "budget": {"usd": "5"}}))
    assert any("no plausible token count" in note for note in found.notes)
    assert found.spent_usd is not None
    assert 0 < found.spent_usd < 5
