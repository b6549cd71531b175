"""Over how many months costs are counted: as planned, or until the model is switched off."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Self

DAYS_A_MONTH = Decimal(365) / 12
"""A month is 730 hours, as cloud price lists have it."""


@dataclass(frozen=True, slots=True)
class Horizon:
    """How long the model will be used.

    Args:
        months: What is reckoned with; below 0 never.
        planned: Months that were planned.
        begins: The day from which they count.
        ends: Day on which the model is switched off, where that is sooner than planned.
    """

    months: Decimal
    planned: int
    begins: date
    ends: date | None = None

    @classmethod
    def of(cls, planned: int, today: date, retires_on: date | None) -> Self:
        """Return the shorter of the planned months and those until a shutdown.

        Args:
            planned: Months, at least 1.
            today: Where they begin.
            retires_on: Day on which the model is switched off; None: not announced.
        """
        left = None if retires_on is None else months_until(retires_on, today)
        if left is None or left >= planned:
            return cls(Decimal(planned), planned, today)
        return cls(left, planned, today, retires_on)


def months_until(day: date, today: date) -> Decimal:
    """Return the months from today to a day; 0 when it has passed."""
    return max(Decimal((day - today).days), Decimal(0)) / DAYS_A_MONTH


def hours_a_month(hours_a_day: Decimal) -> Decimal:
    """Return hours a month: 730 for 24 hours a day."""
    return hours_a_day * DAYS_A_MONTH
