"""Check answers: rows per label, spellings, and rows that break the usual format."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from unitune.data.columns import may_be_labels
from unitune.data.questions import normal
from unitune.data.records import json_or_none
from unitune.data.report import QualityRow, RowIssue, RowIssues

USUAL = 0.9
FEWEST_ANSWERS = 20
# A label is rare below this number of rows or this share of the median label's
FEW_ROWS, SMALL_SHARE = 5, 0.1
LARGE_SHARE = 0.5  # from this share, one label of three or more dominates
SENTENCE_WORDS = 4
_ENDS = (*'.!?:;)\u3002\uff01\uff1f\u2026"\u201d',)


class Trait(NamedTuple):
    """A property that most answers share; `of` describes it, or returns None."""

    code: str
    title: str
    of: Callable[[str], str | None]


def is_labels(rows: Sequence[QualityRow]) -> bool:
    """Return whether the answers are labels: short and repeated."""
    answers = [row.answer for row in rows if row.answer]
    return may_be_labels(answers, len(set(map(normal, answers))))


def counted(rows: Sequence[QualityRow]) -> dict[str, int]:
    """Return the number of rows per answer, most frequent first."""
    return dict(Counter(row.answer for row in rows if row.answer).most_common())


def uneven(rows: Sequence[QualityRow]) -> RowIssues:
    """Return a row of each rare label and of a dominant one."""
    counts, first = counted(rows), _firsts(rows)
    usual, total = median(counts.values()), sum(counts.values())
    rare = [label for label in counts if counts[label] < max(FEW_ROWS, SMALL_SHARE * usual)]
    largest = next(iter(counts))
    large = [largest] if len(counts) > 2 and counts[largest] > LARGE_SHARE * total else []
    issues = [
        RowIssue(
            first[label],
            f"{100 * counts[label] / total:.0f} % of the rows have this answer, so a model that "
            "always gives it is right that often.",
        )
        for label in large
    ]
    for label in reversed(rare):
        why = f"{counts[label]:,} of {total:,} rows have this answer; the median label has "
        issues.append(RowIssue(first[label], f"{why}{usual:,.0f}."))
    return RowIssues(
        "uneven-labels",
        "Labels with very few rows, or most of them",
        "Add rows for rare labels, or leave them to a fallback. Check their scores in the test.",
        issues,
    )


def spellings(rows: Sequence[QualityRow]) -> RowIssues:
    """Return a row of each label that differs from a more frequent one in case or white space."""
    counts, first = counted(rows), _firsts(rows)
    usual = {normal(label): label for label in reversed(counts)}
    return RowIssues(
        "label-spellings",
        "Labels in two spellings",
        "Spell each label one way, because a model learns two labels.",
        [
            RowIssue(
                first[label],
                f"{label!r} is in {counts[label]:,} rows, {usual[normal(label)]!r} in "
                f"{counts[usual[normal(label)]]:,}.",
                (first[usual[normal(label)]],),
            )
            for label in counts
            if label != usual[normal(label)]
        ],
    )


def _firsts(rows: Sequence[QualityRow]) -> dict[str, int]:
    return {row.answer: at for at, row in reversed([*enumerate(rows)]) if row.answer}


def formats(rows: Sequence[QualityRow]) -> Iterator[RowIssues]:
    """Yield rows that break the usual format, by trait; each row is listed once."""
    left = {at: row.answer for at, row in enumerate(rows) if row.answer}
    for trait in TRAITS:
        values = {at: value for at, answer in left.items() if (value := trait.of(answer))}
        if len(values) < FEWEST_ANSWERS:
            continue
        (usual, count), *others = Counter(values.values()).most_common()
        if not others or count < USUAL * len(values):
            continue
        example = next(at for at in values if values[at] == usual)
        odd = [at for at in values if values[at] != usual]
        share = f"{100 * count / len(values):.3g} % of the answers are {usual}"
        yield RowIssues(
            trait.code,
            trait.title,
            "Write them like the others, unless the task needs both.",
            [
                RowIssue(
                    at, f"{values[at][0].upper()}{values[at][1:]}{alike}; {share}.", (example,)
                )
                for at, alike in _each_once({at: left[at] for at in odd})
            ],
        )
        left = {at: answer for at, answer in left.items() if values.get(at) in (None, usual)}


def _each_once(answers: Mapping[int, str]) -> Iterator[tuple[int, str]]:
    counts = Counter(answers.values())
    for at, answer in answers.items():
        if count := counts.pop(answer, 0):
            yield at, f", in {count:,} rows" if count > 1 else ""


def _json_kind(answer: str) -> str | None:
    match json_or_none(answer):
        case dict():
            return "a JSON object"
        case list():
            return "a JSON list"
        case _:
            return "not JSON"


def _json_keys(answer: str) -> str | None:
    value = json_or_none(answer) if answer.lstrip().startswith("{") else None
    if not isinstance(value, dict):
        return None
    return f"an object of {', '.join(sorted(value)) or 'nothing'}"


def _script(answer: str) -> str | None:
    letters = [letter for letter in answer[:200] if letter.isalpha()]
    if _is_json(answer) or not letters:
        return None
    scripts = Counter(unicodedata.name(letter, "other").split()[0] for letter in letters)
    return f"in {scripts.most_common(1)[0][0].capitalize()} letters"


def _case(answer: str) -> str | None:
    letters = [letter for letter in answer if letter.isalpha()]
    if _is_json(answer) or not letters or not (letters[0].isupper() or letters[0].islower()):
        return None
    if len(letters) > 3 and all(letter.isupper() for letter in letters):
        return "in capitals"
    return "capitalised" if letters[0].isupper() else "not capitalised"


def _end(answer: str) -> str | None:
    if _is_json(answer) or len(answer.split()) < SENTENCE_WORDS:
        return None
    return "punctuated" if answer.rstrip().endswith(_ENDS) else "without final punctuation"


def _is_json(answer: str) -> bool:
    return answer.lstrip()[:1] in ("{", "[")


TRAITS = (
    Trait("answer-json", "Answers that are JSON or not, unlike most", _json_kind),
    Trait("answer-keys", "JSON answers with other keys than most", _json_keys),
    Trait("answer-script", "Answers in another script than most", _script),
    Trait("answer-case", "Answers in another case than most", _case),
    Trait("answer-end", "Answers that end unlike most", _end),
)
