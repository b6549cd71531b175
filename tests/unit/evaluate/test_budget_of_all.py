"""One budget holds all that a comparison requests, and no count that cannot be true empties it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from unitune.errors import OverBudget
from unitune.evaluate.compare import compare
from unitune.models import Reply, Request
from unitune.report.facts import judged_by
from unitune.report.files import html_page

PROMPTED: list[Any] = [
    "zero-shot",
    {"type": "instructed", "instructions": "x", "role": "candidate"},
]


def price(usd: int) -> dict[str, int]:
    return {"input": usd, "output": usd}


def rule(_name: str, request: Request) -> str:
    return f"answer to {request.messages[-1].text}, told {len(request.messages[0].text)}"


def test_dev_and_test_stand_in_the_dollars_of_the_report(make_job: Any, backend_of: Any) -> None:
    backend_of(rule)
    prices = {"zero-shot": price(10), "instructed": price(10)}
    contenders = [*PROMPTED, {"type": "instructed", "name": "other", "instructions": "y"}]
    prices["other"] = price(10)
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
    prices = {"zero-shot": price(10), "instructed": price(10)}
    evaluate = {"contenders": PROMPTED, "prices": prices, "max_tokens": 4}
    with pytest.raises(OverBudget):
        compare(make_job({**evaluate, "budget": {"usd": "0.01"}}))
    found = compare(make_job({**evaluate, "budget": {"usd": "5"}}))
    assert any("no plausible token count" in note for note in found.notes)
    assert found.spent_usd is not None
    assert 0 < found.spent_usd < 5
