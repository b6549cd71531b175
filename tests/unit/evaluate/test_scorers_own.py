"""Users' own scorers: Python functions and OpenAI grader objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from support.scoring import case, dataset, score

from unitune.errors import DataError, JobError
from unitune.evaluate.scoring.scorers import build, check_expected
from unitune.models import function_call
from unitune.scorers.functions import PythonFunction
from unitune.scorers.graders import Grader, OpenAIGrader, compile_formula
from unitune.scorers.interface import Attempt, Score, Setting

CHECKS = """
import dataclasses

@dataclasses.dataclass
class Needed:  # dataclasses look their module up
    word: str

def polite(answer, case):
    return Needed("please").word in answer

def near(answer, case):
    return {"score": 0.5, "reason": f"expected {case.answer} of {case.model_extra['source']}"}

def broken(answer, case):
    return 1 / len(answer)

def leaves(answer, case):
    raise SystemExit(3)

def too_much(answer, case):
    return 7

def nothing(answer, case):
    return None

def not_a_number(answer, case):
    return float("nan")

def no_score(answer, case):
    return {"points": 1}

constant = 1
"""


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    (tmp_path / "checks.py").write_text(CHECKS)
    (tmp_path / "wrong.py").write_text("import no_such_module_anywhere")
    return Setting(tmp_path)


def own(name: str) -> PythonFunction:
    return PythonFunction(function=f"checks.py:{name}")


def test_a_function_says_right_or_wrong(setting: Setting) -> None:
    assert score(own("polite"), "please wait", "", setting).value == 1
    assert score(own("polite"), "wait", "", setting).value == 0


def test_a_function_may_give_a_reason_and_sees_the_cases_own_keys(setting: Setting) -> None:
    found = score(own("near"), "a", "b", setting, source="mail")
    assert Score(0.5, "expected b of mail") == found


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken", "ZeroDivisionError: division by zero"),
        ("leaves", "SystemExit: 3"),
        ("too_much", "it returned 7.0, but a score is from 0 to 1"),
        ("nothing", "it returned None, which is not a number"),
        ("not_a_number", "it returned nan, but a score is from 0 to 1"),
        ("no_score", "it returned {'points': 1}, which has no `score`"),
    ],
)
def test_what_goes_wrong_in_a_function_is_recorded_and_never_raised(
    setting: Setting, name: str, reason: str
) -> None:
    assert Score(0.0, reason, failed=True) == score(own(name), "", "", setting)


def test_a_function_of_an_installed_module_will_do() -> None:
    spec = PythonFunction(function="operator:eq")
    assert score(spec, "a", "a").value == 0  # a text equals no case


def test_a_function_may_stand_in_a_file_of_another_encoding(tmp_path: Path) -> None:
    text = "# coding: latin-1\ndef polite(answer, case):\n    return answer == 'caf\u00e9'\n"
    (tmp_path / "checks.py").write_text(text, encoding="latin-1")
    assert score(own("polite"), "caf\u00e9", "", Setting(tmp_path)).value == 1


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        ("missing.py:f", "names 'missing.py', which is neither a Python file in"),
        ("no.such.module:f", "names 'no.such.module', which is neither"),
        ("wrong.py:f", "cannot import wrong.py: ModuleNotFoundError: No module named"),
        ("checks.py:missing", "checks.py has no function 'missing'"),
        ("checks.py:constant", "checks.py has no function 'constant'"),
    ],
)
def test_a_function_that_is_not_there_is_refused_before_anybody_is_asked(
    setting: Setting, function: str, complaint: str
) -> None:
    with pytest.raises(JobError, match=complaint):
        build(PythonFunction(function=function), setting)


def test_a_function_is_named_with_its_file() -> None:
    with pytest.raises(ValidationError, match="should match pattern"):
        PythonFunction(function="polite")


EQUAL = {
    "type": "string_check",
    "name": "equal",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference_answer}}",
    "operation": "eq",
}


def spec_of(grader: Any, **options: Any) -> OpenAIGrader:
    return OpenAIGrader.model_validate({"grader": grader, **options})


@pytest.mark.parametrize(
    ("operation", "answer", "right"),
    [
        ("eq", "Paris", 1),
        ("eq", "paris", 0),
        ("eq", "Paris ", 0),
        ("ne", "Rome", 1),
        ("ne", "Paris", 0),
        ("like", "It is Paris.", 1),
        ("like", "It is paris.", 0),
        ("like", "Par", 0),
        ("ilike", "It is PARIS.", 1),
    ],
)
def test_string_checks_do_what_openais_guide_says(
    operation: str, answer: str, right: float
) -> None:
    spec = spec_of({**EQUAL, "operation": operation})
    assert right == score(spec, answer, "", reference_answer="Paris").value


def test_a_tool_call_is_graded_as_in_openais_guide() -> None:
    """Section "Details on grading tool calls" of the guide, its object as it stands."""
    grader = {
        "type": "multi",
        "graders": {
            "function_name": {
                "name": "function_name",
                "type": "string_check",
                "input": "get_acceptors",
                "reference": "{{sample.output_tools[0].function.name}}",
                "operation": "eq",
            },
            "arguments": {
                "name": "arguments",
                "type": "string_check",
                "input": '{"smiles": "{{item.smiles}}"}',
                "reference": "{{sample.output_tools[0].function.arguments}}",
                "operation": "eq",
            },
        },
        "calculate_output": "0.5 * function_name + 0.5 * arguments",
    }
    scorer, row = build(spec_of(grader)), case("", smiles="CCO")
    call = function_call("get_acceptors", {"smiles": "CCO"})
    other = function_call("get_acceptors", {"smiles": "C"})
    assert scorer.score(Attempt(row, "", (call,))).value == 1.0
    assert scorer.score(Attempt(row, "", (other,))).value == 0.5
    assert scorer.score(Attempt(row, "no call")).value == 0.0


FIELDS = {
    "type": "multi",
    "graders": {
        "name": {
            "name": "name_grader",
            "type": "text_similarity",
            "input": "{{sample.output_json.name}}",
            "reference": "{{item.name}}",
            "evaluation_metric": "fuzzy_match",
            "pass_threshold": 0.9,
        },
        "email": {
            "name": "email_grader",
            "type": "string_check",
            "input": "{{sample.output_json.email}}",
            "reference": "{{item.email}}",
            "operation": "eq",
        },
    },
    "calculate_output": "(name + email) / 2",
}
"""Section "Combined graders" of the guide, as it stands."""


@pytest.mark.parametrize(
    ("answer", "low", "high"),
    [
        ({"name": "John Doe", "email": "john.doe@gmail.com"}, 1, 1),
        ({"name": "Jon Doe", "email": "john.doe@gmail.com"}, 0.5, 0.999),
        ({"name": "John Doe", "email": "john@gmail.com"}, 0.5, 0.5),
        ({"email": "john.doe@gmail.com"}, 0.5, 0.5),
        ("not JSON", 0, 0),
    ],
)
def test_fields_are_combined_as_openais_guide_says(answer: Any, low: float, high: float) -> None:
    """Samples with the wrong email score up to 0.5, with the right one from 0.5 on."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    row = {"name": "John Doe", "email": "john.doe@gmail.com"}
    assert low <= score(spec_of(FIELDS), text, "", **row).value <= high


