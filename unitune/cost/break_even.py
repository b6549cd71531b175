"""Ways of answering side by side: what each costs at a volume, and where one becomes cheaper.

Each costs something once, something a month, and something a request, so over M months and at n
requests a month T(n) = once + M (month + n request), a straight line. Two lines cross at most once,
and `cheaper` says where. What hangs on an unknown price is None, never zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from unitune.cost.spread import Spread
from unitune.security.spec import Frozen


class Range(StrEnum):
    """For which values something is cheaper than something else."""

    ALWAYS = "always"
    NEVER = "never"
    ABOVE = "above"
    BELOW = "below"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Crossover:
    """For which values from 0 on something is cheaper."""

    range: Range
    at: Decimal | None = None  # the value at which both cost the same; None unless above or below


def cheaper(fixed: Decimal, slope: Decimal) -> Crossover:
    """Return for which x from 0 on the difference fixed + slope * x lies below zero."""
    if fixed == slope == 0:
        return Crossover(Range.SAME)
    if fixed <= 0 and slope <= 0:
        return Crossover(Range.ALWAYS)
    if fixed >= 0 and slope >= 0:
        return Crossover(Range.NEVER)
    return Crossover(Range.ABOVE if slope < 0 else Range.BELOW, -fixed / slope)


class ServingCost(Frozen):
    """Cost of one way of answering; None is unknown."""

    once_usd: Spread | None
    """Paid before the first request: training, evaluation, preparing data."""
    month_usd: Spread | None
    """Paid each month, used or not: hosting, storage."""
    request_usd: Spread | None

    def total(self, requests_month: Decimal, months: Decimal) -> Spread | None:
        """Return what it costs over a horizon; None where a part is not known."""
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
    """Where a challenger is cheaper than an incumbent."""

    # The challenger at its lowest, the incumbent at its highest; worst is the reverse
    best: Crossover
    expected: Crossover
    worst: Crossover


def break_even(
    challenger: ServingCost, incumbent: ServingCost, months: Decimal
) -> Crossovers | None:
    """Return from which requests a month on the challenger costs less over the horizon.

    The break-even is n* = ((F - F') / M + H - H') / (k' - k), with F once, H a month, k a request
    and M the months, above 0; ' is the incumbent. None where a part of either is not known.
    """
    return _crossovers(
        challenger,
        incumbent,
        lambda once, month, request: cheaper(once / months + month, request),
    )


def payback(
    challenger: ServingCost, incumbent: ServingCost, requests_month: Decimal
) -> Crossovers | None:
    """Return after how many months the challenger has earned what it costs once.

    That is (F - F') / (n (k' - k) - (H - H')), for n requests a month; else as in `break_even`.
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
