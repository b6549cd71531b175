"""What a comparison says of money, from its answers to its report."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from unitune.evaluate.compare import compare
from unitune.evaluate.documents.results import Comparison
from unitune.models import Request
from unitune.report.files import html_page

PROMPTED: list[Any] = [
    "zero-shot",
    {"type": "instructed", "instructions": "x", "role": "candidate"},
]
PRICES = {"zero-shot": {"input": 1, "output": 10}, "instructed": {"input": 3, "output": 10}}


def rule(_name: str, request: Request) -> str:
    return "yes" if "x" in request.messages[0].text else "no"


def judged(make_job: Any, backend_of: Any, **evaluate: Any) -> Comparison:
    backend_of(rule)
    return compare(make_job({"contenders": PROMPTED, **evaluate}))


def test_dearer_and_better_has_a_price_for_each_right_answer(
    make_job: Any, backend_of: Any
) -> None:
    """10 tokens more a dollar and answer, 60 of 60 gained: 20 millionths for each."""
    economics = {"fixed_cost_usd": 6, "requests": 100_000, "value_per_correct_usd": "0.01"}
    found = judged(make_job, backend_of, prices=PRICES, economics=economics)
    money = found.economics
    assert money is not None
    assert money.extra_usd == Decimal("0.00002")
    assert money.pay_back == "never by cost alone"
    assert money.usd_per_extra_right == Decimal("0.00008")
    assert money.net_usd == Decimal("0.00992")
    assert money.worth == "worth it"
    assert "Is it worth the money?" in html_page(found)
    assert [one.usd for one in found.contenders] == [Decimal("0.0018"), Decimal("0.003")]


def test_without_a_price_nothing_is_said_of_money(make_job: Any, backend_of: Any) -> None:
    one_sided = {"zero-shot": PRICES["zero-shot"]}
    assert judged(make_job, backend_of, prices=one_sided).economics is None
    assert judged(make_job, backend_of).economics is None
