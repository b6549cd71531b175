"""Format numbers, shares and times for readers."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

from unitune.cost.spread import Spread, cents

_HYPHEN_BEFORE_NUMBER = re.compile(r"(?<![\w-])-(?=\$?\d)")
_SPACE_BEFORE_PERCENT = re.compile(r"(?<=\d) (?=%)")


def percent(share: float) -> str:
    """Return a share from 0 to 1 in percent with one decimal."""
    return f"{decimal(100 * share)} %"


def points(difference: float, *, sign: bool = False) -> str:
    """Return a difference of shares in points; without decimals if it is whole."""
    value = round(100 * difference, 1) + 0.0  # adding zero turns -0.0 into 0.0
    figure = f"{value:+.1f}" if sign and value else f"{value:.1f}".removesuffix(".0")
    return f"{figure} {'point' if figure == '1' else 'points'}"


def decimal(value: float) -> str:
    """Return a number with one decimal, never minus zero."""
    return f"{round(value, 1) + 0.0:.1f}"


def two_digits(number: float) -> str:
    """Return a number with two significant digits, without decimals: ``1,200``."""
    return f"{float(f'{number:.2g}'):,.0f}"


def interval(ends: tuple[float, float], between: str = " to ") -> str:
    """Return an interval of shares in percent or points, without a unit: ``-1.2 to 4.0``."""
    return between.join(decimal(100 * end) for end in ends)


def p_value(value: float) -> str:
    """Return a p-value with two digits, or an upper bound for very small ones."""
    return "below 0.0001" if value < 0.0001 else f"{value:.2g}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, e.g. ``1 case`` or ``1,200 cases``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def moment(created: str) -> str:
    """Return an ISO date and time in readable form; other texts unchanged."""
    try:
        return datetime.fromisoformat(created).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return created


def duration(seconds: float) -> str:
    """Return seconds in readable form: ``45 s``, ``3 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def gigabytes(count: int) -> str:
    """Return bytes in GB (10⁹ bytes)."""
    return f"{count / 1e9:.1f} GB"


def per_case(total: float | None, n: int, show: Callable[[float], str] = "{:,.0f}".format) -> str:
    """Return a total divided by the number of cases; a dash if it is unknown."""
    return "\u2013" if total is None or n == 0 else show(total / n)


def dollars(usd: Decimal) -> str:
    """Return an amount, rounded up to a cent: ``$1,204.50``."""
    return f"${cents(usd):,}"


def usd_range(usd: Spread | None) -> str:
    """Return a range of money: ``$1.50 to $4.20, about $3.00``, or ``unknown``."""
    if usd is None:
        return "unknown"
    if cents(usd.low) == cents(usd.high):
        return dollars(usd.high)
    return f"{dollars(usd.low)} to {dollars(usd.high)}, about {dollars(usd.expected)}"


def typeset(text: str) -> str:
    """Return a text with typographic minus signs, and no space that splits a percentage."""
    with_minus = _HYPHEN_BEFORE_NUMBER.sub("\u2212", text)
    return _SPACE_BEFORE_PERCENT.sub("\u202f", with_minus)
