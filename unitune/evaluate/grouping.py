"""Cases by what their rows say about them: clusters that belong together, slices to report.

Both are extra keys in the rows of ``data.test``, named by `evaluate.clusters` and
`evaluate.slices`. Cases that ask the same belong together whatever the keys say: a model that is
right in one of them is right in all, so they are one piece of evidence.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pydantic import JsonValue

from unitune.data.example import Example, digest
from unitune.errors import JobError
from unitune.job.job import Evaluate

SMALLEST_SLICE = 10
"""Slices of fewer cases are not looked at: they show noise, and each takes part of the others'
power."""


class Slice(NamedTuple):
    """The cases, by their positions, that have one value at one key."""

    name: str
    members: tuple[int, ...]


def check_groups(cases: Sequence[Example], evaluate: Evaluate) -> None:
    """Refuse keys that the cases do not have, before any request.

    Raises:
        JobError: A case lacks the key of clusters, or all lack one of slices.
    """
    clusters_of(cases, evaluate)
    slices_of(cases, evaluate)


def clusters_of(cases: Sequence[Example], evaluate: Evaluate) -> list[str] | None:
    """Return the cluster of each case; None when each stands alone.

    Raises:
        JobError: A case lacks the key that the job names.
    """
    named = _named_clusters(cases, evaluate.clusters)
    questions = [question_hash(case) for case in cases]
    if len(set(questions)) == len(questions):
        return named
    return _joined(zip(named or map(str, range(len(cases))), questions, strict=True))


def question_hash(case: Example) -> str:
    """Return the hash of a case's question, without regard to case, width and white space."""

    def normal(text: str) -> str:
        return " ".join(unicodedata.normalize("NFKC", text).casefold().split())

    turns = [[turn.role, normal(turn.text), turn.tool_calls] for turn in case.prompt]
    return digest([turns, case.tools])


def _joined(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return one label a pair, equal where pairs hang together by either of their labels."""
    above: dict[str, str] = {}

    def top(label: str) -> str:
        while above.setdefault(label, label) != label:
            label = above[label]
        return label

    firsts: list[str] = []
    for named, question in pairs:
        first, second = f"named {named}", f"question {question}"
        above[top(second)] = top(first)
        firsts.append(first)
    return [top(first) for first in firsts]


def _named_clusters(cases: Sequence[Example], key: str | None) -> list[str] | None:
    if key is None:
        return None
    labels: list[str] = []
    for case in cases:
        if (value := _value(case, key)) is None:
            known = ", ".join(sorted(case.model_extra or {})) or "none"
            raise JobError(
                f"evaluate.clusters is {key!r}, but test case {case.case_id} has no such key "
                f"(its own keys: {known}). Give every row one, or leave evaluate.clusters out."
            )
        labels.append(_label(value))
    return labels


def slices_of(cases: Sequence[Example], evaluate: Evaluate) -> list[Slice]:
    """Return the slices with enough cases, in the order of keys and of values.

    Raises:
        JobError: No case has a key.
    """
    slices: list[Slice] = []
    for key in evaluate.slices:
        members: dict[str, list[int]] = {}
        for place, case in enumerate(cases):
            if (value := _value(case, key)) is not None:
                members.setdefault(_label(value), []).append(place)
        if not members:
            raise JobError(
                f"evaluate.slices names {key!r}, but no test case has such a key. "
                "Add it to the rows of data.test, or leave it out."
            )
        slices += [
            Slice(f"{key} = {value}", tuple(places))
            for value, places in sorted(members.items())
            if len(places) >= SMALLEST_SLICE
        ]
    return slices


def _value(case: Example, key: str) -> JsonValue:
    return (case.model_extra or {}).get(key)


def _label(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
