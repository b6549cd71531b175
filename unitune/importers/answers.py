"""Detect the kind of answers in a file of examples and suggest scorers for it.

calls     tool calls                                      tool_calls
JSON      every answer is an object or a list             json_equal, json_fields, json_valid
labels    few different short answers                     choice, class_f1
several   several labels per answer                       token_f1, exact
numbers   every answer is a number or ends in ``#### 7``  numeric
phrases   answers of a few words                          exact, token_f1
texts     anything else                                   token_f1, or sentence_chrf

If rows have their own scorers, row_scorers comes first, and these score the other rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from unitune.data.columns import LABEL_CHARACTERS, ROWS_A_LABEL
from unitune.data.example import Example
from unitune.data.questions import normal
from unitune.data.records import json_or_none
from unitune.scorers.labels import MOST_LABELS
from unitune.scorers.overlap import squad_tokens
from unitune.scorers.row_scorers import KEY, RowScorers

LISTED_LABELS = 20  # most labels listed in the job, where a person can check them
SEPARATORS = (";", "|", ",", "/", "+")
# Minimum share of answers with several labels: one in this many
MOST_LISTS = 20
PHRASE_WORDS = 4
_NUMBER = re.compile(r"[-+\u2212]?[$€£]?\s?\d[\d.,'\u00a0\u202f]*\s?(?:%|[$€£]|[A-Za-z]{1,3})?")
_LEADING_ZERO = re.compile(r"0\d")
_COMMA = re.compile(r",\d{1,2}(?!\d)|\.\d{3}(?!\d)[.,]")
_POINT = re.compile(r"\.\d{1,2}(?!\d)|,\d{3}(?!\d)")
_FINAL_NUMBER = re.compile(r"####\s*[-+$]*\d[\d.,]*\s*$")


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Kind of a file's answers, their scorers as in a job, and the scorers' limits."""

    kind: str
    scorers: tuple[str | Mapping[str, Any], ...]
    caution: str = ""


def suggest_scorers(rows: Iterable[Example], trained: Iterable[Example]) -> Suggestion:
    """Suggest scorers for rows with answers; labels come from the trained rows."""
    calling, texts, own = 0, list[str](), 0
    for example in rows:
        calling += bool(example.messages[-1].tool_calls)
        texts.append(_answer(example))
        own += KEY in (example.model_extra or {})
    fitting = _fitting(texts, calling, trained)
    if not own:
        return fitting
    default, *others = fitting.scorers
    return Suggestion(
        f"{fitting.kind}; {own:,} rows have their own scorers",
        ({"type": RowScorers.type_name(), "default": [default]}, *others),
        fitting.caution,
    )


def _fitting(texts: Sequence[str], calling: int, trained: Iterable[Example]) -> Suggestion:
    labels = Counter(texts)
    if calling:
        return _tool_calls(calling, len(texts))
    if all(map(_is_json, texts)):
        return Suggestion("JSON", ("json_equal", "json_fields", "json_valid"))
    if _are_labels(labels):
        return _several_labels(labels) or _labels(labels, set(map(_answer, trained)))
    if all(map(_FINAL_NUMBER.search, texts)):
        return Suggestion("texts that end in a number after ####", ("numeric",))
    if all(map(_NUMBER.fullmatch, texts)) and not any(map(_LEADING_ZERO.match, texts)):
        return _numbers(texts)
    return _several_labels(labels) or _texts(texts)


def _answer(example: Example) -> str:
    return (example.answer or "").strip()


def _tool_calls(calling: int, rows: int) -> Suggestion:
    if calling == rows:
        return Suggestion("tool calls", ("tool_calls",))
    return Suggestion(
        f"tool calls in {calling:,} rows, text in {rows - calling:,}",
        ("tool_calls",),
        "If no call is expected, any answer without a call is right, whatever its text.",
    )


def _is_json(text: str) -> bool:
    return isinstance(json_or_none(text), dict | list)


def _are_labels(labels: Mapping[str, int]) -> bool:
    short = all(len(label) <= LABEL_CHARACTERS and "\n" not in label for label in labels)
    most = min(MOST_LABELS, sum(labels.values()) // ROWS_A_LABEL)
    return short and 2 <= len(labels) <= most


def _labels(labels: Mapping[str, int], trained: set[str]) -> Suggestion:
    listed = len(labels) <= LISTED_LABELS or not labels.keys() <= trained
    by_case = len({label.casefold() for label in labels}) < len(labels)

    def scorer(name: str) -> str | dict[str, Any]:
        options = {"options": sorted(labels)} if listed else {}
        entry = {"type": name, **options, **({"ignore_case": False} if by_case else {})}
        return entry if len(entry) > 1 else name

    return Suggestion(f"{len(labels):,} labels", (scorer("choice"), scorer("class_f1")))


def spellings(rows: Iterable[Example]) -> Mapping[str, str] | None:
    """Return the most frequent spelling by spelling; None without labels spelled differently."""
    counts = Counter(example.answer or "" for example in rows)
    usual: dict[str, str] = {}
    for text, _ in counts.most_common():
        usual.setdefault(normal(text), text.strip())
    labels: Counter[str] = Counter()
    for text, count in counts.items():
        labels[usual[normal(text)]] += count
    if len(usual) == len(counts) or not _are_labels(labels):
        return None
    return {text: usual[normal(text)] for text in counts}


def _several_labels(labels: Mapping[str, int]) -> Suggestion | None:
    for mark in SEPARATORS:
        lists = [[part.strip() for part in label.split(mark)] for label in labels]
        several = [parts for parts in lists if len(parts) > 1]
        counts = Counter(part for parts in lists for part in parts)
        rows = sum(count for label, count in labels.items() if mark in label)
        again = sum(count > 1 for count in counts.values())
        short = all(0 < len(part) <= LABEL_CHARACTERS // 2 for part in counts)
        is_list = len(several) > 1 and short and again * 2 > len(counts) < len(labels)
        if is_list and rows * MOST_LISTS > sum(labels.values()):
            return Suggestion(
                f"{len(counts):,} labels; {rows:,} answers have several, separated by {mark!r}",
                ("token_f1", "exact"),
                f"The {len(labels):,} combinations are not labels themselves: token_f1 counts "
                "shared words in any order, and exact requires the same labels in the same order.",
            )
    return None


def _numbers(texts: Sequence[str]) -> Suggestion:
    comma = any(map(_COMMA.search, texts)) and not any(map(_POINT.search, texts))
    scorer = {"type": "numeric", "decimal": "comma"} if comma else "numeric"
    return Suggestion(
        "numbers",
        (scorer,),
        "Only the exact number is right. Set `tolerance` or `relative` to accept close ones.",
    )


def _texts(texts: Sequence[str]) -> Suggestion:
    words = median(len(squad_tokens(text)) for text in texts)
    characters = median(map(len, texts))
    if words <= PHRASE_WORDS and characters <= LABEL_CHARACTERS:
        return Suggestion("phrases of a few words", ("exact", "token_f1"))
    shares = "words" if words * 15 > characters else "letters"
    scorer = "token_f1" if shares == "words" else "sentence_chrf"
    return Suggestion(
        "texts",
        (scorer, "length"),
        f"{scorer} counts {shares} shared with the expected answer. It shows whether answers "
        "come closer to its wording, not whether they are right or better.",
    )
