"""Scorers that compare texts as they stand, the number in them, or why they ended."""

from __future__ import annotations

import re
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation
from typing import Annotated, Literal

from pydantic import Field, field_validator

from unitune.findings import clip
from unitune.scorers.bounded import CheckFailed, broken_by
from unitune.scorers.interface import Attempt, Case, Kind, Score, Scorer, Unscorable
from unitune.workspace import yaml_file

# What may keep a pattern from matching though nothing is to be matched
_ASSERTION = re.compile(r"[$^]|\\[AbBZ]|\(\?<?[=!]|\(\?\(")
_NUMBER = r"""
    (?<![\w.])[-+\u2212]?       # a sign, unless it joins two numbers or words, as in 3-5 or T-12
    (?<!\w)                     # not inside a word: v2 has no number
    (?: \d{{1,3}}(?:{group}\d{{3}})+(?!\d) | \d+ )
    (?: {point}\d+ )?
    (?: [eE][-+]?\d+ )?
    | (?<![\w.,])[-+\u2212]?{point}\d+
"""
_POINT = re.compile(_NUMBER.format(group=r"[,\u00a0\u202f'\u2019]", point=r"\."), re.VERBOSE)
_COMMA = re.compile(_NUMBER.format(group=r"[.\u00a0\u202f'\u2019]", point=","), re.VERBOSE)
_FINISHES = {  # openAI's words for those of Anthropic, Bedrock, Vertex AI and Mistral
    **dict.fromkeys(("end_turn", "stop_sequence"), "stop"),
    **dict.fromkeys(("max_tokens", "model_length"), "length"),
    **dict.fromkeys(("tool_use", "function_call"), "tool_calls"),
    **dict.fromkeys(("refusal", "safety", "guardrail_intervened"), "content_filter"),
}
_WIDEST = Context(Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])


def plain(text: str, *, ignore_case: bool, strip: bool = True) -> str:
    """Return a text without outer whitespace and, on request, without case."""
    text = text.strip() if strip else text
    return text.casefold() if ignore_case else text


class CaseOption(Scorer):
    """A scorer that may compare without regard to case."""

    ignore_case: bool = False
    """Compare without regard to case."""
    strip: bool = True
    """Compare without regard to outer whitespace."""

    def plain(self, text: str) -> str:
        """Return a text as it is compared."""
        return plain(text, ignore_case=self.ignore_case, strip=self.strip)


class Exact(CaseOption):
    """The answer equals the expected one.

    Why: for labels and short fixed texts nothing else is as plain. Outer whitespace does not count.
    It leaves out spacing inside the answer, punctuation and Unicode forms: ``é`` as one or two code
    points are two answers.
    """

    type: Literal["exact"] = "exact"
    name: str = "exact"

    def judge(self, attempt: Attempt) -> bool:
        return self.plain(attempt.text) == self.plain(attempt.expected)

    def wrong_already(self, attempt: Attempt) -> bool:
        begun = attempt.text.casefold() if self.ignore_case else attempt.text
        wanted = self.plain(attempt.expected)
        begun = begun.lstrip() if self.strip else begun
        return self.plain(begun) != wanted and not wanted.startswith(begun)


class Contains(CaseOption):
    """The expected text stands somewhere in the answer.

    Why: to credit a model that wraps the right label in a sentence. It leaves out what else the
    answer says: naming every label is right too, and so is ``not refund`` for ``refund``; `choice`
    is stricter. An empty expected text is never right.
    """

    expects_text = True
    type: Literal["contains"] = "contains"
    name: str = "contains"
    position: Literal["anywhere", "start", "end"] = "anywhere"
    """Where in the answer."""

    def judge(self, attempt: Attempt) -> bool:
        given, wanted = self.plain(attempt.text), self.plain(attempt.expected)
        stands = {
            "anywhere": wanted in given,
            "start": given.startswith(wanted),
            "end": given.endswith(wanted),
        }
        return wanted != "" and stands[self.position]


