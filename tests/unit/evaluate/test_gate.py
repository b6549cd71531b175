from __future__ import annotations

import math
from typing import Any, Literal

import pytest
from support.sample_evidence import evidence

from unitune.evaluate.documents.results import Regression, VerdictName
from unitune.evaluate.verdict.gate import apply
from unitune.job.job import Gate

Mode = Literal["improve", "no-regress", "absolute"]


@pytest.mark.parametrize(
    ("verdict", "code"),
    [("better", 0), ("worse", 1), ("equivalent", 1), ("non-inferior", 3), ("inconclusive", 3)],
)
def test_improve_goes_by_the_verdict(verdict: VerdictName, code: int) -> None:
    result = apply(Gate(mode="improve"), evidence(verdict=verdict))
    assert (code, code == 0) == (result.exit_code, result.passed)


def test_improve_names_a_gain_that_is_smaller_than_the_margin() -> None:
    small = evidence(verdict="better", interval=(0.01, 0.04))
    reason = "The candidate is better than every baseline, by less than 5 points."
    assert reason == apply(Gate(mode="improve"), small).reason


def test_a_gate_asks_for_twenty_cases_unless_it_says_otherwise() -> None:
    few = evidence(verdict="better", n=19)
    assert apply(Gate(mode="improve"), few).exit_code == 3
    assert apply(Gate(mode="improve", min_cases=19), few).exit_code == 0


@pytest.mark.parametrize(
    ("interval", "code"),
    [
        ((0.01, 0.2), 0),
        ((-0.049, 0.1), 0),
        ((-0.05, 0.1), 3),
        ((-0.2, 0.0), 3),
        ((-0.2, -0.001), 1),
        ((-0.04, -0.001), 0),
    ],
)
def test_no_regress_goes_by_the_interval_and_the_margin(
    interval: tuple[float, float], code: int
) -> None:
    assert code == apply(Gate(mode="no-regress"), evidence(interval=interval)).exit_code


@pytest.mark.parametrize(
    ("own", "code"), [((0.8, 0.9), 0), ((0.81, 0.9), 0), ((0.7, 0.8), 3), ((0.7, 0.79), 1)]
)
def test_absolute_goes_by_the_candidates_own_interval(own: tuple[float, float], code: int) -> None:
    gate = Gate(mode="absolute", threshold=0.8)
    assert code == apply(gate, evidence(own_interval=own)).exit_code


@pytest.mark.parametrize("mode", ["improve", "no-regress", "absolute"])
@pytest.mark.parametrize(
    ("n", "errors", "min_cases", "code"),
    [
        (100, 2, 1, 0),
        (100, 3, 1, 4),
        (50, 1, 1, 0),
        (350, 7, 1, 0),
        (350, 8, 1, 4),
        (100, 0, 100, 0),
        (100, 0, 101, 3),
        (100, 3, 101, 4),
    ],
)
def test_errors_and_too_few_cases_come_before_any_evidence(
    mode: Mode, n: int, errors: int, min_cases: int, code: int
) -> None:
    gate = Gate(mode=mode, threshold=0.5 if mode == "absolute" else None, min_cases=min_cases)
    passing: Any = {"verdict": "better", "interval": (0.1, 0.2), "own_interval": (0.6, 0.7)}
    assert code == apply(gate, evidence(**passing, n=n, errors=errors)).exit_code


def test_the_reason_is_a_sentence_with_the_figures() -> None:
    result = apply(Gate(mode="no-regress"), evidence())
    assert result.reason == "These cases cannot rule out that it is worse by more than 5 points."


def pinned_gate(**more: Any) -> Gate:
    return Gate(mode="improve", **more)


@pytest.mark.parametrize(
    ("scores", "code"),
    [
        ((1.0,), 0),
        ((0.0,), 1),
        ((0.99,), 1),
        ((None,), 4),
        ((math.nan,), 4),
        ((1.0, 0.0, 1.0), 0),
        ((1.0, 0.0, 0.0), 1),
        ((1.0, 0.0), 1),
        ((1.0, None, 1.0), 0),
        ((1.0, None, 0.0), 4),
        ((0.0, None, 0.0), 1),
    ],
)
def test_a_pinned_case_goes_by_the_majority_of_its_repeats(
    scores: tuple[float | None, ...], code: int
) -> None:
    shown = evidence(verdict="better", required=(("a1", scores),))
    result = apply(pinned_gate(), shown)

    assert code == result.exit_code
    assert code == 0 or "required case a1" in result.reason


def test_a_pinned_case_may_be_right_below_a_full_score() -> None:
    shown = evidence(verdict="better", required=(("a1", (0.8,)),))

    assert apply(pinned_gate(required_score=0.8), shown).exit_code == 0
    assert apply(pinned_gate(required_score=0.81), shown).exit_code == 1


def test_a_broken_pinned_case_fails_also_with_too_few_cases_but_not_with_too_many_errors() -> None:
    broken: Any = {"verdict": "better", "required": (("a1", (0.0,)),)}

    assert apply(pinned_gate(min_cases=101), evidence(**broken)).exit_code == 1
    assert apply(pinned_gate(), evidence(**broken, errors=3)).exit_code == 4


