"""Render the pages of `unitune review`: two answers side by side, or one next to a rubric.

A page contains no contender's name and, before the second look, nothing of a judge.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast, get_args

from unitune.data.labels import ClauseVerdict
from unitune.errors import UserError
from unitune.evaluate.documents.history import LONGEST_NOTE
from unitune.evaluate.documents.records import Answer, CaseResult
from unitune.evaluate.review.figures import ReviewFigures, figures_of
from unitune.evaluate.review.queue import Choice, Item, Judged, Look, Review
from unitune.evaluate.statistics.judgements import Agreement
from unitune.evaluate.statistics.labels import MIN_LABELS
from unitune.render.sections import Fact, Facts
from unitune.render.typography import counted, percent
from unitune.report.cases import Piece, Thumbnails, marked, question, shared_system_prompt, steps
from unitune.report.facts import clause_table
from unitune.ui.pages import Visit, render

MARKED_CHARACTERS = 8_000  # longer answers are shown without marks, which would take seconds
SIDES = {"left": "A", "right": "B", "tie": "a tie", "unsure": "cannot tell"}


class ReviewPages:
    """Pages of one review."""

    def __init__(self, review: Review) -> None:
        self._review = review

    def page(self, visit: Visit) -> str:
        """Return the requested item, the next open one or, without one, the figures."""
        look = self._review.look()
        items, second = _queue(look, visit.query)
        number = _number(visit.query)
        if number is None:
            number = next((at for at, item in enumerate(items) if item not in look.own), None)
        if number is None or not 0 <= number < len(items):
            return self._end(look, items, second=second)
        return self._item(look, items, number, second=second)

    def decide(self, visit: Visit) -> str:
        """Write a verdict, and return the address of the next page; raises `UserError`."""
        items, second = _queue(self._review.look(), visit.query)
        number, form = _number(visit.query), visit.form
        choice: Choice | tuple[ClauseVerdict, ...] | None = None
        if number is not None and 0 <= number < len(items):
            choice = self._choice(items[number], form)
        if number is None or choice is None:
            raise UserError("this verdict belongs to no case of the review. Open /review again.")
        self._review.write(items[number], choice, form.get("note", ""))
        return f"/review{'?round=second' if second else ''}"

    def _choice(
        self, item: Item, form: Mapping[str, str]
    ) -> Choice | tuple[ClauseVerdict, ...] | None:
        if not item.contender:
            verdict = form.get("verdict", "")
            return cast("Choice", verdict) if verdict in get_args(Choice) else None
        count = len(self._review.cases[item.case].clauses)
        verdicts = tuple(form.get(f"clause-{at}", "") for at in range(count))
        known = all(each in get_args(ClauseVerdict) for each in verdicts)
        return cast("tuple[ClauseVerdict, ...]", verdicts) if known else None

    def _item(self, look: Look, items: list[Item], number: int, *, second: bool) -> str:
        item, case = items[number], self._review.cases[items[number].case]
        label, system = look.own.get(item), shared_system_prompt([case])
        return render(
            "rubric.html.j2" if item.contender else "review.html.j2",
            here=False,
            number=number,
            second=second,
            progress=look.progress(items),
            system=system,
            question=question(case, system),
            images=Thumbnails().of(case.messages),
            note=label.note if label else "",
            longest_note=LONGEST_NOTE,
            **(self._answer if item.contender else self._pair)(look, item, case),
        )

    def _pair(self, look: Look, item: Item, case: CaseResult) -> dict[str, Any]:
        is_left, is_second = self._review.candidate_is_left(item), item.round == "second"
        candidate, baseline = (_shown(case.answers[name]) for name in self._review.sides)
        left, right = (candidate, baseline) if is_left else (baseline, candidate)
        judged = look.judged.get(item.case) if is_second else None
        own = look.choice(Item(item.case, "first"))
        return {
            "sides": [("A", "left", _marked(left, right)), ("B", "right", _marked(right, left))],
            "equal": left == right,
            "before": SIDES.get(look.choice(item) or "", ""),
            "own": SIDES.get(own or "", "") if is_second else "",
            "judge": _judge_words(judged, is_left=is_left) if judged else None,
        }

    def _answer(self, look: Look, item: Item, case: CaseResult) -> dict[str, Any]:
        """Return the content of a page with one answer: each clause with what is known of it."""
        label, first = look.own.get(item), look.own.get(item._replace(round="first"))
        chosen = label.clauses if label else ()
        known: list[Sequence[str]] = [chosen, (), (), ()]
        judgement = self._review.judgements(case).get(item.contender)
        if item.round == "second" and first and judgement:
            known = [chosen, first.clauses, judgement.verdicts, judgement.reasons]
        blank = [""] * len(case.clauses)
        return {
            "answer": _shown(case.answers[item.contender]),
            "clauses": [*zip(case.clauses, *(each or blank for each in known), strict=True)],
        }

    def _end(self, look: Look, items: list[Item], *, second: bool) -> str:
        figures, comparison = figures_of(look), self._review.comparison
        missing = MIN_LABELS - figures.cases
        return render(
            "review_end.html.j2",
            here=False,
            comparison=comparison,
            file=self._review.file,
            last=len(items) - 1,
            second=second,
            facts=Facts(tuple(_facts(figures, rubric=self._review.has_rubric)), "figures"),
            clauses=clause_table(figures.clauses),
            missing=max(0, missing),
            disagreements=len(look.disagreements),
            open_disagreements=sum(item not in look.own for item in look.disagreements),
        )


def _queue(look: Look, query: Mapping[str, str]) -> tuple[list[Item], bool]:
    second = query.get("round") == "second"
    return (look.disagreements if second else look.items), second


def _number(query: Mapping[str, str]) -> int | None:
    """Return the position of the requested item; None if the address has none."""
    text = query.get("item", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else None


def _shown(answer: Answer) -> str:
    """Return an answer with its calls, between the other turns of its dialogue."""
    calls = json.dumps(answer.tool_calls, ensure_ascii=False) if answer.tool_calls else ""
    earlier, later = answer.trajectory.around_answer if answer.trajectory else ((), ())
    return "\n\n".join(filter(None, [steps(earlier), answer.text + calls, steps(later)]))


def _marked(text: str, other: str) -> list[Piece]:
    """Return a text with the words marked that the other one lacks."""
    if len(text) + len(other) > MARKED_CHARACTERS or text == other:
        return [Piece("same", text)]
    pieces = [piece for piece in marked(other, text) if piece.kind != "missing"]
    shared = any(piece.kind == "same" for piece in pieces)
    return pieces if shared else [Piece("same", text)]


def _judge_words(judged: Judged, *, is_left: bool) -> tuple[str, list[tuple[str, str]]]:
    """Return the judge's choice in words, and each reason with what it is about."""
    if judged.is_pair:
        names = ["with the same letters", "with the letters exchanged"]
    else:
        names = ["about A", "about B"]
    about = names if is_left else names[::-1]
    choice = "a tie" if not judged.value else "A" if (judged.value > 0) is is_left else "B"
    return choice, list(zip(about, judged.reasons, strict=False))


