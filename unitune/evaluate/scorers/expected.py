"""Refusing what no answer could change, before any model is asked.

Cases that a scorer could never find right, and scorers that could never find an answer wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from unitune import findings
from unitune.data.dataset import Dataset
from unitune.errors import DataError, JobError
from unitune.evaluate.scorers.interface import Scorer


def check_expected(scorers: Sequence[Scorer], cases: Dataset) -> None:
    """Refuse cases to which no answer could be right.

    Args:
        scorers: The job's.
        cases: The test or dev rows.

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


def check_telling(scorers: Sequence[Scorer], cases: Dataset) -> None:
    """Refuse scorers that would find every answer right, whatever the case.

    Args:
        scorers: The job's.
        cases: The test rows.

    Raises:
        JobError: There is such a scorer.
    """
    for scorer in scorers:
        why = next((scorer.indulgence(row.example) for row in cases.rows), None)
        if why and all(scorer.indulgence(row.example) for row in cases.rows):
            raise JobError(
                f"evaluate.scorers: {scorer.name} could never find an answer to {cases.name} "
                f"wrong: {why}. Every contender would have 100 %. Use another scorer, or rows "
                "that it can tell apart."
            )
