"""Weigh what tuning gains in right answers against what it costs more than prompting."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import NamedTuple

from unitune.cost.spread import Spread
from unitune.decision.evidence import Evidence, TuningOption
from unitune.tco.documents import TotalCost

FAR_MORE, DEAR_USD = 10, 1.0
"""From so many times the cost of prompting on, and from so much for one more right answer, the
worth of a right answer is asked for: a minute of a person's work costs about as much."""


class NetWorth(NamedTuple):
    """Worth of right answers and extra cost of tuning, over the horizon, in US dollars."""

    value: float
    """Of all answers, were each right that was wrong."""
    extra: float
    """Total cost of the tuned model minus that of prompting the same base."""

    def of_gain(self, gain: float) -> float:
        """Return what is left of a gain in score."""
        return self.value * gain - self.extra


def totals(cost: TotalCost) -> tuple[Spread | None, Spread | None]:
    """Return the total costs of the prompted model and of the tuned one."""
    by_role = {each.role: each.total_usd for each in cost.columns}
    return by_role.get("prompted"), by_role.get("tuned")


def saving(cost: TotalCost | None) -> Decimal:
    """Return how much less a tuned model costs than the prompted one, over the horizon."""
    prompted, tuned = totals(cost) if cost else (None, None)
    return prompted.expected - tuned.expected if prompted and tuned else Decimal(0)


def net_worth(option: TuningOption, evidence: Evidence) -> NetWorth | None:
    """Weigh an option; None where volume or worth is not given, or a price is not known."""
    value, cost = evidence.value_per_correct_usd, option.cost
    if not value or cost is None or not evidence.volume_given or None in totals(cost):
        return None
    requests = cost.requests_month * cost.horizon.months
    return NetWorth(float(value * requests), -float(saving(cost)))


def usd_per_right_answer(option: TuningOption) -> float | None:
    """Return what one more right answer costs; None unless tuning is far dearer than prompting."""
    prompted, tuned = totals(option.cost) if option.cost else (None, None)
    if not (option.cost and prompted and tuned) or tuned.expected < FAR_MORE * prompted.expected:
        return None
    answers = float(option.cost.requests_month * option.cost.horizon.months)
    gained = option.shown_gain.value * answers
    usd = -float(saving(option.cost)) / gained if gained > 0 else math.inf
    return usd if usd >= DEAR_USD else None
