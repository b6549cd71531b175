"""Scorers that compare texts as they stand: exact, contains, regex, edit distance."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator

from unitune.scorers.bounded import CheckFailed, broken_by
from unitune.scorers.interface import Attempt, Case, Kind, Scorer
from unitune.workspace import yaml_file

_ASSERTION = re.compile(r"[$^]|\\[AbBZ]|\(\?<?[=!]|\(\?\(")
"""What may keep a pattern from matching though nothing is to be matched."""


def plain(text: str, *, ignore_case: bool) -> str:
    """Return a text without outer whitespace, and on request without case."""
    return text.strip().casefold() if ignore_case else text.strip()


def refuse_empty(case: Case) -> str | None:
    """Say that an expected text is empty, for scorers that find an empty text nowhere."""
    return None if (case.answer or "").strip() else "the expected answer is empty"


class Exact(Scorer):
    """The answer equals the expected one.

    Why: for labels and short fixed texts nothing else is as plain. Outer whitespace does not count.
    It leaves out spacing inside the answer, punctuation and Unicode forms: ``é`` as one or two code
    points are two answers.
    """

    type: Literal["exact"] = "exact"
    name: str = "exact"
    ignore_case: bool = False
    """Compare without regard to case."""

    def judge(self, attempt: Attempt) -> bool:
        answer, expected = (
            plain(text, ignore_case=self.ignore_case) for text in (attempt.text, attempt.expected)
        )
        return answer == expected

    def wrong_already(self, attempt: Attempt) -> bool:
        begun = attempt.text.casefold() if self.ignore_case else attempt.text
        wanted = plain(attempt.expected, ignore_case=self.ignore_case)
        return begun.strip() != wanted and not wanted.startswith(begun.lstrip())


class Contains(Scorer):
    """The expected text stands somewhere in the answer.

    Why: to credit a model that wraps the right label in a sentence. It leaves out what else the
    answer says: naming every label is right too, and so is ``not refund`` for ``refund``; `choice`
    is stricter. An empty expected text is found nowhere, so that it never counts as right.
    """

    type: Literal["contains"] = "contains"
    name: str = "contains"
    ignore_case: bool = False
    """Compare without regard to case."""

    def judge(self, attempt: Attempt) -> bool:
        wanted = plain(attempt.expected, ignore_case=self.ignore_case)
        return wanted != "" and wanted in plain(attempt.text, ignore_case=self.ignore_case)

    def refusal(self, case: Case) -> str | None:
        return refuse_empty(case)


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
        if _ASSERTION.search(self.pattern) or not self._matches_nothing():
            return None
        return f"the pattern {self.pattern!r} is found in every text, also in an empty one"

    def _matches_nothing(self) -> bool:
        try:
            return broken_by({"pattern": self.pattern}, "") is None
        except CheckFailed:  # recorded with the answers that it meets
            return False


class EditDistance(Scorer):
    """Similarity by the fewest characters to insert, delete or replace.

    1 - (fewest edits) / (length of the longer text), outer whitespace aside. Why: for short texts
    that are nearly right, such as names, codes and rewritten sentences. Identical texts have 1, and
    the order of the two does not matter. It leaves out meaning: ``not`` costs four edits wherever
    it stands, and moved words cost their length twice.

    Source:
        Levenshtein 1966, Soviet Physics Doklady 10:707; computed by rapidfuzz.
    """

    kind = Kind.GRADED
    packages = ("rapidfuzz",)
    type: Literal["edit_distance"] = "edit_distance"
    name: str = "edit_distance"
    ignore_case: bool = False
    """Compare without regard to case."""

    def judge(self, attempt: Attempt) -> float:
        from rapidfuzz.distance import Levenshtein  # noqa: PLC0415 - an extra

        return Levenshtein.normalized_similarity(
            plain(attempt.text, ignore_case=self.ignore_case),
            plain(attempt.expected, ignore_case=self.ignore_case),
        )
