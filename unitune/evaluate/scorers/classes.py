"""F1 over classes with its confusion matrix: the scorer `class_f1`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np

from unitune.evaluate.results import Confusion
from unitune.evaluate.scorers.interface import Attempt, Kind, Scorer, Setting
from unitune.evaluate.scorers.labels import choice, find_label, labels_of, refuse_unknown
from unitune.evaluate.scorers.sums import Floats, Sums, ratio
from unitune.job.scorers import ClassF1, Labelled

NO_LABEL = ""
"""Stands in a confusion matrix for an answer that names no label, or several."""


def macro_f1(sums: Floats) -> Floats:
    """Return the mean of F1 over the classes that were expected or answered.

    Args:
        sums: For every class its hits, its expected cases and its answered ones, (…, 3 k).
    """
    hits, expected, answered = np.split(sums, 3, axis=-1)
    there = (expected + answered > 0).sum(axis=-1)
    return ratio(ratio(2 * hits, expected + answered).sum(axis=-1), there)


def micro_f1(sums: Floats) -> Floats:
    """Return F1 of all classes' hits together; without an answer that names no label, accuracy.

    Args:
        sums: As `macro_f1` has it, (…, 3 k).
    """
    hits, expected, answered = (part.sum(axis=-1) for part in np.split(sums, 3, axis=-1))
    return ratio(2 * hits, expected + answered)


def confusion(attempts: Sequence[Attempt], labels: Sequence[str], spec: Labelled) -> Confusion:
    """Return which label was answered how often where which was expected.

    Args:
        attempts: One a case.
        labels: All classes.
        spec: How labels are found.
    """
    counts = Counter(_pair(attempt, labels, spec) for attempt in attempts)
    return Confusion(
        labels=tuple(labels),
        counts={
            wanted: {
                found: counts[wanted, found]
                for found in (*labels, NO_LABEL)
                if counts[wanted, found]
            }
            for wanted in labels
            if any(pair[0] == wanted for pair in counts)
        },
    )


def make_class_f1(spec: ClassF1, setting: Setting) -> Scorer:
    """Return the scorer of F1 over classes.

    Why: where classes are of unequal size, accuracy forgives a model that never answers the rare
    ones; macro F1 does not. Labels are found as `choice` finds them, and an answer that names none
    misses its class without being held against another. It leaves out which mistakes are worse than
    others; the confusion matrix shows them. A resample in which a class does not occur is scored on
    the others, so intervals of small classes are uncertain. The score of a single case is that of
    `choice`.

    Source:
        Van Rijsbergen 1979, Information Retrieval, chapter 7; macro as the mean of the classes' F1,
        not as F1 of the mean precision and recall (Opitz and Burst 2019, arXiv 1911.03347).
    """
    labels = labels_of(spec, setting)
    place = {label: at for at, label in enumerate(labels)}

    def judge(attempt: Attempt) -> bool:
        return choice(
            attempt.text, attempt.expected, labels, ignore_case=spec.ignore_case, take=spec.take
        )

    def over_all(attempts: Sequence[Attempt]) -> Sums:
        rows = np.zeros((len(attempts), 3, len(labels)))
        for row, attempt in zip(rows, attempts, strict=True):
            wanted, found = _pair(attempt, labels, spec)
            row[1, place[wanted]] = 1
            if found != NO_LABEL:
                row[2, place[found]] = 1
                row[0, place[found]] = wanted == found
        formula = macro_f1 if spec.average == "macro" else micro_f1
        return Sums(rows.reshape(len(attempts), -1), formula)

    return Scorer(
        spec,
        Kind.CORPUS,
        judge,
        refuse_unknown(spec, labels),
        over_all=over_all,
        confusion=partial(confusion, labels=labels, spec=spec),
    )


def _pair(attempt: Attempt, labels: Sequence[str], spec: Labelled) -> tuple[str, str]:
    """Return the expected label and the answered one."""
    wanted = find_label(attempt.expected, labels, ignore_case=spec.ignore_case)
    found = find_label(attempt.text, labels, ignore_case=spec.ignore_case, take=spec.take)
    assert wanted is not None, "cases that name no label are refused before anybody is asked"
    return wanted, found or NO_LABEL