@pytest.mark.parametrize(
    ("guard", "mean", "code"),
    [
        ({"at_least": 0.99}, 0.99, 0),
        ({"at_least": 0.99}, 0.98, 1),
        ({"at_most": 2.0}, 2.0, 0),
        ({"at_most": 2.0}, 2.1, 1),
        ({"at_least": 0.0}, None, 4),
        ({"at_most": 2.0}, math.nan, 4),
    ],
)
def test_a_guard_goes_by_the_mean_and_a_mean_without_a_value_never_passes(
    guard: dict[str, float], mean: float | None, code: int
) -> None:
    gate = Gate.model_validate({"mode": "improve", "constraints": [{"metric": "other", **guard}]})
    shown = evidence(verdict="better", totals={"other": mean})

    assert code == apply(gate, shown).exit_code


def test_a_guard_on_a_metric_that_nobody_measured_never_passes() -> None:
    gate = Gate.model_validate(
        {"mode": "improve", "constraints": [{"metric": "other", "at_least": 0}]}
    )

    assert apply(gate, evidence(verdict="better")).exit_code == 4


@pytest.mark.parametrize("mode", ["improve", "no-regress", "absolute"])
@pytest.mark.parametrize("field", ["interval", "own_interval"])
def test_an_interval_without_a_value_never_passes(mode: Mode, field: str) -> None:
    gate = Gate(mode=mode, threshold=0.5 if mode == "absolute" else None)
    passing: Any = {"verdict": "better", "interval": (0.1, 0.2), "own_interval": (0.6, 0.7)}
    blind = passing | {field: (math.nan, math.nan)}

    assert apply(gate, evidence(**blind)).exit_code == 4


def regression(interval: tuple[float, float], n: int = 100) -> Regression:
    return Regression(
        file="baseline.jsonl",
        difference=0.0,
        interval=interval,
        p_value=1.0,
        n=n,
        gained=0,
        lost=0,
    )


@pytest.mark.parametrize(
    ("interval", "code"), [((-0.04, 0.1), 0), ((-0.2, -0.001), 1), ((-0.06, 0.1), 3)]
)
def test_with_a_baseline_file_no_regress_goes_by_it_and_not_by_the_best_baseline(
    interval: tuple[float, float], code: int
) -> None:
    gate = Gate(mode="no-regress", baseline="baseline.jsonl")
    opposite = (0.1, 0.2) if code else (-0.2, -0.1)
    result = apply(gate, evidence(interval=opposite, regressions=(regression(interval),)))

    assert code == result.exit_code
    assert "than in baseline.jsonl" in result.reason


def test_min_cases_counts_those_that_the_baseline_file_has_too() -> None:
    gate = Gate(mode="no-regress", baseline="baseline.jsonl", min_cases=95)
    shown = evidence(regressions=(regression((-0.01, 0.01), n=94),))

    assert apply(gate, shown).exit_code == 3


@pytest.mark.parametrize(
    ("more", "code"),
    [({}, 0), ({"errors": 3}, 4), ({"n": 9}, 3), ({"required": (("a", (0.0,)),)}, 1)],
)
def test_scores_to_be_accepted_are_held_against_everything_but_a_baseline(
    more: dict[str, Any], code: int
) -> None:
    gate = Gate(mode="no-regress", baseline="baseline.jsonl", min_cases=10)
    worse = evidence(interval=(-0.5, -0.4), accepting=True, **more)

    assert code == apply(gate, worse).exit_code


def test_every_rule_and_every_pinned_case_is_a_check_of_its_own() -> None:
    gate = Gate.model_validate(
        {"mode": "improve", "constraints": [{"metric": "json_valid", "at_least": 0.99}]}
    )
    shown = evidence(
        verdict="inconclusive",
        required=(("a1", (1.0,)), ("b2", (0.0,))),
        totals={"json_valid": 1.0},
    )
    result = apply(gate, shown)

    assert [(check.name, check.exit_code) for check in result.checks] == [
        ("errors", 0),
        ("required a1", 0),
        ("required b2", 1),
        ("min_cases", 0),
        ("improve", 3),
        ("json_valid at least 0.99", 0),
    ]
    assert result.reason == "The required case b2 is not right."


def test_what_cannot_be_judged_is_not_said_to_have_failed() -> None:
    shown = evidence(errors=50, required=(("a1", (0.0,)),))
    checks = apply(pinned_gate(), shown).checks

    assert [(check.name, check.exit_code) for check in checks] == [
        ("errors", 4),
        ("required a1", None),
        ("min_cases", None),
        ("improve", None),
    ]


def test_many_reasons_are_counted_and_not_listed() -> None:
    required = tuple((f"case-{at:02}", (0.0,)) for at in range(50))
    reason = apply(pinned_gate(), evidence(required=required)).reason

    assert reason.endswith(
        "The required case case-02 is not right. 47 more checks failed for the same reason."
    )
