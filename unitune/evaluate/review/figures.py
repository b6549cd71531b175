"""Summarise the labels of a comparison, and turn them into preference rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from unitune.data.labels import VALUES, Label
from unitune.data.preferences import preference
from unitune.data.records import BadRow, Flat
from unitune.evaluate.documents.records import Answer, ClauseResult
from unitune.evaluate.judging.figures import by_clause
from unitune.evaluate.review.queue import Look
from unitune.evaluate.statistics.judgements import Agreement, cohens_kappa, krippendorff_alpha, sign


@dataclass(frozen=True, slots=True)
class ReviewFigures:
    """Figures of the labels of a comparison."""

    cases: int  # cases with a verdict other than unsure, by any reviewer
    verdicts: Mapping[str, int]  # this reviewer's first verdicts by kind
    left: int  # this reviewer's preferences for the left answer
    preferences: int  # and for either
    same: int  # repeated cases with the same verdict both times
    repeated: int
    changed: int  # verdicts that this reviewer changed in the second look
    second: int  # verdicts in the second look
    reviewers: tuple[str, ...]
    agreement: Agreement | None  # None with a single reviewer
    judge: Agreement | None  # of the reviewers' mean with the judge; None without a judge
    clauses: tuple[ClauseResult, ...]  # with a rubric, of the reviewers and the judge


def figures_of(look: Look) -> ReviewFigures:
    """Return the figures of all labels so far."""
    first = {item: each for item, each in look.own.items() if item.round == "first"}
    again: dict[str, list[bool]] = {"repeat": [], "second": []}
    for item, each in look.own.items():
        before = first.get(item._replace(round="first"))
        if item.round != "first" and before:
            same = (before.verdict, before.clauses) == (each.verdict, each.clauses)
            again[item.round].append(same)
    sides = [look.choice(item) for item in look.own if item.round != "second"]
    given = [label.verdict for label in first.values()]
    names = sorted({label.reviewer for labels in look.first.values() for label in labels})
    both = [case for case in look.people if case in look.judged]
    judge = [sign(look.judged[case].value) for case in both]
    return ReviewFigures(
        cases=len(look.people),
        verdicts={verdict: given.count(verdict) for verdict in (*VALUES, "unsure")},
        left=sides.count("left"),
        preferences=sides.count("left") + sides.count("right"),
        same=again["repeat"].count(True),
        repeated=len(again["repeat"]),
        changed=again["second"].count(False),
        second=len(again["second"]),
        reviewers=tuple(names),
        agreement=_agreement(list(look.first.values()), names),
        judge=cohens_kappa([sign(look.people[case]) for case in both], judge) if judge else None,
        clauses=_clauses(look),
    )


def _clauses(look: Look) -> tuple[ClauseResult, ...]:
    review = look.review
    rubric = next((e.criteria for e in review.comparison.judges if not e.compares), ())
    made = {id_: review.judgements(case) for id_, case in review.cases.items()}
    answers = ((labels, made[item.case].get(item.contender)) for item, labels in look.first.items())
    known = [(labels, each.verdicts) for labels, each in answers if each and each.value is not None]
    return by_clause(rubric, known) if review.has_rubric else ()


def _agreement(cases: Sequence[Sequence[Label]], names: Sequence[str]) -> Agreement | None:
    """Return Cohen's kappa of two reviewers, or Krippendorff's ordinal alpha of more."""
    given = [{label.reviewer: label.value for label in case} for case in cases]
    table = [[case.get(name) for name in names] for case in given]
    if len(names) == 2:
        both = [row for row in table if None not in row]
        return cohens_kappa([one for one, _ in both], [other for _, other in both])
    return krippendorff_alpha(table, "ordinal") if len(names) > 2 else None


def preference_rows(look: Look) -> Iterator[str]:
    """Yield a preference row for each case on which the reviewers prefer an answer.

    Cases without a preference, and those whose answers cannot be trained on (an empty one, or one
    after calls that the other answer does not share), are left out.
    """
    candidate, baseline = look.review.sides
    for case, mean in look.people.items():
        if mean:
            names = (candidate, baseline) if mean > 0 else (baseline, candidate)
            shown = look.review.cases[case]
            paths = [shown.answers[name].trajectory for name in names]
            if any(path is not None and len(path.messages) > 1 for path in paths):
                continue
            row: Flat = {
                "input": {"messages": [message.wire for message in shown.messages]},
                "preferred_output": [_message(shown.answers[names[0]])],
                "non_preferred_output": [_message(shown.answers[names[1]])],
                "id": case,
            }
            try:
                yield json.dumps(preference(row), ensure_ascii=False)
            except BadRow:
                continue


def _message(answer: Answer) -> Flat:
    message: Flat = {"role": "assistant", "content": answer.text}
    if answer.tool_calls:
        message["tool_calls"] = list(answer.tool_calls)
    return message
