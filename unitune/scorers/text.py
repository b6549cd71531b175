"""Score answers by their text, a number in it, or the reason why they ended."""

from __future__ import annotations

import re
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation
from typing import Annotated, Literal

from pydantic import Field, field_validator

from unitune.files import yaml_file
from unitune.scorers.bounded import CheckFailed, broken_by
from unitune.scorers.interface import Attempt, Case, Kind, Score, Scorer, Unscorable
from unitune.text import clip

# Syntax that may keep a pattern from matching an empty text only in some places
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
    """Return a text without outer whitespace and, optionally, without case."""
    text = text.strip() if strip else text
    return text.casefold() if ignore_case else text


class CaseOption(Scorer):
    """Base of scorers that may ignore case."""

    ignore_case: bool = False
    """Ignore case."""
    strip: bool = True
    """Ignore outer whitespace."""

    def plain(self, text: str) -> str:
        """Return a text in the form in which it is compared."""
        return plain(text, ignore_case=self.ignore_case, strip=self.strip)


class Exact(CaseOption):
    """The answer equals the expected one.

    Why: the plainest test for labels and short fixed texts. Outer whitespace is ignored. It leaves
    out spacing inside the answer, punctuation and Unicode forms: ``é`` as one or two code points
    are two answers.
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
    """The answer contains the expected text.

    Why: credits a model that wraps the right label in a sentence. It leaves out the rest of the
    answer: naming every label is right too, and so is ``not refund`` for ``refund``; `choice` is
    stricter. An empty expected text is never right.
    """

    expects_text = True
    type: Literal["contains"] = "contains"
    name: str = "contains"
    position: Literal["anywhere", "start", "end"] = "anywhere"
    """Place in the answer."""

    def judge(self, attempt: Attempt) -> bool:
        given, wanted = self.plain(attempt.text), self.plain(attempt.expected)
        stands = {
            "anywhere": wanted in given,
            "start": given.startswith(wanted),
            "end": given.endswith(wanted),
        }
        return wanted != "" and stands[self.position]


class Regex(Scorer):
    """The answer matches the pattern.

    Why: for a form, such as a ticket number, instead of one text. It leaves out the expected
    answer. Anchors and flags belong to the pattern: ``(?i)^yes``. An answer on which it takes
    longer than a second cannot be scored.
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
        # Without assertions, a pattern that matches an empty text matches every text.
        if _ASSERTION.search(self.pattern):
            return None
        try:
            matches_nothing = broken_by({"pattern": self.pattern}, "") is None
        except CheckFailed:  # recorded with each answer
            return None
        every = f"the pattern {self.pattern!r} matches every text, even an empty one"
        return every if matches_nothing else None


class FinishReason(Scorer):
    """The answer ended for the given reason.

    Why: shows whether a model calls a tool, stops normally, or is stopped by a filter. It leaves
    out the answer's content. Vendors' words are mapped to OpenAI's: ``tool_use`` is tool_calls,
    ``refusal`` is content_filter. Recorded answers count as stopped normally.
    """

    needs_expected = False
    type: Literal["finish_reason"] = "finish_reason"
    name: str = "finish_reason"
    reason: Literal["stop", "length", "tool_calls", "content_filter"] = "stop"
    """stop: normally or at a stop string. length: at `max_tokens`."""

    def judge(self, attempt: Attempt) -> Score:
        if attempt.finish_reason is None:
            raise Unscorable("the reason why the answer ended is unknown")
        word = attempt.finish_reason.lower()
        return Score(
            float(_FINISHES.get(word, word) == self.reason), f"the answer ended with {word}"
        )


class EditDistance(CaseOption):
    """Similarity by the number of characters to insert, delete or replace.

    1 - (fewest edits) / (length of the longer text), without outer whitespace. Why: for short texts
    that are nearly right, such as names, codes and rewritten sentences. It leaves out meaning:
    ``not`` costs four edits anywhere, and moved words cost their length twice.

    Source:
        Levenshtein 1966, Soviet Physics Doklady 10:707; computed by rapidfuzz.
    """

    compares_wording = True
    kind = Kind.GRADED
    packages = ("rapidfuzz",)
    type: Literal["edit_distance"] = "edit_distance"
    name: str = "edit_distance"
    max_edits: Annotated[int, Field(ge=0)] | None = None
    """Maximum number of edits of a right answer; if set, the score is 1 or 0."""

    def judge(self, attempt: Attempt) -> float:
        from rapidfuzz.distance import Levenshtein  # noqa: PLC0415 - an extra

        texts = self.plain(attempt.text), self.plain(attempt.expected)
        if self.max_edits is not None:
            return float(Levenshtein.distance(*texts) <= self.max_edits)
        return Levenshtein.normalized_similarity(*texts)


class Numeric(Scorer):
    """The number in the answer is the expected one, within a tolerance.

    Why: for sums, measures and prices, where ``1,000`` and ``1000.0 EUR`` are one answer. By
    default the last number counts, because models reason first. Decimal digits are compared, so 0.1
    + 0.2 is 0.3. It leaves out units, currencies, percent signs, fractions (1/2), numbers in words,
    and other numbers in the text.
    """

    type: Literal["numeric"] = "numeric"
    name: str = "numeric"
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Largest absolute difference from the expected number."""
    relative: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Largest difference as a share of the expected number; the larger tolerance applies."""
    take: Literal["first", "last"] = "last"
    """Position of the answer among the numbers of the text."""
    decimal: Literal["point", "comma"] = "point"
    """Decimal mark: 1,234.5 or 1.234,5."""

    def judge(self, attempt: Attempt) -> bool:
        given, wanted = self._number(attempt.text), self._number(attempt.expected)
        if given is None or wanted is None:
            return False
        return is_near(given, wanted, self.tolerance, self.relative)

    def refusal(self, case: Case) -> str | None:
        if self._number(case.answer or "") is None:
            return f"the expected answer {clip(case.answer or '')} has no number"
        return None

    def _number(self, text: str) -> Decimal | None:
        return find_number(text, take=self.take, decimal=self.decimal)


def find_number(
    text: str,
    *,
    take: Literal["first", "last"] = "last",
    decimal: Literal["point", "comma"] = "point",
) -> Decimal | None:
    """Return a number in a text; None if there is none or it has too many digits."""
    numbers = [match[0] for match in (_POINT if decimal == "point" else _COMMA).finditer(text)]
    if not numbers:
        return None
    number = numbers[0] if take == "first" else numbers[-1]
    group, point = (",", ".") if decimal == "point" else (".", ",")
    digits = re.sub(rf"[{group}\u00a0\u202f'\u2019]", "", number).replace(point, ".")
    digits = digits.replace("\u2212", "-")
    try:
        return Decimal(digits)
    except InvalidOperation:  # the exponent exceeds a Decimal's; a small one gives 0
        nearest = _WIDEST.create_decimal(digits)
        return nearest if nearest.is_finite() else None


def is_near(given: Decimal, wanted: Decimal, tolerance: float, relative: float) -> bool:
    """Return whether two numbers differ by at most the larger tolerance."""
    if given == wanted:
        return True
    try:
        allowed = max(Decimal(repr(tolerance)), Decimal(repr(relative)) * abs(wanted))
        return abs(given - wanted) <= allowed
    except ArithmeticError:  # extreme exponents
        return False
