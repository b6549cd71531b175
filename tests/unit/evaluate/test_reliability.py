"""pass^k, unstable cases, a floor for every case, and harmless changes of the question."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import combinations
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.told import PAIR, told

from unitune.data.example import Example, Message
from unitune.evaluate.compare import compare
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.robustness import changed_cases
from unitune.job.job import Evaluate
from unitune.report.files import junit, markdown_summary
from unitune.scorers.interface import Measured
from unitune.scorers.measures import PassK, Unstable


def answers(scores: list[float]) -> list[Measured]:
    return [Measured("", score=score) for score in scores]


def test_pass_k_is_the_unbiased_estimate_and_not_a_power() -> None:
    """n 4, c = 4, 2, 0: pass^2 is 0.3889, where (c / n)^2 gives 0.4167."""
    cases = [[1.0] * 4, [1.0, 1.0, 0.0, 0.0], [0.0] * 4]
    found = [PassK().figure(answers(scores)) for scores in cases]
    assert found == [1, pytest.approx(1 / 6), 0]
    assert fmean(each or 0.0 for each in found) == pytest.approx(0.3889, abs=5e-5)


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=8), st.integers(2, 8))
def test_pass_k_is_the_share_of_all_subsets_that_are_right(scores: list[float], k: int) -> None:
    found = PassK(k=k).figure(answers(scores))
    subsets = [*combinations(scores, k)]
    if not subsets:
        assert found is None
    else:
        assert found == pytest.approx(float(Fraction(sum(map(all, subsets)), len(subsets))))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0.1, 1))
def test_unstable_is_neither_always_right_nor_always_wrong(
    scores: list[float], right_from: float
) -> None:
    right = {score >= right_from for score in scores}
    assert Unstable(required_score=right_from).figure(answers(scores)) == float(len(right) == 2)


def test_answers_without_a_score_do_not_count() -> None:
    assert PassK().figure([*answers([1.0, 1.0]), Measured("")]) == 1
    assert PassK().figure([*answers([1.0]), Measured("")]) is None
    assert Unstable().figure([*answers([1.0]), Measured("")]) is None


def yes(_model: str, _request: Any) -> str:
    return "yes"


def flaky(_model: str, request: Any) -> str:
    """The zero-shot prompt is right with seed 0 only, the instructed one except in two cases."""
    hard = request.messages[-1].text in ("test 3", "test 4")
    return "yes" if not request.seed or (told(request) and not hard) else "no"


def test_repeats_report_reliability_with_its_paired_difference(compare_by: Any) -> None:
    evaluate = {"contenders": PAIR, "repeats": 4, "temperature": 1}
    found = compare_by(flaky, evaluate)
    zero_shot, instructed = found.contenders
    assert zero_shot.measures == {"pass^2": 0, "pass^4": 0, "unstable": 1}
    assert instructed.measures == pytest.approx(
        {"pass^2": 58 / 60, "pass^4": 58 / 60, "unstable": 2 / 60}
    )
    by_name = {each.name: each for each in found.measured}
    assert [*by_name] == ["pass^2", "pass^4", "unstable"]
    pass_2 = by_name["pass^2"]
    assert (pass_2.n, pass_2.baseline) == (60, 0)
    assert pass_2.difference == pytest.approx(58 / 60)
    assert 0.8 < pass_2.interval[0] < 58 / 60 < pass_2.interval[1] <= 1
    assert by_name["unstable"].difference == pytest.approx(-58 / 60)
    assert "pass^4" in json.loads(found.verdict_json())["measured"][1]["name"]
    assert "chance that k answers to one case are all right" in markdown_summary(found)


def test_the_difference_is_clustered_like_the_verdict(compare_by: Any) -> None:
    """Ten wordings of each question do not narrow the interval as sixty questions do."""
    evaluate = {"contenders": PAIR, "repeats": 2, "temperature": 1}
    rows = [(f"question number {at % 6} of the day{'!' * (at // 6)}", "yes") for at in range(60)]
    copies, alone = compare_by(flaky, evaluate, test=rows), compare_by(flaky, evaluate)
    widths = [
        each.measured[0].interval[1] - each.measured[0].interval[0] for each in (copies, alone)
    ]
    assert copies.clusters == 6
    assert widths[0] > 2 * widths[1]


def test_one_answer_says_nothing_about_reliability(compare_by: Any) -> None:
    found = compare_by(yes, {"contenders": PAIR})
    assert (found.measured, found.contenders[0].measures) == ((), {})


def test_repeats_at_temperature_0_are_noted(compare_by: Any) -> None:
    found = compare_by(yes, {"contenders": PAIR, "repeats": 2})
    assert any("requested at temperature 0" in note for note in found.notes)


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        ({"repeats": 1, "scorers": ["exact", "unstable"]}, "at least 2, not 1"),
        ({"repeats": 2, "scorers": ["exact", {"type": "pass_k", "k": 3}]}, "at least 3, not 2"),
        (
            {
                "repeats": 2,
                "gate": {
                    "mode": "improve",
                    "constraints": [{"metric": "pass^5", "at_least": 0.5}],
                },
            },
            r"pass\^5 needs evaluate.repeats of at least 5, not 2",
        ),
        (
            {
                "gate": {
                    "mode": "improve",
                    "constraints": [{"metric": "stable_case", "at_least": 0.5}],
                },
            },
            "gate.constraints names 'stable_case', but the scorers are exact",
        ),
    ],
)
def test_a_measure_that_has_no_value_is_refused(evaluate: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Evaluate.model_validate(evaluate)


def gated(make_job: Any, **gate: Any) -> Comparison:
    gate = {"mode": "no-regress", "min_cases": 5, **gate}
    evaluate = {"contenders": PAIR, "repeats": 3, "temperature": 1, "gate": gate}
    return compare(make_job(evaluate))


@pytest.mark.parametrize(
    ("metric", "bound", "code"),
    [
        ("pass^2", {"at_least": 0.96}, 0),
        ("pass^2", {"at_least": 0.97}, 1),
        ("pass^3", {"at_least": 0.97}, 1),
        ("unstable", {"at_most": 0.04}, 0),
        ("unstable", {"at_most": 0.03}, 1),
    ],
)
def test_a_gate_bounds_reliability(
    make_job: Any, backend_of: Any, metric: str, bound: dict[str, float], code: int
) -> None:
    backend_of(flaky)
    found = gated(make_job, constraints=[{"metric": metric, **bound}])
    assert found.exit_code == code


@pytest.mark.parametrize(("floor", "code"), [(0.3, 0), (0.34, 1), (1.0, 1)])
def test_a_floor_for_every_case_names_the_cases_below(
    make_job: Any, backend_of: Any, floor: float, code: int
) -> None:
    backend_of(flaky)
    found = gated(make_job, min_case_pass_rate=floor)
    assert found.gate is not None
    (check,) = [each for each in found.gate.checks if each.name == "min_case_pass_rate"]
    assert (found.exit_code, check.exit_code) == (code, code)
    below = [case.id for case in found.cases if case.messages[-1].text in ("test 3", "test 4")]
    assert [*check.cases] == (below if code else [])
    if code:
        assert f"2 cases are right less often than {floor:g}: {below[0]} (1 of 3)" in check.reason
        assert below[1] in markdown_summary(found)
        assert below[1] in junit(found)


@pytest.mark.parametrize(("text", "code"), [("ERROR down", 4), ("CUTye", 3)])
def test_a_case_below_the_floor_only_if_an_unknown_answer_is_wrong(
    make_job: Any, backend_of: Any, text: str, code: int
) -> None:
    def rule(_model: str, request: Any) -> str:
        return text if request.messages[-1].text == "test 3" and request.seed else "yes"

    backend_of(rule)
    found = gated(make_job, min_case_pass_rate=0.5)
    assert found.gate is not None
    (check,) = [each for each in found.gate.checks if each.name == "min_case_pass_rate"]
    assert (check.exit_code, len(check.cases)) == (code, 1)


def changed(text: str, change: Any) -> str | None:
    system = Message(role="system", content="Keep THIS  system prompt")
    case = Example(messages=(system, Message(role="user", content=text)), expected="yes")
    found = changed_cases([case], [change])
    if not found:
        return None
    assert (found[0].example.messages[0], found[0].example.answer) == (system, "yes")
    return found[0].example.messages[-1].text


@pytest.mark.parametrize(
    ("change", "text", "expected"),
    [
        ("case", "Where is MY card?", "where is my card?"),
        ("case", "where is my card?", "Where is my card?"),
        ("case", "123", None),
        ("whitespace", "a b\n  c d", "a  b\n  c  d\n"),
        ("option_order", "Which?\nA) red\nB) blue\n", "Which?\nB) blue\nA) red\n"),
        (
            "option_order",
            "Which?\n- red\n- blue\nthen\n1. x\n2. y",
            "Which?\n- blue\n- red\nthen\n2. y\n1. x",
        ),
        ("option_order", "Which? Red - or blue.", None),
        ("option_order", "Which?\n(a) red", None),
    ],
)
def test_changes_of_a_question(change: str, text: str, expected: str | None) -> None:
    assert changed(text, change) == expected


def shouting(_model: str, request: Any) -> str:
    """The instructed prompt understands capitals only."""
    text = request.messages[-1].text
    if told(request):
        return "yes" if text.startswith("Test") else "no"
    return "yes"


def test_robustness_is_the_share_of_scores_that_stay(make_job: Any, backend_of: Any) -> None:
    backend = backend_of(shouting)
    rows = [(f"Test {at}" + "\n- one\n- two" * (at < 15), "yes") for at in range(60)]
    changes = ["case", "whitespace", "option_order"]
    job = make_job({"contenders": PAIR, "robustness": changes}, test=rows)
    found = compare(job)
    zero_shot, instructed = found.contenders
    assert zero_shot.measures == dict.fromkeys((f"stable_{each}" for each in changes), 1.0)
    assert instructed.measures == {
        "stable_case": 0.0,
        "stable_whitespace": 1.0,
        "stable_option_order": 1.0,
    }
    assert {each.name: each.n for each in found.measured} == {
        "stable_case": 60,
        "stable_whitespace": 60,
        "stable_option_order": 15,
    }
    assert found.n == 60
    assert any("option_order changes 15 of 60 test questions" in note for note in found.notes)
    on_test = [
        each
        for each in backend.requests
        if "Test" in each.messages[-1].text or "test" in each.messages[-1].text
    ]
    assert len(on_test) == 2 * (60 + 60 + 60 + 15)
    before = len(backend.requests)
    again = compare(job, replay=True)
    assert (again.measured, len(backend.requests)) == (found.measured, before)


def test_a_change_added_later_requests_only_changed_questions(
    make_job: Any, backend_of: Any
) -> None:
    """Even of a sampled candidate, whose known answers may not be sampled again."""
    backend = backend_of(shouting)
    evaluate = {"contenders": PAIR, "temperature": 1}
    rows = [(f"Test {at}", "yes") for at in range(60)]
    first = compare(make_job(evaluate, test=rows))
    before = len(backend.requests)
    more = compare(make_job({**evaluate, "robustness": ["case", "whitespace"]}, test=rows))
    assert (more.difference, more.n) == (first.difference, first.n)
    assert len(backend.requests) - before == 2 * 2 * 60


def test_a_missing_answer_to_a_changed_question_is_unknown(compare_by: Any) -> None:
    def rule(_model: str, request: Any) -> str:
        return "ERROR down" if request.messages[-1].text.startswith("test 1") else "yes"

    rows = [(f"Test {at}", "yes") for at in range(60)]
    gate = {"mode": "no-regress", "constraints": [{"metric": "stable_case", "at_least": 0.9}]}
    evaluate = {"contenders": PAIR, "robustness": ["case"], "gate": gate}
    found = compare_by(rule, evaluate, test=rows)
    assert found.gate is not None
    assert found.contenders[0].errors == 0
    assert [each.exit_code for each in found.gate.checks][-1] == 4
    assert found.measured[0].n == 60 - 11


def test_a_budget_counts_changed_questions(compare_by: Any) -> None:
    prices = {"base": {"input": "1", "output": "10"}}
    spent = [
        compare_by(yes, {"contenders": PAIR, "prices": prices, "robustness": changes}).spent_usd
        for changes in ([], ["case", "whitespace"])
    ]
    assert None not in spent
    assert spent[1] == 3 * (spent[0] or 0)
