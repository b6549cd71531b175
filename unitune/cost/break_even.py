"""Compare the costs of serving options and find where one becomes cheaper.

Over M months with n requests a month, an option costs T(n) = once + M (month + n request), a
straight line. Two lines cross at most once. Results that depend on an unknown price are None.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from unitune.cost.spread import Spread
from unitune.documents import Frozen


class Range(StrEnum):
    """Range of values for which something is cheaper."""

    ALWAYS = "always"
    NEVER = "never"
    ABOVE = "above"
    BELOW = "below"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Crossover:
    """Values from 0 for which something is cheaper."""

    range: Range
    at: Decimal | None = None  # value of equal cost; None unless the range is above or below


def cheaper(fixed: Decimal, slope: Decimal) -> Crossover:
    """Return the x >= 0 for which the difference fixed + slope * x is negative."""
    if fixed == slope == 0:
        return Crossover(Range.SAME)
    if fixed <= 0 and slope <= 0:
        return Crossover(Range.ALWAYS)
    if fixed >= 0 and slope >= 0:
        return Crossover(Range.NEVER)
    return Crossover(Range.ABOVE if slope < 0 else Range.BELOW, -fixed / slope)


class ServingCost(Frozen):
    """Cost of one serving option, in US dollars; None is unknown."""

    once_usd: Spread | None
    """Cost before the first request: training, evaluation, preparing data."""
    month_usd: Spread | None
    """Monthly cost regardless of use: hosting, storage."""
    request_usd: Spread | None

    def total(self, requests_month: Decimal, months: Decimal) -> Spread | None:
        """Return the cost over a horizon, or None if a part is unknown."""
        if self.once_usd is None or self.month_usd is None or self.request_usd is None:
            return None
        requests = self.request_usd.scaled(requests_month * months)
        return self.once_usd + self.month_usd.scaled(months) + requests

    def monthly(self, requests_month: Decimal, months: Decimal) -> Spread | None:
        """Return `total` spread evenly over the months, which must be above 0."""
        total = self.total(requests_month, months)
        return None if total is None else total.scaled(1 / months)


@dataclass(frozen=True, slots=True)
class Crossovers:
    """Ranges in which a challenger is cheaper than an incumbent."""

    # Best compares the challenger's low end with the incumbent's high end; worst is the reverse
    best: Crossover
    expected: Crossover
    worst: Crossover


def break_even(
    challenger: ServingCost, incumbent: ServingCost, months: Decimal
) -> Crossovers | None:
    """Return the requests a month at which the challenger costs less over the horizon.

    The break-even is n* = ((F - F') / M + H - H') / (k' - k), with F once, H a month, k a request
    and M the months, above 0; ' marks the incumbent. None if a part of either is unknown.
    """
    return _crossovers(
        challenger,
        incumbent,
        lambda once, month, request: cheaper(once / months + month, request),
    )


def payback(
    challenger: ServingCost, incumbent: ServingCost, requests_month: Decimal
) -> Crossovers | None:
    """Return the months after which the challenger has recovered its one-time cost.

    The formula is (F - F') / (n (k' - k) - (H - H')) for n requests a month, with the symbols of
    `break_even`.
    """
    return _crossovers(
        challenger,
        incumbent,
        lambda once, month, request: cheaper(once, month + requests_month * request),
    )


def _crossovers(
    challenger: ServingCost,
    incumbent: ServingCost,
    solve: Callable[[Decimal, Decimal, Decimal], Crossover],
) -> Crossovers | None:
    sides = (
        (challenger.once_usd, incumbent.once_usd),
        (challenger.month_usd, incumbent.month_usd),
        (challenger.request_usd, incumbent.request_usd),
    )
    pairs = [(ours, theirs) for ours, theirs in sides if ours is not None and theirs is not None]
    if len(pairs) < len(sides):
        return None
    return Crossovers(
        best=solve(*(ours.low - theirs.high for ours, theirs in pairs)),
        expected=solve(*(ours.expected - theirs.expected for ours, theirs in pairs)),
        worst=solve(*(ours.high - theirs.low for ours, theirs in pairs)),
    )
