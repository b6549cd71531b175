"""Comparisons to show: support triage with made-up requests, the same on every call.

The answers are dealt out to a wanted count of gained, lost, both right and both wrong; everything
else, intervals and verdict too, is computed by the product from those answers. `VERDICTS` has
counts for each verdict, `infested` puts a text of your choice into every text of a comparison.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from support.sample_evidence import evidence
from unitune.data.example import Message
from unitune.evaluate.documents.records import Answer, CaseResult, Contrast
from unitune.evaluate.documents.results import (
    BaselineResult,
    Comparison,
    Confusion,
    ContenderResult,
    GateCheck,
    GateResult,
    LeakResult,
    Regression,
)
from unitune.evaluate.statistics.paired import compare_paired, own_score
from unitune.evaluate.verdict.gate import apply
from unitune.job.job import Gate
from unitune.run.curves import Curve

SYSTEM = (
    "You triage requests to the support desk of Larkfield, which sells standing desks. Answer with "
    "one JSON object: intent, product and urgency, in the house's own words. Nothing else."
)

REQUESTS: Mapping[str, tuple[str, ...]] = {
    "late_parcel": (
        "the tracking page has said 'out for delivery' since thursday, where is my desk",
        "I was promised delivery before the weekend and nobody rang the bell.",
        "Two boxes of three arrived. The courier says the third never left your warehouse.",
    ),
    "broken_on_arrival": (
        "opened the carton and the tabletop has a crack from one edge to the middle",
        "One leg was bent out of the box. I have photos, whom do I send them to?",
        "Hello, the control panel shows E04 the moment I plug it in. Brand new.",
    ),
    "wants_refund": (
        "It is simply too big for my room, I'd like to send it back and have my money returned.",
        "sent the chair back 3 weeks ago, still nothing on my account",
        "You charged me twice for one order, please put the second payment back.",
    ),
    "assembly_help": (
        "Step 7 shows four long screws, in my bag are only short ones??",
        "which way round does the crossbar go, the drawing is the same from both sides",
        "My desk is together but it will not go lower than 90 cm. Did I miss a step?",
    ),
    "invoice_copy": (
        "our accountant needs the invoice with the company name on it, not mine",
        "Could you send me the March bill again? The link in the mail has expired.",
        "VAT number is missing on the invoice, we cannot book it like this.",
    ),
    "change_order": (
        "can you still change walnut to oak, ordered ten minutes ago",
        "Please ship to my office and not to my home, the order went out under the old address.",
        "I would like to add a cable tray to the order before it leaves.",
    ),
}
PRODUCTS = ("desk_frame", "tabletop", "chair", "lamp", "cable_tray")
URGENCIES = ("low", "normal", "high")
CLOSINGS = ("", " Thanks.", " (order {})", "\nAda Birch", " This is the second time I write!")


@dataclass(frozen=True)
class Counts:
    """How many cases have which outcome."""

    gained: int = 88
    lost: int = 4
    both_right: int = 17
    both_wrong: int = 71


VERDICTS: Mapping[str, Counts] = {
    "better": Counts(),
    "worse": Counts(gained=10, lost=44, both_right=60, both_wrong=66),
    "equivalent": Counts(gained=2, lost=2, both_right=120, both_wrong=56),
    "non-inferior": Counts(gained=14, lost=9, both_right=90, both_wrong=67),
    "inconclusive": Counts(gained=9, lost=14, both_right=90, both_wrong=67),
}

CHOICES = frozenset({"verdict", "mode", "action", "role"})
"""Fields that hold one of a few words, and no free text."""


def sample_comparison(
    counts: Counts = Counts(),
    *,
    margin: float = 0.05,
    texts: Mapping[str, str] = {},
    errors: int = 0,
    curve: bool = True,
) -> Comparison:
    """Return a comparison of tuned with few-shot.

    Args:
        counts: Outcomes of its cases.
        margin: Difference that does not matter.
        texts: Put in place of generated texts: question, expected, answer (wrong ones).
        errors: So many of few-shot's wrong answers are errors instead.
        curve: Whether there is a loss curve.
    """
    random_ = random.Random(20261125)  # noqa: S311 - made-up requests, not secrets
    outcomes = (
        [(False, True)] * counts.gained
        + [(True, False)] * counts.lost
        + [(True, True)] * counts.both_right
        + [(False, False)] * counts.both_wrong
    )
    random_.shuffle(outcomes)
    failing = [place for place, (few_shot, _) in enumerate(outcomes) if not few_shot][:errors]
    cases = tuple(
        _case(place, right, texts, random_, failed=place in failing)
        for place, right in enumerate(outcomes)
    )
    return _compared(cases, margin, _curve() if curve else None)


def _case(
    place: int,
    right: tuple[bool, bool],
    texts: Mapping[str, str],
    random_: random.Random,
    *,
    failed: bool,
) -> CaseResult:
    intent = random_.choice(list(REQUESTS))
    closing = random_.choice(CLOSINGS).format(random_.randint(20_000, 99_999))
    expected = {
        "intent": intent,
        "product": random_.choice(PRODUCTS),
        "urgency": random_.choice(URGENCIES),
    }
    question = texts.get("question", random_.choice(REQUESTS[intent]) + closing)
    wanted = texts.get("expected", json.dumps(expected))
    wrong = [texts.get("answer", text) for text in _wrong_answers(expected, random_)]
    few_shot = Answer(text=wanted if right[0] else wrong[0], scores=_scores(right=right[0]))
    if failed:
        few_shot = Answer(text="", scores=_scores(right=False), error="HTTP 503: overloaded")
    return CaseResult(
        id=f"{place:03d}-{random_.getrandbits(32):08x}",
        messages=(Message(role="system", content=SYSTEM), Message(role="user", content=question)),
        expected=wanted,
        answers={
            "zero-shot": Answer(text="Sure! How can I help?", scores=_scores(right=False)),
            "instructed": Answer(text=wrong[0], scores=_scores(right=False)),
            "few-shot": few_shot,
            "tuned": Answer(text=wanted if right[1] else wrong[1], scores=_scores(right=right[1])),
        },
    )


def _wrong_answers(expected: dict[str, str], random_: random.Random) -> tuple[str, str]:
    other = random_.choice([intent for intent in REQUESTS if intent != expected["intent"]])
    urgency = random_.choice([word for word in URGENCIES if word != expected["urgency"]])
    prompted = random_.choice(
        (
            json.dumps({**expected, "intent": other}),
            json.dumps({"intent": other.replace("_", " "), "urgency": urgency}),
            f"The customer's request is about {other.replace('_', ' ')}. I would answer: "
            + json.dumps({"category": other, "priority": urgency}),
        )
    )
    return prompted, json.dumps({**expected, "urgency": urgency})


def _scores(*, right: bool) -> dict[str, float]:
    return {"json_equal": float(right), "json_valid": 1.0 if right else 0.0}


def _compared(cases: tuple[CaseResult, ...], margin: float, curve: Curve | None) -> Comparison:
    by_name = {
        name: [case.answers[name].scores["json_equal"] for case in cases]
        for name in cases[0].answers
    }
    rivals = [name for name in by_name if name != "tuned"]
    pairs = {n: compare_paired(by_name[n], by_name["tuned"], margin=margin) for n in rivals}
    result = pairs["few-shot"]
    return Comparison(
        job="support-triage",
        run="r2611-7k2m9xq4t",
        base_model="smollm2-135m-instruct",
        backend="local",
        created="2026-11-25T09:41:00+00:00",
        verdict=result.verdict.value,
        metric="json_equal",
        candidate="tuned",
        baseline="few-shot",
        baselines=tuple(
            BaselineResult(
                name=name,
                **BaselineResult.figures(pair),
                best_on_dev=name == "few-shot",
                verdict=pair.verdict.value,
            )
            for name, pair in pairs.items()
        ),
        difference=result.difference,
        interval=(result.interval.low, result.interval.high),
        p_value=result.p_value,
        method=result.method,
        n=len(cases),
        gained=result.gained,
        lost=result.lost,
        margin=margin,
        cases_needed=result.cases_needed,
        smallest_detectable=result.smallest_detectable,
        contenders=tuple(
            _contender(name, cases, scores, curve if name == "tuned" else None)
            for name, scores in by_name.items()
        ),
        leaks=LeakResult(action="refuse"),
        dev_rows=44,
        notes=("The base model's weights are dequantised from 4 bits (Q4_1).",),
        provenance={"Seed": "0", "Training rows": "396 rows, sha256 5b0c21f4e9aa"},
        cases=cases,
    )


EFFORTS = {
    "zero-shot": "the rows' own messages, nothing added",
    "instructed": "instructions made from 396 training rows: the keys and the values of each",
    "few-shot": "2, 4 and 8 shots tried on dev; 8 chosen, nearest by words",
    "tuned": "LoRA rank 16, 3 epochs, learning rate 5e-4, chosen before test",
}
PROMPT_TOKENS = {"zero-shot": 96, "instructed": 210, "few-shot": 712, "tuned": 96}


def _contender(
    name: str, cases: tuple[CaseResult, ...], scores: list[float], curve: Curve | None
) -> ContenderResult:
    right, n = int(sum(scores)), len(cases)
    interval = own_score(scores)
    return ContenderResult(
        name=name,
        type=name,
        role="candidate" if name == "tuned" else "baseline",
        score=right / n,
        interval=(interval.low, interval.high),
        n=n,
        errors=sum(case.answers[name].error is not None for case in cases),
        scores={"json_equal": right / n, "json_valid": (right + n) / (2 * n)},
        prompt_tokens=PROMPT_TOKENS[name] * n,
        completion_tokens=27 * n,
        usd=None if name == "tuned" else Decimal("0.0312"),
        seconds=0.0021 * PROMPT_TOKENS[name] * n,
        effort=EFFORTS[name],
        run="r2611-7k2m9xq4t" if name == "tuned" else None,
        curve=curve,
    )


def _curve() -> Curve:
    random_ = random.Random(7)  # noqa: S311 - a made-up curve
    steps = tuple(range(1, 151))
    return Curve(
        steps=steps,
        values=tuple(0.32 + 2.4 / (1 + step / 9) + random_.gauss(0, 0.05) for step in steps),
        validation_steps=(25, 50, 75, 100, 125, 150),
        validation_values=(1.05, 0.74, 0.63, 0.585, 0.56, 0.556),
    )


def gated(comparison: Comparison, gate: Gate, *, required: int = 0) -> Comparison:
    """Return the comparison with what a gate says of it.

    Args:
        comparison: With its cases.
        gate: Any.
        required: So many of the first cases are required.
    """
    cases = tuple(
        replace(case, required=place < required) for place, case in enumerate(comparison.cases)
    )
    candidate = next(r for r in comparison.contenders if r.name == comparison.candidate)
    answers = [case.answers[comparison.candidate] for case in cases[:required]]
    shown = evidence(
        verdict=comparison.verdict,
        interval=comparison.interval,
        margin=comparison.margin,
        own_interval=candidate.interval,
        n=comparison.n,
        errors=sum(any(answer.error for answer in case.answers.values()) for case in cases),
        totals=dict(candidate.scores),
        required=[
            (case.id, (answer.scores[comparison.metric],))
            for case, answer in zip(cases, answers, strict=False)
        ],
    )
    result = apply(gate, shown)
    if gate.baseline is not None:
        result = result.model_copy(update={"regressions": (regression(gate.baseline),)})
    return comparison.model_copy(update={"cases": cases, "gate": result})


def regression(file: str) -> Regression:
    """Return how the candidate stands to a baseline file."""
    return Regression(
        file=file,
        difference=0.0112,
        interval=(-0.0204, 0.0431),
        p_value=0.63,
        n=178,
        gained=6,
        lost=4,
        added=("178-5a0b11ce", "179-77f0d2aa"),
        removed=("old-case",),
    )


def graded(comparison: Comparison) -> Comparison:
    """Return the comparison with answers half right, and why, in place of the wrong ones.

    Its totals are left as they are.
    """

    def half_right(answer: Answer) -> Answer:
        if answer.error or answer.scores[comparison.metric]:
            return answer
        return replace(
            answer,
            scores={**answer.scores, comparison.metric: 0.5},
            reasons={comparison.metric: "urgency differs"},
        )

    cases = tuple(
        replace(case, answers={name: half_right(one) for name, one in case.answers.items()})
        for case in comparison.cases
    )
    return comparison.model_copy(update={"cases": cases, "graded": True})


def contrast(name: str) -> Contrast:
    """Return candidate against baseline by another metric, or on a slice."""
    return Contrast(
        name=name,
        n=40,
        baseline=0.25,
        candidate=0.75,
        difference=0.5,
        interval=(0.4, 0.625),
        p_value=0.003,
        p_adjusted=0.009,
    )


def measured(comparison: Comparison) -> Comparison:
    """Return the comparison with measures, and labels that its candidate mixed up."""
    counts = {"late_parcel": {"late_parcel": 9, "wants_refund": 3, "": 1}, "wants_refund": {}}
    confusion = Confusion(labels=("late_parcel", "wants_refund"), counts=counts)
    contenders = tuple(
        result.model_copy(
            update={"measures": {"latency": 0.25}, "confusion": {"class_f1": confusion}}
        )
        for result in comparison.contenders
    )
    return comparison.model_copy(update={"contenders": contenders})


def infested(comparison: Comparison, text: str) -> Comparison:
    """Return the comparison with a text at the end of every free text in it, names too."""
    return Comparison.model_validate(_with_text(comparison.model_dump(mode="json"), text))


def _with_text(value: Any, text: str) -> Any:
    if isinstance(value, str):
        return value + text
    if isinstance(value, list):
        return [_with_text(item, text) for item in value]
    if not isinstance(value, dict):
        return value
    fields = {*Comparison.model_fields, *ContenderResult.model_fields}
    fields |= {field.name for each in (CaseResult, Answer) for field in dataclasses.fields(each)}
    fields |= {*GateResult.model_fields, *LeakResult.model_fields}
    fields |= {*Curve.model_fields, *(key.name for key in dataclasses.fields(Message))}
    fields |= {*GateCheck.model_fields, *Regression.model_fields}
    fields |= {*Confusion.model_fields, *Contrast.model_fields, *BaselineResult.model_fields}
    return {
        key if key in fields else key + text: item
        if key in {*CHOICES, "usd", "figure"}
        else _with_text(item, text)
        for key, item in value.items()
    }
