"""What the shipped offers make of a job's cost, through the public `plan` and `own`."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from unitune import Job, plan
from unitune.backends import registry
from unitune.cost.documents import Estimate, Line
from unitune.cost.reconcile import Bill, End, reconcile
from unitune.cost.spread import Spread
from unitune.cost.tokens import Count

HOUR = Decimal(1)


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITUNE_TODAY", "2026-11-26")


@pytest.fixture
def estimate(tmp_path: Path) -> Any:
    def make(backend: str, model: str, rows: int = 40, **changes: object) -> Estimate:
        for name in ("train", "validation"):
            lines = (
                json.dumps({"prompt": f"{name} question {at * 7919}", "completion": "yes"})
                for at in range(rows)
            )
            (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        content = {
            "name": "demo",
            "backend": backend,
            "model": model,
            "data": {"train": "train.jsonl", "validation": "validation.jsonl"},
            **changes,
        }
        (tmp_path / "job.json").write_text(json.dumps(content), encoding="utf-8")
        made = plan(Job.load(tmp_path / "job.json")).estimate
        assert made is not None
        return made

    return make


@pytest.mark.parametrize("size", ["micro-v1:0:128k", "lite-v1:0:300k", "pro-v1:0:300k"])
def test_a_models_own_billing_rule_comes_before_its_vendors(estimate: Any, size: str) -> None:
    """Nova makes 2 epochs where none are set.

    Source: docs.aws.amazon.com/bedrock/latest/userguide, cm-hp-nova-mm.
    """
    made = estimate("bedrock", f"amazon.nova-{size}")
    assert Count.of(2) == made.epochs


def test_a_training_of_all_weights_has_another_price_than_loras(estimate: Any) -> None:
    full = estimate("together", "Qwen/Qwen3-8B", options={"together": {"training": "full"}})
    lora = estimate("together", "Qwen/Qwen3-8B")
    assert [(row.tier, row.written) for made in (full, lora) for row in made.launch_prices] == [
        ("full", "0.38-0.54"),
        ("lora", "0.34-0.48"),
    ]


REWARD = {"group_size": 4, "max_tokens": 64, "temperature": 0.7}


def test_free_reinforcement_at_fireworks_is_known_to_cost_nothing(estimate: Any) -> None:
    """Sources: docs.fireworks.ai/fine-tuning/managed-finetuning-intro, free below 16B."""
    more = {
        "method": "rft",
        "tuning": {"epochs": 2, "reward": REWARD},
        "options": {"fireworks": {"evaluator": "accounts/acme/evaluators/exact"}},
    }
    made = estimate("fireworks", "Qwen/Qwen3-8B", **more)
    large = estimate("fireworks", "Qwen/Qwen3-32B", **more)
    assert Spread.of(Decimal(0)) == made.launch_usd
    assert None is large.launch_usd


@pytest.mark.parametrize(
    ("backend", "model"),
    [("bedrock", "amazon.nova-micro-v1:0:128k"), ("vertex", "gemini-3.5-flash")],
)
def test_hosting_where_idle_costs_nothing_is_not_unknown(
    estimate: Any, backend: str, model: str
) -> None:
    (line,) = estimate(backend, model).of("hosting")
    assert Spread.of(Decimal(0)) == line.usd


def test_where_regions_differ_a_price_is_a_range(estimate: Any) -> None:
    """gpt-4.1 trains at 27.50 in six regions, at 30.25 in one, at 33.00 in one.

    Source: Azure Retail Prices API, meter "gpt-4.1 FT Training regional Tokens", 2026-08-11.
    """
    made = estimate("azure", "gpt-4.1-2025-04-14", tuning={"epochs": 1})
    (line,) = made.of("training")
    tokens = made.trained_tokens
    assert tokens is not None
    assert line.usd is not None
    assert Decimal("27.50") * tokens.low / 1_000_000 == line.usd.low
    assert Decimal("33.00") * tokens.high / 1_000_000 == line.usd.high
    assert any("$27.50 to $33.00 a million tokens" in said for said in made.assumptions)


def test_a_named_region_type_has_its_one_price(estimate: Any) -> None:
    made = estimate(
        "azure",
        "gpt-4.1-2025-04-14",
        tuning={"epochs": 1},
        options={"azure": {"training_type": "GlobalStandard"}},
    )
    (row,) = made.launch_prices
    assert (None, Decimal(25)) == (row.usd_least, row.usd)


@pytest.mark.parametrize(
    ("model", "end"),
    [
        ("gpt-4.1-2025-04-14", date(2027, 10, 14)),
        ("gpt-4.1-mini-2025-04-14", date(2027, 10, 14)),
        ("gpt-4.1-nano-2025-04-14", date(2027, 10, 14)),
        ("gpt-4o-2024-08-06", date(2027, 10, 1)),
        ("gpt-4o-mini-2024-07-18", date(2027, 10, 1)),
        ("o4-mini-2025-04-16", date(2027, 10, 16)),
    ],
)
def test_tuned_models_of_azure_end_when_microsoft_says(model: str, end: date) -> None:
    """Source: MicrosoftDocs/azure-ai-docs, retirement schedule of 2026-07-07, Fine-tuned models."""
    offered = registry.offer("azure").model(model)
    assert offered is not None
    assert end == offered.retires_on
    assert offered.tunable_until is not None
    assert offered.tunable_until < end


def test_without_packing_only_training_rows_are_charged_as_the_longest(estimate: Any) -> None:
    """Together pads training rows; validation rows are charged as they are.

    Source: docs.together.ai/docs/fine-tuning/pricing, "How tokens are counted".
    """
    options = {"together": {"packing": False, "n_evals": 10}}
    tuning = {"sequence_length": 8192, "epochs": 1}
    made = estimate("together", "Qwen/Qwen3-8B", options=options, tuning=tuning)
    packed = estimate(
        "together", "Qwen/Qwen3-8B", options={"together": {"n_evals": 10}}, tuning=tuning
    )
    assert Count.of(40 * 8192) == made.trained_tokens
    assert packed.of("validation") == made.of("validation")


def reinforcement(model: str, end: End, bill: Bill) -> Decimal | None:
    offer = registry.offer("azure")
    row = next(
        row
        for row in offer.price_rows()
        if row.kind == "training" and row.method == "rft" and row.tier == "global"
    )
    usd = Spread(Decimal(0), Decimal(500), Decimal(500))
    line = Line(item="training", price=row.id, usd=usd)
    made = Estimate(
        backend="azure",
        model=model,
        day=date(2026, 11, 26),
        basis="",
        rows=100,
        epochs=Count.of(1),
        epoch_tokens=None,
        counted_epochs=Count.of(1),
        counted_tokens=None,
        lines=(line,),
        prices=(row,),
        assumptions=(),
    )
    return reconcile(made, bill, end, offer.terms(model).billing).usd


def test_reinforcement_that_fails_is_charged_until_its_last_checkpoint() -> None:
    """It trains 2 hours, writes a checkpoint, trains 1 hour more and fails: 2 hours are billable.

    Source: MicrosoftDocs/azure-ai-docs, fine-tuning cost management, "Job failures and
    cancellations" (2026-02-11); $100 an hour.
    """
    model = "o4-mini-2025-04-16"
    bill = Bill(hours=3 * HOUR, saved_hours=2 * HOUR)
    assert reinforcement(model, "failed", bill) == Decimal(200)
    assert reinforcement(model, "failed", Bill(hours=3 * HOUR)) == Decimal(300)
    assert reinforcement(model, "cancelled", bill) == Decimal(300), "the work completed"
    assert reinforcement("gpt-4.1-2025-04-14", "failed", bill) == Decimal(0), "SFT is not billed"


SCORE_MODEL = {
    "type": "score_model",
    "name": "judge",
    "model": "o3-mini-2025-01-31",
    "input": [{"role": "user", "content": "Grade {{sample.output_text}}"}],
}


def graded(estimate: Any, **changes: Any) -> Any:
    """Return the estimate of four hours of training with the grader of Microsoft's example."""
    options = {
        "training_type": "global",
        "grader": SCORE_MODEL,
        "grader_tokens": {"input": 5_000_000, "output": 4_900_000},
        **changes,
    }
    return estimate(
        "azure",
        "o4-mini-2025-04-16",
        method="rft",
        budget={"usd": 1000, "hours": 4},
        options={"azure": {key: value for key, value in options.items() if value is not None}},
    )


