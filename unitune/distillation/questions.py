"""Select the questions for a teacher: without an answer, and not near a test case."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from unitune.data.dataset import Dataset, Row
from unitune.data.files import Files
from unitune.data.load import Reading, usable_rows
from unitune.data.overlap import leaks
from unitune.data.privacy.screen import Screen
from unitune.planning.preflight import ResolvedJob

ANSWERED = "had an answer"
REPEATED = "repeated another row"
KNOWN = "were in the training or validation rows"
NEAR = "were near a training row"
NEAR_TEST = "were near a test case"


@dataclass(frozen=True, slots=True)
class Questions:
    """Rows to answer."""

    rows: Dataset
    left_out: Counter[str]


def read_questions(
    resolved: ResolvedJob,
    path: str | os.PathLike[str],
    limit: int | None = None,
    *,
    is_written: bool = False,
) -> Questions:
    """Read questions that repeat no row of the job; raises `DataError` for an unusable row.

    Questions that a teacher wrote (`is_written`) must not be near a training row either.
    """
    splits = resolved.splits
    data, files = resolved.job.data, Files([str(path)])
    screen = Screen(data, resolved.rows.read.redaction)
    items = screen.rows(files.read(data, "any", Reading()), files)
    read = Dataset(Path(path).name, usable_rows(items, str(path), str(path)))
    seen = {row.input_key for part in (splits.train, splits.validation) for row in part}
    taken: set[str] = set()
    left_out: Counter[str] = Counter()
    kept: list[Row] = []
    for row in read.rows:
        key = row.example.input_key
        if row.example.answer is not None:
            left_out[ANSWERED] += 1
        elif key in seen:
            left_out[KNOWN] += 1
        elif key in taken:
            left_out[REPEATED] += 1
        else:
            taken.add(key)
            kept.append(row)
    for other, reason in ((splits.test, NEAR_TEST), (splits.train if is_written else None, NEAR)):
        if not other:
            continue
        near = {shared.line for shared in leaks([other], replace(read, rows=tuple(kept)))}
        if near:
            left_out[reason] += sum(row.line in near for row in kept)
        kept = [row for row in kept if row.line not in near]
    return Questions(replace(read, rows=tuple(kept[:limit])), left_out)
