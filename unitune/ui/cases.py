"""Filter the cases of a comparison by outcome, slice and text, and split them into pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlencode

from unitune.evaluate.records import CaseResult
from unitune.evaluate.results import Comparison
from unitune.report import cases
from unitune.report.cases import Outcome, Passage

PAGE_CASES = 20
TEXT_CHARACTERS = 20_000  # limit for one text; the file has the full text
FILTERS = ("all", *map(str, Outcome), "errors", "required", "noted")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Filters requested by an address; invalid values are replaced by defaults.

    Args:
        show: One of `FILTERS`.
        slice: Name of a slice; empty for all cases.
        text: Words that occur in any text of the case.
        page: Page number, counted from 1.
    """

    show: str = "all"
    slice: str = ""
    text: str = ""
    page: int = 1

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
    page = [_browsed(comparison, number, prompt, notes) for number in shown]
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
    yield from (message.text for message in case.messages)
    yield from (answer.error or answer.text for answer in case.answers.values())


def _browsed(
    comparison: Comparison, number: int, prompt: str, notes: Mapping[str, str]
) -> BrowsedCase:
    case = comparison.cases[number - 1]
    return BrowsedCase(
        number=number,
        id=case.id,
        outcome=cases.outcome(comparison, case),
        tags=[*["required"] * case.required, *case.slices],
        question=cases.plain_passage(cases.question(case, prompt), TEXT_CHARACTERS),
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
