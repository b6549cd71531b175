"""What a run costs, as commands say it: so far while it runs, and as billed when it has ended."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from unitune.cost.documents import Estimate
from unitune.cost.reconcile import Reconciliation
from unitune.cost.spread import Spread, cents

if TYPE_CHECKING:
    from unitune.run.run import Run


def dollars(usd: Decimal) -> str:
    """Return an amount, rounded up to a cent: ``$1,204.50``."""
    return f"${cents(usd):,}"


def between(usd: Spread | None) -> str:
    """Return a range of money: ``$1.50 to $4.20, about $3.00``; ``unknown`` where it is."""
    if usd is None:
        return "unknown"
    if cents(usd.low) == cents(usd.high):
        return dollars(usd.high)
    return f"{dollars(usd.low)} to {dollars(usd.high)}, about {dollars(usd.expected)}"


def so_far(made: Estimate, step: float, steps: float) -> str:
    """Return what a training has cost after some of its steps, in words; empty if unknown."""
    share = Decimal(min(step / steps, 1.0))
    tokens, usd = made.trained_tokens, made.launch_usd
    if tokens is None or usd is None:
        return ""
    return f"about {tokens.expected * share:,.0f} tokens and {dollars(usd.expected * share)} so far"


def money_facts(run: Run) -> dict[str, str]:
    """Return what a run was reckoned to cost, and what it did."""
    rows: dict[str, str] = {}
    if run.estimate is not None:
        rows["reckoned"] = between(run.estimate.launch_usd)
    found = run.reconciliation
    if found is not None:
        rows["billed"] = billed(found)
        if beside := differences(found):
            rows["beside"] = beside
    return rows


def billed(found: Reconciliation) -> str:
    """Return what a run has cost, in words."""
    tokens = found.bill.tokens
    parts = [f"{tokens:,} trained tokens"] if tokens is not None else []
    parts.append("cost unknown" if found.usd is None else dollars(found.usd))
    text = ", ".join(parts)
    if found.provisional:
        text += f" (provisional: {_provisional(found)})"
    elif found.bill.usd is None and found.usd is not None:
        text += " at the price of the plan"
    return text + ("; more than the plan thought possible" if found.above_high else "")


def differences(found: Reconciliation) -> str:
    """Return what a bill says about the estimate, in words."""
    parts: list[str] = []
    if found.implausible:
        parts.append(f"implausible: {found.bill.tokens:,} tokens are billed, not one a row")
    if found.epochs is not None and found.implied_epochs is not None:
        parts.append(f"{found.epochs} epochs ({found.implied_epochs:.3f} by the tokens)")
    if found.framing_error is not None:
        parts.append(f"{found.framing_error:+.2f} tokens a row and epoch")
    if found.price_drift is not None:
        parts.append(f"price {found.price_drift:+.1%}")
    return ", ".join(parts)


def _provisional(found: Reconciliation) -> str:
    if found.end == "succeeded":
        return "the vendor does not say what it bills"
    return f"by the vendor's rule for what has {found.end}; the bill may differ"