def test_a_key_that_a_row_lacks_is_refused_before_anybody_is_asked() -> None:
    with pytest.raises(DataError, match=r"test\.jsonl:1: the row has no 'reference_answer'"):
        check_expected([build(spec_of(EQUAL))], dataset("Paris"))
    check_expected([build(spec_of(EQUAL))], dataset("Paris", reference_answer="Paris"))


def test_the_expected_answer_is_a_key_of_every_row() -> None:
    grader = {**EQUAL, "reference": "{{ item.expected }}"}
    check_expected([build(spec_of(grader))], dataset("Paris"))
    assert score(spec_of(grader), "Paris", "Paris").value == 1


@pytest.mark.parametrize(
    "metric", ["fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_2", "rouge_3", "rouge_l"]
)
@given(text=st.text(alphabet="abcd ", min_size=1))
def test_every_likeness_is_a_share_and_1_for_equal_texts(metric: str, text: str) -> None:
    grader = {
        "type": "text_similarity",
        "input": "{{sample.output_text}}",
        "reference": "the quick brown fox jumps",
        "evaluation_metric": metric,
    }
    spec = spec_of(grader)
    assert 0 <= score(spec, text, "").value <= 1
    assert pytest.approx(1.0) == score(spec, "the quick brown fox jumps", "").value