class Regex(Scorer):
    """The pattern is found in the answer.

    Why: for a form, such as a ticket number, rather than one text. It leaves out the expected
    answer altogether. Anchors and flags are the pattern's own: ``(?i)^yes``. An answer on which it
    takes longer than a second cannot be scored.
    """

    needs_expected = False
    type: Literal["regex"] = "regex"
    name: str = "regex"
    pattern: str
    """Python regular expression, searched anywhere in the answer."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        yaml_file.check_regex(pattern)
        return pattern

    def judge(self, attempt: Attempt) -> bool:
        return broken_by({"pattern": self.pattern}, attempt.text) is None

    def indulgence(self, case: Case) -> str | None:
        # Without assertions, which look around, what matches nothing matches nothing anywhere.
        if _ASSERTION.search(self.pattern):
            return None
        try:
            matches_nothing = broken_by({"pattern": self.pattern}, "") is None
        except CheckFailed:  # recorded with the answers that it meets
            return None
        every = f"the pattern {self.pattern!r} is found in every text, also in an empty one"
        return every if matches_nothing else None


class FinishReason(Scorer):
    """The answer ended for the given reason.

    Why: to see that a model calls a tool, comes to an end by itself, or is stopped by a filter. It
    leaves out what the answer says. Vendors' words are read as OpenAI's: ``tool_use`` is
    tool_calls, ``refusal`` is content_filter. Recorded answers count as ended by themselves.
    """

    needs_expected = False
    type: Literal["finish_reason"] = "finish_reason"
    name: str = "finish_reason"
    reason: Literal["stop", "length", "tool_calls", "content_filter"] = "stop"
    """stop: by itself or at a stop string. length: at `max_tokens`."""

    def judge(self, attempt: Attempt) -> Score:
        if attempt.finish_reason is None:
            raise Unscorable("why the answer ended is not known")
        word = attempt.finish_reason.lower()
        return Score(float(_FINISHES.get(word, word) == self.reason), f"it ended by {word}")


class EditDistance(CaseOption):
    """Similarity by the fewest characters to insert, delete or replace.

    1 - (fewest edits) / (length of the longer text), outer whitespace aside. Why: for short texts
    that are nearly right, such as names, codes and rewritten sentences. Identical texts have 1, and
    the order of the two does not matter. It leaves out meaning: ``not`` costs four edits wherever
    it stands, and moved words cost their length twice.

    Source:
        Levenshtein 1966, Soviet Physics Doklady 10:707; computed by rapidfuzz.
    """

    compares_wording = True
    kind = Kind.GRADED
    packages = ("rapidfuzz",)
    type: Literal["edit_distance"] = "edit_distance"
    name: str = "edit_distance"
    max_edits: Annotated[int, Field(ge=0)] | None = None
    """When set, an answer with so many edits at most is right, and any other wrong."""

    def judge(self, attempt: Attempt) -> float:
        from rapidfuzz.distance import Levenshtein  # noqa: PLC0415 - an extra

        texts = self.plain(attempt.text), self.plain(attempt.expected)
        if self.max_edits is not None:
            return float(Levenshtein.distance(*texts) <= self.max_edits)
        return Levenshtein.normalized_similarity(*texts)


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


def find_number(
    text: str,
    *,
    take: Literal["first", "last"] = "last",
    decimal: Literal["point", "comma"] = "point",
) -> Decimal | None:
    """Return a number of a text, or None: also where it has more digits than any number could."""
    numbers = [match[0] for match in (_POINT if decimal == "point" else _COMMA).finditer(text)]
    if not numbers:
        return None
    number = numbers[0] if take == "first" else numbers[-1]
    group, point = (",", ".") if decimal == "point" else (".", ",")
    digits = re.sub(rf"[{group}\u00a0\u202f'\u2019]", "", number).replace(point, ".")
    digits = digits.replace("\u2212", "-")
    try:
        return Decimal(digits)
    except InvalidOperation:  # an exponent beyond a Decimal's: a small one is 0
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
