"""What tuning costs beside the score, in words: money, and what was forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from unitune.evaluate.results import Comparison, Money
from unitune.report.facts import Fact, level
from unitune.report.typography import counted, percent


def retention(comparison: Comparison) -> Iterator[Fact]:
    """Tell what the tuned model still knows, where that was asked."""
    found = comparison.retention
    if found is None:
        return
    if found.share is None or found.interval is None:
        yield Fact("Still known", "not known", "The base got no general question right.")
        return
    low, high = (percent(end) for end in found.interval)
    yield Fact(
        "Still known",
        percent(found.share),
        f"Of {counted(found.base_right, 'general question')} that the base got right "
        f"({level(comparison)} interval: {low} to {high}); it alone gets {len(found.gained)} more. "
        "A warning light and no benchmark.",
    )


def spent(comparison: Comparison) -> Iterator[Fact]:
    """Tell what all that was asked has cost, where that is known."""
    usd = comparison.spent_usd
    if usd is not None:
        what = "All that was asked: dev, test, general questions and scorers that ask a model."
        yield Fact("Answers cost", f"{usd:,.4f} USD", what)


def economics(found: Money) -> tuple[Fact, ...]:
    """Return whether the candidate is worth its money; only what is known.

    Args:
        found: In US dollars.
    """
    facts = (
        Fact("Worth it?", found.worth or "", "Quality and cost together, case by case."),
        Fact(
            "An answer costs more by",
            _usd(found.extra_usd, found.extra_interval_usd),
            "Below zero, it is cheaper than the baseline's.",
        ),
        Fact("Pays for itself", _pay_back(found), "By cheaper answers alone, whatever they say."),
        Fact("One more right answer costs", _usd(found.usd_per_extra_right)),
        Fact(
            "Net benefit of an answer",
            _usd(found.net_usd, found.net_interval_usd),
            "What it is worth that more are right, less what they cost more.",
        ),
        Fact(
            "Worth it from",
            _usd(found.smallest_worth_usd),
            "If one more right answer is worth so much or more.",
        ),
    )
    return tuple(fact for fact in facts if fact.value)


def _usd(
    amount: Decimal | None, interval: tuple[Decimal | None, Decimal | None] | None = None
) -> str:
    if amount is None:
        return ""
    if interval is None:
        return f"{amount:,f} USD"
    low, high = ("unbounded" if end is None else f"{end:,f}" for end in interval)
    return f"{amount:,f} USD ({low} to {high})"


def _pay_back(found: Money) -> str:
    if found.break_even_answers is not None:
        return f"after {counted(found.break_even_answers, 'answer')}"
    return "" if found.pay_back is None or found.pay_back == "after" else found.pay_back
