"""One budget holds all that a comparison asks: contenders, general questions, scorers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from unitune.errors import Mismatch, OverBudget
from unitune.evaluate.compare import compare
from unitune.evaluate.retention import probes
from unitune.job.job import Job
from unitune.models import Reply, Request
from unitune.report.html import render
from unitune.run.run import launch
from unitune.testing.loopback import Server, VendorRequest, VendorResponse, serve

PROMPTED: list[Any] = [
    "zero-shot",
    {"type": "instructed", "instructions": "x", "role": "candidate"},
]


def price(usd: int) -> dict[str, int]:
    return {"input": usd, "output": usd}


@pytest.fixture
def tuned(make_job: Any) -> Any:
    """Make a job whose general questions cost far more than its cases, and train it."""

    def make(usd: str) -> Job:
        prices = {"base": price(100), "tuned": price(100)}
        evaluate = {"contenders": ["zero-shot", "tuned"], "retention": True, "max_tokens": 8}
        job = make_job(
            evaluate | {"prices": prices, "budget": {"usd": usd}},
            test=[(f"test {at}", "yes") for at in range(5)],
            dev=[("dev", "yes")],
        )
        launch(job, allow_duplicate=True).wait()
        return job

    return make


def test_general_questions_are_paid_from_the_same_budget(tuned: Any, tmp_path: Path) -> None:
    job = tuned("0.12")
    with pytest.raises(OverBudget, match="retention, base: the next answer"):
        compare(job, out=tmp_path / "out")
    rows = [
        json.loads(line)
        for name in ("rows", "dev", "probes")
        for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()
    ]
    tokens = sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows)
    assert 0 < tokens * 100 / 1e6 <= 0.12
    with pytest.raises(OverBudget):
        compare(job, out=tmp_path / "out")
    assert len(rows) < 5 * 2 + 2 * len(probes()), "what was asked is charged the next time, too"


def test_general_questions_stand_in_the_dollars_of_the_report(tuned: Any) -> None:
    job = tuned("5")
    found = compare(job)
    assert found.retention is not None
    assert found.retention.usd is not None
    assert found.spent_usd is not None
    test = sum((one.usd or Decimal(0) for one in found.contenders), Decimal(0))
    assert test + found.retention.usd <= found.spent_usd
    assert f"{found.spent_usd:,.4f} USD" in render(found)
    assert found.spent_usd == compare(job, replay=True).spent_usd


class Endpoint:
    """An endpoint of embeddings that counts 100 tokens a text."""

    def __init__(self) -> None:
        self.texts = 0

    def answer(self, asked: VendorRequest) -> VendorResponse:
        texts = json.loads(asked.body)["input"]
        self.texts += len(texts)
        rows = [{"index": at, "embedding": [1.0, float(at)]} for at in range(len(texts))]
        return VendorResponse({"data": rows, "usage": {"prompt_tokens": 100 * len(texts)}})


@pytest.fixture
def endpoint() -> Iterator[tuple[Endpoint, Server]]:
    vendor = Endpoint()
    with serve(vendor) as server:
        yield vendor, server


def embedded(make_job: Any, server: Server, **evaluate: Any) -> Job:
    scorer = {
        "type": "embedding",
        "model": "e",
        "base_url": f"{server.url}/v1",
        "api_key_variable": None,
    }
    return make_job({"contenders": PROMPTED, "scorers": [scorer], **evaluate})


def rule(_name: str, request: Request) -> str:
    return f"answer to {request.messages[-1].text}, told {len(request.messages[0].text)}"


def test_embeddings_are_paid_from_the_same_budget(
    make_job: Any, backend_of: Any, endpoint: tuple[Endpoint, Server], tmp_path: Path
) -> None:
    vendor, server = endpoint
    backend_of(rule)
    free = {name: price(0) for name in ("zero-shot", "instructed")}
    evaluate = {"prices": {**free, "e": price(10)}, "budget": {"usd": "0.07"}}
    with pytest.raises(OverBudget, match="the scorer embedding may cost up to"):
        compare(embedded(make_job, server, **evaluate), out=tmp_path / "out")
    assert 0 < vendor.texts * 100 * 10 / 1e6 <= 0.07

    enough = embedded(make_job, server, **(evaluate | {"budget": {"usd": "1"}}))
    found = compare(enough, out=tmp_path / "out")
    assert Decimal(vendor.texts) * 100 * 10 / 1_000_000 == found.spent_usd, "both calls together"


def test_a_replay_asks_for_no_embedding(
    make_job: Any,
    backend_of: Any,
    endpoint: tuple[Endpoint, Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vendor, server = endpoint
    backend_of(rule)
    job = embedded(make_job, server)
    found = compare(job, out=tmp_path / "out")
    asked = vendor.texts
    again = compare(job, out=tmp_path / "out", replay=True)
    assert (asked, found.difference) == (vendor.texts, again.difference)
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "another machine"))
    with pytest.raises(Mismatch, match="a replay asks for none"):
        compare(job, out=tmp_path / "out", replay=True)
    assert asked == vendor.texts


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
    assert any("no possible count" in note for note in found.notes)
    assert found.spent_usd is not None
    assert 0 < found.spent_usd < 5
