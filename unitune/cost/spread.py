"""Amounts of money as ranges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal

CENT = Decimal("0.01")
MILLION = Decimal(1_000_000)  # prices are per this number of tokens
# Rounding context: the usual 28 digits are too few for the highest prices and counts
WIDE = Context(prec=100)


@dataclass(frozen=True, slots=True)
class Spread:
    """Range of US dollars. Raises ValueError if its ends are out of order."""

    low: Decimal
    expected: Decimal
    high: Decimal  # upper bound; budgets are checked against it

    def __post_init__(self) -> None:
        if not self.low <= self.expected <= self.high:
            raise ValueError(f"{self.low}, {self.expected}, {self.high} are out of order")

    @classmethod
    def of(cls, usd: Decimal) -> Spread:
        """Return an exact amount."""
        return cls(usd, usd, usd)

    @classmethod
    def total(cls, parts: Iterable[Spread]) -> Spread:
        """Return the sum of amounts; zero if there are none."""
        return sum(parts, start=cls.of(Decimal(0)))

    @property
    def exact(self) -> bool:
        """True if low and high are equal."""
        return self.low == self.high

    def __add__(self, other: Spread) -> Spread:
        return Spread(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def __mul__(self, other: Spread) -> Spread:
        """Multiply units by a price; neither may be negative."""
        return Spread(self.low * other.low, self.expected * other.expected, self.high * other.high)

    def scaled(self, factor: Decimal) -> Spread:
        """Multiply by a factor that is not negative."""
        return Spread(self.low * factor, self.expected * factor, self.high * factor)


def cents(usd: Decimal) -> Decimal:
    """Round up to a cent, so that no charge is shown as zero."""
    return usd.quantize(CENT, rounding=ROUND_CEILING, context=WIDE)
