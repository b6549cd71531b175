"""Read comparisons: those in progress as counts, finished ones with their cases.

A comparison in progress holds the lock on its recorded answers, which are read while they grow.
Finished comparisons never change (`unitune.evaluate.history`), so the last few are cached.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from unitune.errors import NotFoundError, UserError
from unitune.evaluate.history import comparison_ids, comparison_listing, find_comparison
from unitune.evaluate.inference.journal import read_record
from unitune.evaluate.records import Record
from unitune.evaluate.results import Comparison
from unitune.files.filesystem import content_of
from unitune.workspace.home import EVALUATION
from unitune.workspace.locks import is_locked

ROWS = "rows.jsonl"
SHOWN_COMPARISONS = 100


class Count(NamedTuple):
    """Number of a contender's test cases with an answer, and number of errors among them."""

    contender: str
    answers: int
    errors: int


class UnderWay(NamedTuple):
    """Comparison that a process is computing, by its job or by the run that is evaluated."""

    name: str
    counts: list[Count]


def under_way(home: Path, run_id: str | None = None) -> list[UnderWay]:
    """Return the comparisons in progress in a ledger's folder, or those of one run."""
    of_runs = {file: file.parents[1].name for file in home.glob(f"runs/*/{EVALUATION}/{ROWS}")}
    of_jobs = dict.fromkeys(home.glob(f"evaluations/**/{ROWS}"))
    return [
        UnderWay(f"run {run}" if run else rows.parent.name, _counts(rows))
        for rows, run in (of_runs | of_jobs).items()
        if run_id in (None, run) and _is_written(rows)
    ]


def _is_written(rows: Path) -> bool:
    try:
        return is_locked(rows)
    except (UserError, OSError):  # not one of unitune's files
        return False


def _counts(rows: Path) -> list[Count]:
    """Count the test cases by the current model of each contender."""
    models: dict[str, str] = {}
    failed: dict[tuple[str, str], dict[tuple[str, int], bool]] = {}
    for record in _records(rows):
        models[record.contender] = record.model
        by_case = failed.setdefault((record.contender, record.model), {})
        by_case[record.case, record.repeat] = record.error is not None
    last = {name: failed[name, model] for name, model in models.items()}
    return [Count(name, len(cases), sum(cases.values())) for name, cases in last.items()]


def _records(rows: Path) -> Iterator[Record]:
    """Yield the recorded answers, except a line that is being written."""
    with suppress(OSError):
        for line in content_of(rows).split(b"\n"):
            with suppress(ValidationError):
                yield read_record(line)


def kept_comparisons(run_id: str | None = None) -> list[Comparison]:
    """Return the newest finished comparisons, or those with one run, without their cases."""
    return [
        each
        for each in comparison_listing(SHOWN_COMPARISONS).comparisons
        if run_id in (None, each.run, *(result.run for result in each.contenders))
    ]


def kept_comparison(comparison_id: str) -> Comparison:
    """Return a finished comparison with its cases, by its full id.

    Raises:
        NotFoundError: It does not exist.
    """
    if comparison_id not in comparison_ids(comparison_id):
        raise NotFoundError("comparison", comparison_id, (), "The page of all has those there are.")
    return _remembered(comparison_id)


_remembered = lru_cache(maxsize=4)(find_comparison)