def _facts(figures: ReviewFigures, *, rubric: bool) -> Iterator[Fact]:
    verdicts = figures.verdicts
    yield Fact("Labelled cases", f"{figures.cases:,}", f"by {', '.join(figures.reviewers) or '-'}")
    unsure = f"; {counted(verdicts['unsure'], 'case')} unsure" if verdicts["unsure"] else ""
    kinds, meaning = ("win", "tie", "loss"), "wins, ties and losses of the candidate"
    if rubric:
        kinds, meaning = ("pass", "fail"), "answers that pass and fail"
        unsure = unsure.replace("case", "answer")
    counts = " · ".join(f"{verdicts[kind]:,}" for kind in kinds)
    yield Fact("Your verdicts", counts, f"{meaning}{unsure}")
    if figures.repeated:
        same = f"{figures.same:,} of {figures.repeated:,}"
        meaning = "repeated answers with" if rubric else "repeated cases, sides exchanged, with"
        yield Fact("Your stability", same, f"{meaning} the same verdict")
    if figures.preferences:
        share = percent(figures.left / figures.preferences)
        yield Fact("A preferred to B", share, "50 % without a preference for a side")
    if figures.agreement:
        kind = "Cohen's kappa" if len(figures.reviewers) == 2 else "Krippendorff's alpha"
        yield _agreement_fact("Agreement of reviewers", figures.agreement, kind)
    if figures.judge and not rubric:  # the table of clauses shows more
        yield _agreement_fact("Agreement with the judge", figures.judge, "Cohen's kappa")
    if figures.second:
        changed = f"{figures.changed:,} of {figures.second:,}"
        yield Fact("Second look", changed, "verdicts changed; the first ones count")


def _agreement_fact(name: str, agreement: Agreement, kind: str) -> Fact:
    if agreement.estimate is None:
        return Fact(name, "unknown", "all verdicts are equal, or too few cases are shared")
    low, high = agreement.interval.ends
    ends = f"{low:.2f} to {high:.2f}".replace("-", "\u2212")
    meaning = f"{kind}, 95 % interval {ends}, {counted(agreement.cases, 'case')}"
    return Fact(name, f"{agreement.estimate:.2f}", meaning)
