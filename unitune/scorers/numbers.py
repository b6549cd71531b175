"""The scorer `numeric`: the number that a text ends or begins with, within a tolerance."""

from __future__ import annotations

import re
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation
from typing import Annotated, Literal

from pydantic import Field

from unitune.findings import clip
from unitune.scorers.interface import Attempt, Case, Scorer

_NUMBER = r"""
    (?<![\w.])[-+\u2212]?       # a sign, unless it joins two numbers or words, as in 3-5 or T-12
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
    """Return a number of a text, or None: also where it has more digits than any number could."""
    numbers = [match[0] for match in (POINT if decimal == "point" else COMMA).finditer(text)]
    if not numbers:
        return None
    number = numbers[0] if take == "first" else numbers[-1]
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


def is_near(given: Decimal, wanted: Decimal, tolerance: float, relative: float) -> bool:
    """Whether a number is another within the larger of an absolute and a relative tolerance."""
    if given == wanted:
        return True
    try:
        allowed = max(Decimal(repr(tolerance)), Decimal(repr(relative)) * abs(wanted))
        return abs(given - wanted) <= allowed
    except ArithmeticError:  # exponents beyond any measure
        return False


class Numeric(Scorer):
    """The number in the answer is the expected one, within a tolerance.

    Why: for sums, measures and prices, where ``1,000`` and ``1000.0 EUR`` are one answer. The last
    number of a text counts by default, since models reason before they answer. It compares decimal
    digits, so 0.3 is 0.1 + 0.2. It leaves out units, currencies, percent signs, fractions (1/2),
    numbers in words, and other numbers that the text holds.
    """

    type: Literal["numeric"] = "numeric"
    name: str = "numeric"
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Largest difference that is still right."""
    relative: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Likewise as a share of the expected number; the larger of the two holds."""
    take: Literal["first", "last"] = "last"
    """Which number of the text is the answer."""
    decimal: Literal["point", "comma"] = "point"
    """How fractions are written: 1,234.5 or 1.234,5."""

    def judge(self, attempt: Attempt) -> bool:
        given, wanted = self._number(attempt.text), self._number(attempt.expected)
        if given is None or wanted is None:
            return False
        return is_near(given, wanted, self.tolerance, self.relative)

    def refusal(self, case: Case) -> str | None:
        if self._number(case.answer or "") is None:
            return f"the expected answer {clip(case.answer or '')} holds no number"
        return None

    def _number(self, text: str) -> Decimal | None:
        return find_number(text, take=self.take, decimal=self.decimal)