def test_a_threshold_makes_right_or_wrong_of_a_likeness() -> None:
    grader = {
        "type": "text_similarity",
        "input": "{{sample.output_text}}",
        "reference": "{{item.expected}}",
        "evaluation_metric": "rouge_1",
        "pass_threshold": 0.5,
    }
    assert score(spec_of(grader), "a b x y", "a b c d").value == 1
    assert score(spec_of(grader), "a w x y", "a b c d").value == 0


def test_a_grader_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "grader.json").write_text(json.dumps(EQUAL))
    (tmp_path / "code.json").write_text('{"type": "python", "source": ""}')
    (tmp_path / "judge.json").write_text('{"type": "score_model"}')
    setting = Setting(tmp_path)
    spec = OpenAIGrader(grader="grader.json")
    assert score(spec, "Paris", "", setting, reference_answer="Paris").value == 1
    for name, complaint in {
        "code.json": "name it in the scorer `python`",
        "judge.json": "needs a model as judge",
        "missing.json": "No such file",
    }.items():
        with pytest.raises(JobError, match=complaint):
            build(OpenAIGrader(grader=name), setting)


@pytest.mark.parametrize(
    ("grader", "complaint"),
    [
        ({"type": "score_model", "model": "m"}, "type score_model needs a model as judge"),
        ({"type": "label_model"}, "type label_model needs a model as judge"),
        (
            {**FIELDS, "graders": {"name": {"type": "label_model"}}},
            "type label_model needs a model as judge",
        ),
        ({**EQUAL, "input": "{{ answer }}"}, "{{ answer }} is not a variable"),
        ({**FIELDS, "calculate_output": "name + phone"}, "uses 'phone', but the graders are"),
        ({**FIELDS, "calculate_output": "name.real"}, "only numbers, graders' names"),
        ({**FIELDS, "calculate_output": "(name"}, "is not a formula"),
        ({**FIELDS, "graders": [EQUAL, {**EQUAL, "name": ""}]}, "a unique name"),
        ({**FIELDS, "graders": [EQUAL, EQUAL]}, "a unique name"),
        (
            {
                "type": "text_similarity",
                "evaluation_metric": "meteor",
                "input": "",
                "reference": "",
            },
            "meteor needs WordNet",
        ),
    ],
)
def test_graders_that_cannot_be_used_are_refused_with_the_reason(
    grader: Any, complaint: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter[Grader](Grader).validate_python(grader)
    assert complaint in str(caught.value)


def test_graders_of_a_list_are_known_by_their_names() -> None:
    grader = {"type": "multi", "graders": [EQUAL], "calculate_output": "1 - equal"}
    assert score(spec_of(grader), "Paris", "", reference_answer="Paris").value == 0


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("0.5 * a + 0.5 * b", 0.5),
        ("2 ^ 3 ^ 2", 512),
        ("-a ^ 2", -1),
        ("min(a, b, 0.25)", 0),
        ("max(a) / (1 + 1)", 0.5),
        ("abs(b - a) + floor(1.5) + ceil(0.2)", 3),
        ("sqrt(4) + exp(0) + log(1)", 3),
    ],
)
def test_formulas_are_arithmetic(formula: str, value: float) -> None:
    assert pytest.approx(value) == compile_formula(formula, ("a", "b"))({"a": 1.0, "b": 0.0})


@pytest.mark.parametrize(
    "formula",
    ["__import__('os')", "a if b else 1", "a[0]", "log(a, b)", "min()", "'a'", "a < b", "f(a)", ""],
)
def test_whatever_is_no_arithmetic_is_refused(formula: str) -> None:
    with pytest.raises(ValueError, match="calculate_output"):
        compile_formula(formula, ("a", "b"))


@pytest.mark.parametrize(
    "formula", ["equal / 0", "log(equal - equal)", "10 ^ 10 ^ 10", "sqrt(-1)", "equal + 1"]
)
def test_a_formula_that_gives_no_share_is_a_recorded_failure(formula: str) -> None:
    grader = {"type": "multi", "graders": {"equal": EQUAL}, "calculate_output": formula}
    assert score(spec_of(grader), "Paris", "", reference_answer="Paris").failed
