"""What a run costs, as commands say it: so far while it runs, and as billed when it has ended."""

from __future__ import annotations

from decimal import Decimal

from unitune import registry
from unitune.cost.estimate import Estimate, cents, estimate
from unitune.cost.prices.book import book_for
from unitune.data.load import load
from unitune.launching import BILL
from unitune.run import Run
from unitune.today import today


def price_of(run: Run) -> Estimate | None:
    """Return what a run would cost, from its rows; None where they or the price are not known."""
    offer = registry.offer(run.backend_name)
    rows = run.folder / "train.jsonl"
    if offer.training_price == "none" or not rows.exists():
        return None
    return estimate(run.job, offer, load(rows, use=run.job.method))


def so_far(priced: Estimate, step: float, steps: float) -> str:
    """Return what a training has cost after some of its steps, in words."""
    share = Decimal(min(step / steps, 1.0))
    tokens = priced.trained_tokens_expected * share
    return f"about {tokens:,.0f} tokens and ${cents(priced.usd_expected * share)} so far"


def bill_of(run: Run) -> str | None:
    """Return the tokens that the vendor bills, and what they cost; None where it does not say."""
    billed = [event.data["tokens"] for event in run.events() if event.key == BILL]
    if not billed or not isinstance(billed[0], int):
        return None
    price = book_for(run.job).find(
        run.backend_name, run.base_model, "training", method=run.job.method, on=today()
    )
    words = f"{billed[0]:,} trained tokens"
    if price is None or price.per != "million-tokens":
        return words
    usd = cents(price.usd * Decimal(billed[0]) / 1_000_000)
    return f"{words}, about ${usd} at ${price.usd} a million (as of {price.as_of})"
