"""An amount of money of which only a range is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal

CENT = Decimal("0.01")
MILLION = Decimal(1_000_000)  # tokens, for which prices are given
# To round in: the usual 28 digits are too few for the largest prices times the largest counts
WIDE = Context(prec=100)


@dataclass(frozen=True, slots=True)
class Spread:
    """US dollars as a range.

    Raises:
        ValueError: The three are out of order.
    """

    low: Decimal
    expected: Decimal
    high: Decimal  # an upper bound: what budgets are held against

    def __post_init__(self) -> None:
        if not self.low <= self.expected <= self.high:
            raise ValueError(f"{self.low}, {self.expected}, {self.high} are out of order")

    @classmethod
    def of(cls, usd: Decimal) -> Spread:
        """Return an amount that is known exactly."""
        return cls(usd, usd, usd)

    @classmethod
    def total(cls, parts: Iterable[Spread]) -> Spread:
        """Return the sum of amounts; of none, zero."""
        return sum(parts, start=cls.of(Decimal(0)))

    @property
    def exact(self) -> bool:
        """Whether it is one amount, and no range."""
        return self.low == self.high

    def __add__(self, other: Spread) -> Spread:
        return Spread(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def __mul__(self, other: Spread) -> Spread:
        """Return an amount of units at a price each; neither is negative."""
        return Spread(self.low * other.low, self.expected * other.expected, self.high * other.high)

    def scaled(self, factor: Decimal) -> Spread:
        """Return so many times the amount; the factor is not negative."""
        return Spread(self.low * factor, self.expected * factor, self.high * factor)


def cents(usd: Decimal) -> Decimal:
    """Round up to a cent: a charge is never shown as nothing."""
    return usd.quantize(CENT, rounding=ROUND_CEILING, context=WIDE)
