"""Scorers that compare texts as they stand: exact, contains, regex, edit distance."""

from __future__ import annotations

import re

from unitune.data.example import Example
from unitune.evaluate.scorers.bounded import CheckFailed, broken_by
from unitune.evaluate.scorers.extras import needs
from unitune.evaluate.scorers.interface import Attempt, Kind, Scorer, Setting
from unitune.job.scorers import Contains, EditDistance, Exact, Regex

_ASSERTION = re.compile(r"[$^]|\\[AbBZ]|\(\?<?[=!]|\(\?\(")
"""What may keep a pattern from matching though nothing is to be matched."""


def exact(answer: str, expected: str, *, ignore_case: bool = False) -> bool:
    """Whether the answer is the expected one, outer whitespace aside.

    Why: for labels and short fixed texts nothing else is as plain. It leaves out spacing inside
    the answer, punctuation and Unicode forms: ``é`` as one or two code points are two answers.
    """
    return plain(answer, ignore_case=ignore_case) == plain(expected, ignore_case=ignore_case)


def contains(answer: str, expected: str, *, ignore_case: bool = False) -> bool:
    """Whether the expected text stands somewhere in the answer.

    Why: to credit a model that wraps the right label in a sentence. It leaves out what else the
    answer says: naming every label is right too, and so is ``not refund`` for ``refund``; `choice`
    is stricter. An empty expected text is found nowhere, so that it never counts as right.
    """
    wanted = plain(expected, ignore_case=ignore_case)
    return wanted != "" and wanted in plain(answer, ignore_case=ignore_case)


def matches(answer: str, pattern: str) -> bool:
    """Whether the pattern is found anywhere in the answer.

    Why: for a form, such as a ticket number, rather than one text. It leaves out the expected
    answer altogether. Anchors and flags are the pattern's own: ``(?i)^yes``.

    Raises:
        CheckFailed: It takes longer than a second.
    """
    return broken_by({"pattern": pattern}, answer) is None


def edit_similarity(answer: str, expected: str, *, ignore_case: bool = False) -> float:
    """Return 1 - (fewest edits) / (length of the longer text), outer whitespace aside.

    Why: for short texts that are nearly right, such as names, codes and rewritten sentences. An
    edit is one character inserted, deleted or replaced. Identical texts have 1, and the order of
    the two does not matter. It leaves out meaning: ``not`` costs four edits wherever it stands, and
    moved words cost their length twice.

    Source:
        Levenshtein 1966, Soviet Physics Doklady 10:707; computed by rapidfuzz.
    """
    from rapidfuzz.distance import Levenshtein  # noqa: PLC0415 - an extra

    return Levenshtein.normalized_similarity(
        plain(answer, ignore_case=ignore_case), plain(expected, ignore_case=ignore_case)
    )


def plain(text: str, *, ignore_case: bool) -> str:
    """Return a text without outer whitespace, and where wished without case."""
    return text.strip().casefold() if ignore_case else text.strip()


def refuse_empty(case: Example) -> str | None:
    """Say that an expected text is empty, for scorers that find an empty text nowhere."""
    return None if (case.answer or "").strip() else "the expected answer is empty"


def make_exact(spec: Exact, _: Setting) -> Scorer:
    """Return the scorer of `exact`."""

    def judge(attempt: Attempt) -> bool:
        return exact(attempt.text, attempt.expected, ignore_case=spec.ignore_case)

    def wrong_already(attempt: Attempt) -> bool:
        begun = attempt.text.casefold() if spec.ignore_case else attempt.text
        wanted = plain(attempt.expected, ignore_case=spec.ignore_case)
        return begun.strip() != wanted and not wanted.startswith(begun.lstrip())

    return Scorer(spec, Kind.BINARY, judge, wrong_already=wrong_already)


def make_contains(spec: Contains, _: Setting) -> Scorer:
    """Return the scorer of `contains`."""

    def judge(attempt: Attempt) -> bool:
        return contains(attempt.text, attempt.expected, ignore_case=spec.ignore_case)

    return Scorer(spec, Kind.BINARY, judge, refuse_empty)


def make_regex(spec: Regex, _: Setting) -> Scorer:
    """Return the scorer of `matches`."""

    def judge(attempt: Attempt) -> bool:
        return matches(attempt.text, spec.pattern)

    def indulgence(_: Example) -> str | None:
        # Without assertions, which look around, what matches nothing matches nothing anywhere.
        if _ASSERTION.search(spec.pattern) or not _matches_nothing(spec.pattern):
            return None
        return f"the pattern {spec.pattern!r} is found in every text, also in an empty one"

    return Scorer(spec, Kind.BINARY, judge, indulgence=indulgence)


def _matches_nothing(pattern: str) -> bool:
    try:
        return matches("", pattern)
    except CheckFailed:  # said of the answers that it meets
        return False


def make_edit_distance(spec: EditDistance, _: Setting) -> Scorer:
    """Return the scorer of `edit_similarity`."""
    needs("rapidfuzz", spec)

    def judge(attempt: Attempt) -> float:
        return edit_similarity(attempt.text, attempt.expected, ignore_case=spec.ignore_case)

    return Scorer(spec, Kind.GRADED, judge)
