"""Making a job's scorers ready, and refusing what no answer could change, before any request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from pydantic import JsonValue

from unitune import findings
from unitune.data.dataset import Dataset
from unitune.data.example import Example, digest
from unitune.errors import DataError, JobError
from unitune.evaluate.records import Record
from unitune.scorers.interface import Attempt, Scorer, Setting

FINGERPRINT_DIGITS = 16
"""Hex digits: 64 bits, far beyond chance for the few scorers of a baseline."""
UNSCORED = {"name", "api_key_variable"}
"""Options that change no score."""

S = TypeVar("S", bound=Scorer)


def build(scorer: S, setting: Setting | None = None) -> S:
    """Return a scorer that is ready to score.

    Raises:
        JobError: What the options name cannot be used: a file, a schema, a function, labels.
        MissingExtra: A package is not installed; the message has the install command.
        UserError: An environment variable is not set.
    """
    setting = setting or Setting()
    return scorer.ready(setting, scorer_fingerprint(scorer, setting))


def scorer_fingerprint(scorer: Scorer, setting: Setting | None = None) -> str:
    """Return a hash that changes when a scorer may score differently.

    It covers the type with our version of it, every option that is not its default, the labels that
    train gives, and the content of a schema, grader or Python file that the options name. It leaves
    out what a Python file imports, and versions of the packages beneath, which known answers in our
    tests hold in place.

    Raises:
        JobError: A file that the options name cannot be read.
    """
    options: JsonValue = scorer.model_dump(mode="json", exclude=UNSCORED, exclude_defaults=True)
    material = scorer.material(setting or Setting())
    parts = [scorer.type_name(), scorer.version, options, material]
    return digest(parts)[:FINGERPRINT_DIGITS]


def labels_of(train: Iterable[Example]) -> tuple[str, ...]:
    """Return the distinct answers of the training rows, in order of appearance."""
    answers = (example.answer for example in train)
    return tuple(dict.fromkeys(answer.strip() for answer in answers if answer))


def attempt_of(case: Example, record: Record) -> Attempt:
    """Return a record as scorers see it; an error is an empty answer."""
    if record.error:
        return Attempt(case, "")
    return Attempt(case, record.text, record.tool_calls or (), record.given or {})


def check_expected(scorers: Sequence[Scorer], cases: Dataset) -> None:
    """Refuse cases to which no answer could be right.

    Raises:
        DataError: There are such cases; its findings name their lines.
    """
    broken = [
        findings.error(
            "unusable-expected",
            f"{why}, so the scorer {scorer.name} could never find an answer right.",
            "Mend the row, or use another scorer in evaluate.scorers.",
        ).at(file=cases.name, line=row.line)
        for scorer in scorers
        for row in cases.rows
        if (why := scorer.refusal(row.example))
    ]
    if broken:
        count = "1 case" if len(broken) == 1 else f"{len(broken)} cases"
        raise DataError(
            f"{cases.name}: {count} could never be found right. First: {broken[0]}", tuple(broken)
        )


def check_indulgence(scorers: Sequence[Scorer], cases: Dataset) -> None:
    """Refuse scorers that would find every answer right, whatever the case.

    Raises:
        JobError: There is such a scorer.
    """
    for scorer in scorers:
        reasons = [scorer.indulgence(row.example) for row in cases.rows]
        if reasons and all(reasons):
            raise JobError(
                f"evaluate.scorers: {scorer.name} could never find an answer to {cases.name} "
                f"wrong: {reasons[0]}. Every contender would have 100 %. Use another scorer, or "
                "rows that it can tell apart."
            )
