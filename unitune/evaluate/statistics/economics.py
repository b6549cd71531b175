"""Is the tuned model worth its money? Quality and cost of the same cases in one answer.

All of it is per answer: what an answer costs more or less than the baseline's, and how much more
often it is right. What is paid once (training, data, evaluation, a deployment over the horizon) is
spread over the horizon's answers. Money comes in and goes out as Decimal US dollars; a figure that
hangs on something unknown is None, never zero.

The net benefit of an answer is a mean over cases as the score is, of worth · difference in score
- difference in cost, so its interval is the same score interval and quality and cost are joined
case by case. (The usual bootstrap errs more: see `difference_interval`.)

Not here: what an answer costs (usage times price), and quality alone (`compare_paired`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

import numpy as np

from unitune.cost.ownership import cheaper
from unitune.evaluate.statistics.intervals import Interval, difference_interval
from unitune.evaluate.statistics.units import Clusters, FloatArray, Units
from unitune.job.job import Stakes

MOST_WORTH_USD = 1e9
"""No search for the smallest worth of a right answer beyond."""


class Worth(StrEnum):
    """What money says about the candidate."""

    WORTH_IT = "worth it"
    NOT_WORTH_IT = "not worth it"
    UNCLEAR = "unclear"


class PayBack(StrEnum):
    """Whether cheaper answers alone pay for what was spent once."""

    AFTER = "after"
    NEVER = "never by cost alone"
    UNDETERMINED = "not determined"


@dataclass(frozen=True, slots=True)
class MoneyInterval:
    """A two-sided confidence interval in US dollars; an end that is None is open."""

    low: Decimal | None
    high: Decimal | None
    level: float


@dataclass(frozen=True, slots=True)
class Economics:
    """What money says, in US dollars; None is unknown or does not exist.

    Args:
        extra_usd: What an answer costs more than the baseline's.
        extra_interval: Of that.
        pay_back: Whether cheaper answers pay for what was spent once.
        break_even_answers: After so many of them; None unless pay_back is after.
        usd_per_extra_right: Cost of one more right answer at the horizon's volume; below 0 when
            the candidate is both better and cheaper. None unless the candidate is better for sure.
        net_usd: Net benefit of one answer.
        net_interval: Of that.
        worth: WORTH IT when the whole interval lies above 0, NOT WORTH IT when below.
        smallest_worth_usd: Smallest worth of a right answer at which it is worth it for sure; None
            when no worth makes it so.
    """

    extra_usd: Decimal | None = None
    extra_interval: MoneyInterval | None = None
    pay_back: PayBack | None = None
    break_even_answers: int | None = None
    usd_per_extra_right: Decimal | None = None
    net_usd: Decimal | None = None
    net_interval: MoneyInterval | None = None
    worth: Worth | None = None
    smallest_worth_usd: Decimal | None = None


def weigh(  # noqa: PLR0913 - each has a name
    score_differences: FloatArray,  # (N,)
    baseline_usd: Sequence[Decimal | None],  # (N,)
    candidate_usd: Sequence[Decimal | None],  # (N,)
    stakes: Stakes,
    *,
    clusters: Clusters | None = None,  # (N,)
    level: float = 0.95,
) -> Economics:
    """Weigh quality against cost on the same cases.

    Args:
        score_differences: Candidate minus baseline, each -1 to 1.
        baseline_usd: Price of the baseline's answer to each case; None is unknown.
        candidate_usd: Price of the candidate's.
        stakes: What else is paid and gained.
        clusters: Labels; cases with equal labels belong together.
        level: Confidence level of all intervals.

    Returns:
        All that can be said; nothing when the price of any answer is unknown.

    Raises:
        ValueError: The three do not have one entry a case.

    Source:
        Net benefit: Stinnett and Mullahy 1998, Med Decis Making 18:S68.
    """
    if not len(score_differences) == len(baseline_usd) == len(candidate_usd):
        raise ValueError(
            f"one price a case and contender, not {len(baseline_usd)} and {len(candidate_usd)} "
            f"for {len(score_differences)} cases"
        )
    old, new = _known(baseline_usd), _known(candidate_usd)
    if old is None or new is None:
        return Economics()
    scales = _Scales(
        quality=score_differences,
        extra=new - old,
        clusters=clusters,
        once=_once_per_answer(stakes),
        level=level,
    )
    worth = None if stakes.right_answer_usd is None else float(stakes.right_answer_usd)
    extra, extra_mean = scales.interval(scales.extra), float(scales.extra.mean())
    pay_back = _pay_back(extra)
    net = None if worth is None else scales.net(worth)
    net_interval = None if worth is None else scales.net_interval(worth)
    return Economics(
        extra_usd=_money(extra_mean),
        extra_interval=_money_interval(extra),
        pay_back=pay_back,
        break_even_answers=_break_even(pay_back, extra_mean, stakes.once_usd),
        usd_per_extra_right=scales.usd_per_extra_right(),
        net_usd=None if net is None else _money(net),
        net_interval=None if net_interval is None else _money_interval(net_interval),
        worth=None if net_interval is None else _verdict(net_interval),
        smallest_worth_usd=scales.smallest_worth(),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Scales:
    """Quality and cost of an answer, case by case."""

    quality: FloatArray  # (N,)
    extra: FloatArray  # (N,)
    clusters: Clusters | None
    once: float | None
    level: float

    def interval(self, values: FloatArray, bound: float = 0.0) -> Interval:
        """Return the interval of a mean; without width when nothing costs anything."""
        if not values.any():
            return Interval(0.0, 0.0, self.level)
        return difference_interval(Units.of(values, self.clusters, bound), self.level)

    def net(self, worth: float) -> float | None:
        """Return the net benefit; None when what was paid once is unknown."""
        if self.once is None:
            return None
        return float((worth * self.quality - self.extra).mean()) - self.once

    def net_interval(self, worth: float) -> Interval | None:
        """Return the interval of the net benefit; None when what was paid once is unknown."""
        if self.once is None:
            return None
        bound = worth + float(np.abs(self.extra).max())
        found = self.interval(worth * self.quality - self.extra, bound)
        return Interval(found.low - self.once, found.high - self.once, found.level)

    def usd_per_extra_right(self) -> Decimal | None:
        if self.once is None or self.interval(self.quality, 1.0).low <= 0:
            return None
        return _money((float(self.extra.mean()) + self.once) / float(self.quality.mean()))

    def smallest_worth(self) -> Decimal | None:
        """Return where the lower end of the net benefit comes above 0, by halving."""
        if self.once is None or not self._pays(MOST_WORTH_USD):
            return None
        low, high = 0.0, MOST_WORTH_USD
        if self._pays(low):
            return Decimal(0)
        while high - low > 1e-6 * high:
            # Geometric once above zero: the answer may be a thousandth of a cent or a thousand.
            middle = math.sqrt(low * high) if low else high / 1000
            low, high = (low, middle) if self._pays(middle) else (middle, high)
            if high < 1e-12:
                break
        return _money(high)

    def _pays(self, worth: float) -> bool:
        net = self.net_interval(worth)
        return net is not None and net.low > 0


def _once_per_answer(stakes: Stakes) -> float | None:
    """Return what was paid once, spread over the answers."""
    if stakes.once_usd is None or stakes.answers is None:
        return None
    return float(stakes.once_usd) / stakes.answers


def _pay_back(extra: Interval) -> PayBack:
    if extra.high < 0:
        return PayBack.AFTER
    return PayBack.NEVER if extra.low >= 0 else PayBack.UNDETERMINED


def _break_even(pay_back: PayBack, extra: float, once_usd: Decimal | None) -> int | None:
    if pay_back is not PayBack.AFTER or once_usd is None:
        return None
    return math.ceil(cheaper(once_usd, _money(extra)).at or 0)


def _verdict(net: Interval) -> Worth:
    if net.low > 0:
        return Worth.WORTH_IT
    return Worth.NOT_WORTH_IT if net.high < 0 else Worth.UNCLEAR


def _known(prices: Sequence[Decimal | None]) -> FloatArray | None:
    known = [float(price) for price in prices if price is not None]
    return np.array(known) if len(known) == len(prices) else None


def _money(usd: float) -> Decimal:
    """Return dollars to six significant digits, more than any price has."""
    return Decimal(f"{usd:.6g}") + 0  # adding zero turns -0 into 0


def _money_interval(interval: Interval) -> MoneyInterval:
    low, high = (None if math.isinf(end) else _money(end) for end in (interval.low, interval.high))
    return MoneyInterval(low, high, interval.level)
