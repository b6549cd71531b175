"""Weigh the quality of a tuned model against its cost on the same cases.

All figures are per answer. One-time costs (training, data, evaluation, a deployment over the
horizon) are spread over the horizon's answers. A figure that depends on something unknown is None.

The net benefit of an answer is a mean over cases, of worth · difference in score - difference in
cost, so its interval is the score interval, with quality and cost joined case by case. (The usual
bootstrap has larger errors: see `difference_interval`.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from unitune.cost.break_even import cheaper
from unitune.evaluate.documents.results import Money, PayBack, UsdInterval
from unitune.evaluate.statistics.intervals import (
    Clusters,
    FloatArray,
    Interval,
    Units,
    difference_interval,
)
from unitune.evaluate.statistics.paired import LEVEL
from unitune.job.job import Economics

MOST_WORTH_USD = 1e9  # upper limit of the search for the smallest worth of a correct answer


def weigh(
    score_differences: FloatArray,  # (N,)
    baseline_usd: Sequence[Decimal | None],  # (N,)
    candidate_usd: Sequence[Decimal | None],  # (N,)
    economics: Economics,
    *,
    clusters: Clusters | None = None,  # (N,)
) -> Money | None:
    """Weigh quality against cost on the same cases; None if the price of any answer is unknown.

    Score differences are candidate minus baseline, each from -1 to 1; prices are per case.

    Raises:
        ValueError: The three do not have one entry per case.

    Source:
        Net benefit: Stinnett and Mullahy 1998, Med Decis Making 18:S68.
    """
    if not len(score_differences) == len(baseline_usd) == len(candidate_usd):
        raise ValueError(
            f"expected one price per case and contender, got {len(baseline_usd)} and "
            f"{len(candidate_usd)} for {len(score_differences)} cases"
        )
    old, new = _known(baseline_usd), _known(candidate_usd)
    if old is None or new is None:
        return None
    fixed, requests = economics.fixed_cost_usd, economics.requests
    once = None if fixed is None or requests is None else float(fixed) / requests
    balance = _Balance(score_differences, new - old, clusters, once)
    extra, extra_mean = balance.interval(balance.extra), float(balance.extra.mean())
    pay_back: PayBack = "after" if extra.high < 0 else "not determined"
    pay_back = "never by cost alone" if extra.low >= 0 else pay_back
    break_even = None
    if pay_back == "after" and fixed is not None:
        break_even = math.ceil(cheaper(fixed, _money(extra_mean)).at or 0)
    value = economics.value_per_correct_usd
    net = None if value is None else balance.net_interval(float(value))
    worth = None
    if net is not None:
        worth = "worth it" if net.low > 0 else "not worth it" if net.high < 0 else "unclear"
    return Money(
        extra_usd=_money(extra_mean),
        extra_interval_usd=_ends(extra),
        pay_back=pay_back,
        break_even_answers=break_even,
        usd_per_extra_right=balance.usd_per_extra_right(),
        net_usd=net and _money(balance.net(float(value or 0))),
        net_interval_usd=net and _ends(net),
        worth=worth,
        smallest_worth_usd=balance.smallest_worth(),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Balance:
    """Quality and cost of an answer, case by case; `once` is None if unknown."""

    quality: FloatArray  # (N,)
    extra: FloatArray  # (N,)
    clusters: Clusters | None
    once: float | None

    def interval(self, values: FloatArray, bound: float = 0.0) -> Interval:
        """Return the interval of a mean, with zero width if nothing costs anything."""
        if not values.any():
            return Interval(0.0, 0.0, LEVEL)
        return difference_interval(Units.of(values, self.clusters, bound), LEVEL)

    def net(self, worth: float) -> float:
        return float((worth * self.quality - self.extra).mean()) - (self.once or 0.0)

    def net_interval(self, worth: float) -> Interval | None:
        if self.once is None:
            return None
        bound = worth + float(np.abs(self.extra).max())
        gross = self.interval(worth * self.quality - self.extra, bound)
        return Interval(gross.low - self.once, gross.high - self.once, gross.level)

    def usd_per_extra_right(self) -> Decimal | None:
        if self.once is None or self.interval(self.quality, 1.0).low <= 0:
            return None
        return _money((float(self.extra.mean()) + self.once) / float(self.quality.mean()))

    def smallest_worth(self) -> Decimal | None:
        """Return the worth for which the lower end of the net benefit rises above 0."""
        from scipy.optimize import brentq  # noqa: PLC0415 - slow to import

        def low(worth: float) -> float:
            net = self.net_interval(worth)
            return -math.inf if net is None else net.low

        if low(MOST_WORTH_USD) <= 0:
            return None
        if low(0.0) > 0:
            return Decimal(0)
        return _money(brentq(low, 0.0, MOST_WORTH_USD, xtol=1e-12, maxiter=500))


def _known(prices: Sequence[Decimal | None]) -> FloatArray | None:
    known = [float(price) for price in prices if price is not None]
    return np.array(known) if len(known) == len(prices) else None


def _money(usd: float) -> Decimal:
    """Return dollars with six significant digits, more than any price has."""
    return Decimal(f"{usd:.6g}") + 0  # adding zero turns -0 into 0


def _ends(interval: Interval) -> UsdInterval:
    low, high = (None if math.isinf(end) else _money(end) for end in interval.ends)
    return low, high
