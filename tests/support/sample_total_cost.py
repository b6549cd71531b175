"""TotalCost of the example's tuned model, priced by rows of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unitune.cost.prices.book import PriceBook
from unitune.job.job import Job
from unitune.job.prices import PriceEntry, rows_of
from unitune.ownership.serving import TotalCost
from unitune.ownership.total_cost import total_cost

EXAMPLE = Path(__file__).parents[2] / "examples" / "bank-intents"
TOKENS = {
    "prompted_tokens": 1800,
    "tuned_tokens": 90,
    "shared_tokens": 1700,
    "answer_tokens": 25,
}
PRICES: dict[str, Any] = {
    "as_of": "2026-11-01",
    "source": "a contract",
    "source_kind": "own",
    "rows": [
        {"training": "5.00", "hosting": "0.05"},
        {"input": "0.40", "cached-input": "0.10", "output": "1.60"},
        {"tuned": True, "input": "0.40", "cached-input": "0.10", "output": "1.60"},
    ],
}
ALTERNATIVE = {"model": "newcomer-1"}


def job(model: str = "gpt-4.1-mini-2025-04-14", backend: str = "azure", **usage: Any) -> Job:
    """Return the example's job with a usage; tokens are given unless it says otherwise."""
    return Job.model_validate(
        {
            "name": "triage",
            "model": model,
            "backend": backend,
            "data": {"train": "train.jsonl", "test": "test.jsonl"},
            "tuning": {"epochs": 3},
            "usage": {**TOKENS, **usage},
            "folder": EXAMPLE,
        }
    )


def book(*entries: dict[str, Any], backend: str = "azure") -> PriceBook:
    """Return a price book of entries for any model; by default those above."""
    found = [PriceEntry.model_validate(entry) for entry in entries or (PRICES,)]
    return PriceBook(own=rows_of(found, backend=backend, origin="user"))


def example_cost(**usage: Any) -> TotalCost:
    """Return the total cost of the example, tuned on Azure, with an alternative."""
    given: dict[str, Any] = {"alternative": ALTERNATIVE, **usage}
    return total_cost(job(**given), book())
