"""A comparison of open answers to review, with a judge, and reviewers by script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from support.sample_comparison import VERDICTS, sample_comparison
from unitune.data.example import Message
from unitune.evaluate.documents.history import keep
from unitune.evaluate.documents.records import Answer, CaseJudgement, CaseResult
from unitune.evaluate.documents.results import Comparison, JudgeResult

ORCA = Path(__file__).parents[3] / "shared" / "data" / "orca-dpo-pairs" / "validation.jsonl"


class Pair(NamedTuple):
    """A question with the candidate's answer and the baseline's."""

    question: str
    candidate: str
    baseline: str
    system: str = ""


GREETING = (
    "Thank you for writing to us. We have looked into your order and found that the second parcel "
    "never left our warehouse."
)
PAIRS = tuple(
    Pair(
        f"Order {at}: only one of my two parcels has arrived, and the courier says that the other "
        "one was never handed over. What happens now?",
        f"{GREETING} It ships today, and you need not do anything. Tracking number: LF-{at:04}.",
        f"{GREETING} Please contact the courier about it.\n\nIs there anything else I can help "
        f"with? (order {at})",
    )
    for at in range(60)
)


def orca(count: int) -> list[Pair]:
    """Return real pairs; the preferred answer is the candidate's in two of three."""
    pairs: list[Pair] = []
    for line in ORCA.read_text("utf-8").splitlines()[:count]:
        row = json.loads(line)
        texts = [row[key][0]["content"] for key in ("preferred_output", "non_preferred_output")]
        messages = {each["role"]: each["content"] for each in row["input"]["messages"]}
        sides = texts if len(pairs) % 3 else texts[::-1]
        pairs.append(Pair(messages["user"], *sides, messages.get("system", "")))
    return pairs


def reviewed(pairs: Sequence[Pair] = PAIRS, judge: Sequence[float | None] = ()) -> Comparison:
    """Keep a comparison of these answers in the history.

    Args:
        pairs: Questions and answers.
        judge: The judge's value of each pair, if there is a judge; None for a failed judgement.
    """
    made = sample_comparison(VERDICTS["better"])
    cases = [_case(made, at, pair) for at, pair in enumerate(pairs)]
    for at, value in enumerate(judge):
        failed = "it gave no verdict" if value is None else None
        judgement = CaseJudgement(
            judge="judge",
            contender=made.baseline,
            value=value,
            reasons=("A says what happens next.", "B says what happens next."),
            error=failed,
        )
        cases[at] = replace(cases[at], judgements=(judgement,))
    return keep(made.model_copy(update={"cases": tuple(cases)}))


CLAUSES = (
    "The reply says what happens next.",
    "The tone is polite, and the reply does not blame the customer.",
    "The reply has at most 50 words.",
)


def reviewed_by_rubric(pairs: Sequence[Pair] = PAIRS) -> Comparison:
    """Keep a comparison whose judge has a rubric. Every fourth case, it fails the candidate."""
    made = sample_comparison(VERDICTS["better"])
    cases = [
        replace(
            _case(made, at, pair),
            clauses=CLAUSES,
            judgements=tuple(
                CaseJudgement(
                    judge="judge",
                    contender=name,
                    value=float(first == "pass"),
                    verdicts=(first, "pass", "pass"),
                    reasons=("It names a date." if first == "pass" else "It does not.", "", ""),
                )
                for name, first in (
                    (made.candidate, "pass" if at % 4 else "fail"),
                    (made.baseline, "fail"),
                )
            ),
        )
        for at, pair in enumerate(pairs)
    ]
    figures = JudgeResult(
        name="judge",
        model="the-judge",
        compares=False,
        criteria=CLAUSES,
        decides=True,
        requests=2 * len(pairs),
        failed=0,
        repeated=20,
        changed=0,
        basis="A judge decides.",
    )
    return keep(made.model_copy(update={"cases": tuple(cases), "judges": (figures,)}))


def _case(made: Comparison, at: int, pair: Pair) -> CaseResult:
    texts = {made.candidate: pair.candidate, made.baseline: pair.baseline}
    turns = [Message(role="user", content=pair.question)]
    if pair.system:
        turns.insert(0, Message(role="system", content=pair.system))
    return CaseResult(
        id=f"case-{at}",
        messages=tuple(turns),
        expected="",
        answers={
            each.name: Answer(
                text=texts.get(each.name, "I do not know."), scores={made.metric: 0.0}
            )
            for each in made.contenders
        },
    )
