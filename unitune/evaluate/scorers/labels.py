"""Which label an answer names: what `choice` and `class_f1` share, and `choice` itself."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from unitune.data.example import Example
from unitune.errors import JobError
from unitune.evaluate.scorers.interface import Attempt, Kind, Scorer, Setting
from unitune.evaluate.scorers.text import plain
from unitune.findings import clip
from unitune.job.scorers import Choice, Labelled, Occurrence

MOST_LABELS = 1000
"""More distinct answers of train are texts and no labels; the largest label sets of public intent
and topic data have some 150 (CLINC150)."""


def find_label(
    text: str, labels: Sequence[str], *, ignore_case: bool = True, take: Occurrence = "only"
) -> str | None:
    """Return the label that a text names, or None.

    A text that is a label, outer whitespace aside, names it. Else labels are looked for as whole
    words, the longest first, so that ``card`` is not found in ``card arrival`` where both are
    labels. Of several different ones `take` says which counts.

    Args:
        text: An answer.
        labels: What may be named.
        ignore_case: Find them without regard to case.
        take: only: several different labels are none. first, last: that one.
    """
    known = {plain(label, ignore_case=ignore_case): label for label in reversed(labels)}
    said = plain(text, ignore_case=ignore_case)
    if said in known:
        return known[said]
    found = [known[match] for match in _pattern(tuple(known)).findall(said)]
    if not found or (take == "only" and len(set(found)) > 1):
        return None
    return found[-1] if take == "last" else found[0]


def choice(
    answer: str,
    expected: str,
    labels: Sequence[str],
    *,
    ignore_case: bool = True,
    take: Occurrence = "only",
) -> bool:
    """Whether the answer names the expected label, and no other.

    Why: to credit ``The answer is (B).`` for ``B`` as `contains` does, without also crediting an
    answer that names every label. It leaves out negation (``not refund`` names refund), synonyms,
    and that a letter may be a word: where ``A`` is a label, ``a refund, so B`` names two labels;
    `take: last` or a prompt that asks for the label alone helps.
    """
    wanted = find_label(expected, labels, ignore_case=ignore_case)
    found = find_label(answer, labels, ignore_case=ignore_case, take=take)
    return wanted is not None and found == wanted


def labels_of(spec: Labelled, setting: Setting) -> tuple[str, ...]:
    """Return the labels that a scorer looks for: its own, or the distinct answers of train.

    Raises:
        JobError: Two labels are one when case is ignored, or the answers of train are no labels.
    """
    labels = spec.options or setting.labels
    if not 2 <= len(labels) <= MOST_LABELS:
        raise JobError(
            f"train has {len(labels)} distinct answers, and a scorer that looks for labels needs "
            f"from 2 to {MOST_LABELS:,}. Name the labels: options: [A, B, …]"
        )
    seen = [plain(label, ignore_case=spec.ignore_case) for label in labels]
    if twice := next((label for label in seen if seen.count(label) > 1), None):
        raise JobError(
            f"the label {twice!r} stands twice among the options, case aside. Leave one out, or "
            "set ignore_case: false."
        )
    return labels


def make_choice(spec: Choice, setting: Setting) -> Scorer:
    """Return the scorer of `choice`."""
    labels = labels_of(spec, setting)

    def judge(attempt: Attempt) -> bool:
        return choice(
            attempt.text, attempt.expected, labels, ignore_case=spec.ignore_case, take=spec.take
        )

    return Scorer(spec, Kind.BINARY, judge, refuse_unknown(spec, labels))


def refuse_unknown(spec: Labelled, labels: Sequence[str]) -> Callable[[Example], str | None]:
    """Return what says that an expected answer names none of the labels."""

    def refusal(case: Example) -> str | None:
        if find_label(case.answer or "", labels, ignore_case=spec.ignore_case) is not None:
            return None
        source = "options" if spec.options else "answers of train; name the labels as options"
        return f"the expected answer {clip(case.answer)} names none of the {len(labels)} {source}"

    return refusal


@lru_cache(maxsize=64)
def _pattern(labels: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(labels, key=len, reverse=True)
    return re.compile("|".join(_whole(label) for label in longest_first))


def _whole(label: str) -> str:
    """Return a pattern that finds a label as a whole word, where its script has words."""
    before = r"(?<!\w)" if _joins(label[0]) else ""
    after = r"(?!\w)" if _joins(label[-1]) else ""
    return f"{before}{re.escape(label)}{after}"


def _joins(character: str) -> bool:
    """Whether more letters beside a character would make it another word.

    Not so in scripts without case, such as Chinese or Thai, which mostly write no spaces.
    """
    return unicodedata.category(character) != "Lo"
