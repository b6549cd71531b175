"""Score answers by the label that they name."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import JsonValue, PrivateAttr, field_validator

from unitune.errors import JobError
from unitune.scorers.interface import Attempt, Case, Confusion, Kind, Scorer, Setting
from unitune.scorers.text import plain
from unitune.text import clip

if TYPE_CHECKING:
    from unitune.scorers.formulas import Sums

# Which of several labels in a text is the answer; only: several different ones count as none
Occurrence: TypeAlias = Literal["only", "first", "last"]

NO_LABEL = ""  # in a confusion matrix: an answer with no label or with several

# More distinct answers are texts, not labels; the largest label sets of public intent and topic
# data have some 150 (CLINC150)
MOST_LABELS = 1000


def find_label(
    text: str, labels: Sequence[str], *, ignore_case: bool = True, take: Occurrence = "only"
) -> str | None:
    """Return the label that a text names, or None.

    A text equal to a label, apart from outer whitespace, names it. Otherwise labels are searched as
    whole words, longest first: ``card arrival`` does not name ``card`` if both are labels.
    """
    known = {plain(label, ignore_case=ignore_case): label for label in reversed(labels)}
    given = plain(text, ignore_case=ignore_case)
    if given in known:
        return known[given]
    named = [known[match] for match in _pattern(tuple(known)).findall(given)]
    if not named or (take == "only" and len(set(named)) > 1):
        return None
    return named[-1] if take == "last" else named[0]


def labels_of(train: Iterable[Case]) -> tuple[str, ...]:
    """Return the distinct answers of the training rows, in order of appearance."""
    answers = (example.answer for example in train)
    return tuple(dict.fromkeys(answer.strip() for answer in answers if answer))


class Labelled(Scorer):
    """Base of scorers that search for a label."""

    options: tuple[str, ...] | None = None
    """Labels, such as [A, B, C, D]; by default the distinct answers in train."""
    ignore_case: bool = True
    """Ignore case when searching labels."""
    take: Occurrence = "only"
    """Label that counts if the answer names several; `only` means none."""
    _labels: tuple[str, ...] = PrivateAttr(())

    @field_validator("options")
    @classmethod
    def _two_or_more(cls, options: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if options is not None and (len(options) < 2 or not all(map(str.strip, options))):
            raise ValueError("options must be two or more labels, none of them empty")
        return options

    def prepare(self, setting: Setting) -> None:
        labels = self.options or setting.labels
        if not 2 <= len(labels) <= MOST_LABELS:
            raise JobError(
                f"train has {len(labels)} distinct answers, but a scorer of labels "
                f"needs 2 to {MOST_LABELS:,}. Name the labels with options: [A, B, …]"
            )
        seen = [plain(label, ignore_case=self.ignore_case) for label in labels]
        if twice := next((label for label in seen if seen.count(label) > 1), None):
            raise JobError(
                f"the label {twice!r} is in the options twice, ignoring case. Remove one, "
                "or set ignore_case: false."
            )
        self._labels = labels

    def material(self, setting: Setting) -> JsonValue:
        return list(setting.labels) if self.options is None else None

    def judge(self, attempt: Attempt) -> bool:
        expected, answered = self._pair(attempt)
        return expected is not None and answered == expected

    def refusal(self, case: Case) -> str | None:
        if find_label(case.answer or "", self._labels, ignore_case=self.ignore_case) is not None:
            return None
        source = "options" if self.options else "answers of train; name the labels as options"
        named = f"none of the {len(self._labels)} {source}"
        return f"the expected answer {clip(case.answer)} names {named}"

    def _pair(self, attempt: Attempt) -> tuple[str | None, str | None]:
        expected = find_label(attempt.expected, self._labels, ignore_case=self.ignore_case)
        answered = find_label(
            attempt.text, self._labels, ignore_case=self.ignore_case, take=self.take
        )
        return expected, answered


class Choice(Labelled):
    """The answer names the expected label and no other.

    Why: credits ``The answer is (B).`` for ``B`` as `contains` does, but not an answer that names
    every label. It leaves out negation (``not refund`` names refund), synonyms, and letters that
    are words: if ``A`` is a label, ``a refund, so B`` names two. Then set `take: last` or prompt
    for the label only.
    """

    type: Literal["choice"] = "choice"
    name: str = "choice"


class ClassF1(Labelled):
    """F1 over classes, computed over all cases, with a confusion matrix.

    Why: with classes of unequal size, accuracy forgives a model that never answers the rare ones;
    macro F1 does not. Labels are found as by `choice`; an answer without a label counts against its
    class only. It leaves out which mistakes are worse; see the confusion matrix. Intervals of small
    classes are uncertain, because resamples without a class skip it. The score of a single case is
    that of `choice`.

    Source:
        Van Rijsbergen 1979, Information Retrieval, chapter 7; macro is the mean of the classes' F1,
        not F1 of mean precision and recall (Opitz and Burst 2019, arXiv 1911.03347).
    """

    kind = Kind.CORPUS
    type: Literal["class_f1"] = "class_f1"
    name: str = "class_f1"
    average: Literal["macro", "micro"] = "macro"
    """macro: every class counts equally. micro: every case does."""

    def sums(self, attempts: Sequence[Attempt], scores: Sequence[float]) -> Sums:
        from unitune.scorers import formulas  # noqa: PLC0415 - numpy

        index = {label: at for at, label in enumerate(self._labels)}
        pairs = [
            (index[expected], None if answered is None else index[answered])
            for expected, answered in map(self._known_pair, attempts)
        ]
        formula = formulas.macro_f1 if self.average == "macro" else formulas.micro_f1
        return formulas.Sums(formulas.class_counts(pairs, len(index)), formula)

    def confusion(self, attempts: Sequence[Attempt]) -> Confusion:
        counts: dict[str, Counter[str]] = {label: Counter() for label in self._labels}
        for expected, answered in map(self._known_pair, attempts):
            counts[expected][answered or NO_LABEL] += 1
        order = (*self._labels, NO_LABEL)
        return Confusion(
            labels=self._labels,
            counts={
                expected: {label: row[label] for label in order if row[label]}
                for expected, row in counts.items()
                if row
            },
        )

    def _known_pair(self, attempt: Attempt) -> tuple[str, str | None]:
        expected, answered = self._pair(attempt)
        assert expected is not None, "cases without a label are refused before any request"
        return expected, answered


@lru_cache(maxsize=64)
def _pattern(labels: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that finds each label as a whole word, longest first."""

    def whole(label: str) -> str:
        before = "" if unicodedata.category(label[0]) == "Lo" else r"(?<!\w)"
        after = "" if unicodedata.category(label[-1]) == "Lo" else r"(?!\w)"
        return f"{before}{re.escape(label)}{after}"

    return re.compile("|".join(map(whole, sorted(labels, key=len, reverse=True))))
