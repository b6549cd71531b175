"""The scorer `numeric`: the number that a text ends or begins with, within a tolerance."""

from __future__ import annotations

import re
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation
from typing import Literal

from unitune.data.example import Example
from unitune.evaluate.scorers.interface import Attempt, Kind, Scorer, Setting
from unitune.findings import clip
from unitune.job.scorers import Numeric

_NUMBER = r"""
    (?<![\w.])[-+\u2212]?       # a sign, unless it joins two things, as in 3-5 or T-12
    (?<!\w)                     # not inside a word: v2 has no number
    (?: \d{{1,3}}(?:{group}\d{{3}})+(?!\d) | \d+ )
    (?: {point}\d+ )?
    (?: [eE][-+]?\d+ )?
    | (?<![\w.,])[-+\u2212]?{point}\d+
"""
POINT = re.compile(_NUMBER.format(group=r"[,\u00a0\u202f'\u2019]", point=r"\."), re.VERBOSE)
COMMA = re.compile(_NUMBER.format(group=r"[.\u00a0\u202f'\u2019]", point=","), re.VERBOSE)

_WIDEST = Context(Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])


def find_number(
    text: str,
    *,
    take: Literal["first", "last"] = "last",
    decimal: Literal["point", "comma"] = "point",
) -> Decimal | None:
    """Return a number of a text, or None: also where it has more digits than any number could.

    Args:
        text: May say more than the number: ``So it costs $1,234.50 in all.``
        take: Which of several.
        decimal: How fractions are written: 1,234.5 or 1.234,5.
    """
    found = [match[0] for match in (POINT if decimal == "point" else COMMA).finditer(text)]
    if not found:
        return None
    number = found[0] if take == "first" else found[-1]
    group, point = (",", ".") if decimal == "point" else (".", ",")
    digits = re.sub(rf"[{group}\u00a0\u202f'\u2019]", "", number).replace(point, ".")
    return _decimal(digits.replace("\u2212", "-"))


def _decimal(digits: str) -> Decimal | None:
    """Return a number; of exponents beyond a Decimal's, the small ones are 0 and the large None."""
    try:
        return Decimal(digits)
    except InvalidOperation:
        nearest = _WIDEST.create_decimal(digits)
        return nearest if nearest.is_finite() else None


def is_near(found: Decimal, wanted: Decimal, tolerance: float, relative: float) -> bool:
    """Whether a number is another within the larger of an absolute and a relative tolerance."""
    if found == wanted:
        return True
    try:
        allowed = max(Decimal(repr(tolerance)), Decimal(repr(relative)) * abs(wanted))
        return abs(found - wanted) <= allowed
    except ArithmeticError:  # exponents beyond any measure
        return False


def numeric(answer: str, expected: str, spec: Numeric) -> bool:
    """Whether the number in the answer is the one in the expected answer, within a tolerance.

    Why: for sums, measures and prices, where ``1,000`` and ``1000.0 EUR`` are one answer. The last
    number of a text counts by default, since models reason before they answer. It compares decimal
    digits, so 0.3 is 0.1 + 0.2. It leaves out units, currencies, percent signs, fractions (1/2),
    numbers in words, and other numbers that the text holds.
    """
    found, wanted = (
        find_number(text, take=spec.take, decimal=spec.decimal) for text in (answer, expected)
    )
    if found is None or wanted is None:
        return False
    return is_near(found, wanted, spec.tolerance, spec.relative)


def make_numeric(spec: Numeric, _: Setting) -> Scorer:
    """Return the scorer of `numeric`."""

    def judge(attempt: Attempt) -> bool:
        return numeric(attempt.text, attempt.expected, spec)

    def refusal(case: Example) -> str | None:
        expected = case.answer or ""
        if find_number(expected, take=spec.take, decimal=spec.decimal) is None:
            return f"the expected answer {clip(expected)} holds no number"
        return None

    return Scorer(spec, Kind.BINARY, judge, refusal)
