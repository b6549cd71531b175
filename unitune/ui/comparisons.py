"""Read comparisons: those in progress as counts, finished ones with their cases.

A comparison in progress holds the lock on its recorded answers, which are read while they grow.
Finished comparisons (`unitune.evaluate.documents.history`) never change; the last few are cached.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from pydantic import ValidationError

from unitune.errors import NotFoundError, UserError
from unitune.evaluate.documents.history import comparison_ids, comparison_listing, find_comparison
from unitune.evaluate.documents.records import CaseResult, Record
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.inference.journal import read_record
from unitune.files.filesystem import content_of
from unitune.report import cases
from unitune.report.cases import Outcome, Passage, Thumbnails
from unitune.workspace.home import EVALUATION
from unitune.workspace.own_files import is_locked

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
    """Return a finished comparison with its cases, by its full id; raises `NotFoundError`."""
    if comparison_id not in comparison_ids(comparison_id):
        raise NotFoundError("comparison", comparison_id, (), "The page of all has those there are.")
    return _remembered(comparison_id)


_remembered = lru_cache(maxsize=4)(find_comparison)


PAGE_CASES = 20
TEXT_CHARACTERS = 20_000  # limit for one text; the file has the full text
FILTERS = ("all", *map(str, Outcome), "errors", "required", "noted")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Filters requested by an address; invalid values are replaced by defaults."""

    show: str = "all"  # one of `FILTERS`
    slice: str = ""  # empty for all cases
    text: str = ""  # words that occur in any text of the case
    page: int = 1  # counted from 1

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Chosen:
        """Return the filters in the query of an address."""
        show, page = query.get("show", ""), query.get("page", "")
        return cls(
            show if show in FILTERS else "all",
            query.get("slice", ""),
            query.get("text", "").strip(),
            int(page) if page.isascii() and page.isdecimal() and len(page) < 7 and int(page) else 1,
        )

    def query(self, **changed: str) -> str:
        """Return the query for the first page of these filters, with some changed."""
        parts = {"show": self.show, "slice": self.slice, "text": self.text} | changed
        return urlencode({name: value for name, value in parts.items() if value}) + "&"


class ShownAnswer(NamedTuple):
    """Answer of a contender, with its score in words."""

    name: str
    score: str
    passage: Passage


@dataclass(frozen=True, slots=True)
class BrowsedCase:
    """Case with the answers of all contenders; its number is its position in the comparison."""

    number: int
    id: str
    outcome: Outcome
    tags: list[str]
    question: Passage
    expected: Passage
    answers: list[ShownAnswer]
    note: str


class Found(NamedTuple):
    """Cases of one page, their number on all pages, and the number per filter."""

    cases: list[BrowsedCase]
    total: int
    counts: list[tuple[str, int]]


def browse(comparison: Comparison, chosen: Chosen, notes: Mapping[str, str]) -> Found:
    """Return the requested cases; the counts apply to the slice and the text."""
    wanted = chosen.text.casefold()
    kinds = {
        number: _kinds(comparison, case, notes)
        for number, case in enumerate(comparison.cases, start=1)
        if (not chosen.slice or chosen.slice in case.slices)
        and (not wanted or any(wanted in text.casefold() for text in _texts(case, notes)))
    }
    counts = [(name, sum(name in each for each in kinds.values())) for name in FILTERS]
    numbers = [number for number, each in kinds.items() if chosen.show in each]
    begin = (chosen.page - 1) * PAGE_CASES
    prompt = cases.shared_system_prompt(comparison.cases)
    shown = numbers[begin : begin + PAGE_CASES]
    thumbnails = Thumbnails()
    page = [_browsed(comparison, number, prompt, notes, thumbnails) for number in shown]
    kept = [(name, count) for name, count in counts if count or name in FILTERS[:5]]
    return Found(page, len(numbers), kept)


def _kinds(comparison: Comparison, case: CaseResult, notes: Mapping[str, str]) -> set[str]:
    marks = {
        "errors": any(answer.error is not None for answer in case.answers.values()),
        "required": case.required,
        "noted": case.id in notes,
    }
    outcome = str(cases.outcome(comparison, case))
    return {"all", outcome, *(name for name, holds in marks.items() if holds)}


def _texts(case: CaseResult, notes: Mapping[str, str]) -> Iterable[str]:
    yield from (case.id, cases.wanted(case), notes.get(case.id, ""))
    yield from (message.shown for message in case.messages)
    yield from (answer.error or answer.text for answer in case.answers.values())


def _browsed(
    comparison: Comparison,
    number: int,
    prompt: str,
    notes: Mapping[str, str],
    thumbnails: Thumbnails,
) -> BrowsedCase:
    case = comparison.cases[number - 1]
    asked = cases.plain_passage(cases.question(case, prompt), TEXT_CHARACTERS)
    return BrowsedCase(
        number=number,
        id=case.id,
        outcome=cases.outcome(comparison, case),
        tags=[*["required"] * case.required, *case.slices],
        question=replace(asked, images=thumbnails.of(case.messages)),
        expected=cases.plain_passage(cases.wanted(case), TEXT_CHARACTERS),
        answers=[_answer(comparison, case, name) for name in case.answers],
        note=notes.get(case.id, ""),
    )


def _answer(comparison: Comparison, case: CaseResult, name: str) -> ShownAnswer:
    answer = case.answers[name]
    score = answer.scores.get(comparison.metric, 0.0)
    words = f"{score:.2f}" if comparison.graded else "right" if score else "wrong"
    passage = cases.answer_passage(comparison, case, name, TEXT_CHARACTERS)
    return ShownAnswer(name, "error" if answer.error is not None else words, passage)