def test_the_tokens_of_a_model_that_grades_are_paid_besides_the_hours(estimate: Any) -> None:
    """4 h x $100, and 5 million tokens read and 4.9 million written by o3-mini at data zone rates.

    Source: MicrosoftDocs/azure-ai-docs, fine-tuning cost management (2026-02-11), the example with
    a model grader; its rates of 1.10 and 4.40 (a sum of $427.06) are those of global answers, the
    meters "o3-mini-ft model grader" have 1.21 and 4.84 (2026-08-11).
    """
    made = graded(estimate)
    (graders,) = made.of("graders")
    assert graders.usd.expected == 5 * Decimal("1.21") + Decimal("4.9") * Decimal("4.84")
    assert made.launch_usd.expected == 400 + Decimal("29.766")


def test_a_model_inside_a_multi_grader_is_paid_too(estimate: Any) -> None:
    multi = {"type": "multi", "graders": {"judge": SCORE_MODEL}, "calculate_output": "judge"}
    assert graded(estimate, grader=multi).launch_usd == graded(estimate).launch_usd


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"grader_tokens": None}, "set options.azure.grader_tokens"),
        ({"grader": {**SCORE_MODEL, "model": "newcomer-1"}}, "price of newcomer-1 as grader"),
    ],
)
def test_unknown_tokens_or_prices_of_a_grader_leave_the_sum_unknown(
    estimate: Any, changes: dict[str, Any], reason: str
) -> None:
    made = graded(estimate, **changes)
    assert made.launch_usd is None
    assert reason in made.of("graders")[0].because
