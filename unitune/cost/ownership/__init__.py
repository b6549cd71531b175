"""What owning an answer costs: a request, a month, a horizon; and from which volume tuning pays.

Pure arithmetic over plain arguments: US dollars are Decimal, tokens are int, and whatever hangs on
an unknown price is None, never zero. `request` prices one request with caching, `horizon` says over
how many months to reckon, `alternatives` puts ways of answering side by side. Where the figures
come from is the business of `unitune.tco`.
"""

from unitune.cost.ownership.alternatives import (
    Alternative,
    Crossover,
    Crossovers,
    Range,
    break_even,
    cheaper,
    payback,
)
from unitune.cost.ownership.horizon import Horizon, hours_a_month, months_until
from unitune.cost.ownership.request import CachingRule, Rates, Request, hit_rate_threshold

__all__ = [
    "Alternative",
    "CachingRule",
    "Crossover",
    "Crossovers",
    "Horizon",
    "Range",
    "Rates",
    "Request",
    "break_even",
    "cheaper",
    "hit_rate_threshold",
    "hours_a_month",
    "months_until",
    "payback",
]
