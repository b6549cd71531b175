"""Results of promptfoo come over as promptfoo itself scored them."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from unitune.errors import DataError
from unitune.evaluate.readiness import check
from unitune.evaluate.scoring.scorers import build
from unitune.importers.import_suite import import_suite
from unitune.importers.promptfoo.assertions import (
    Entry,
    NoCounterpart,
    NoTranslation,
    SuiteFiles,
    Translator,
    python_pattern,
)
from unitune.importers.promptfoo.results import read_results
from unitune.importers.promptfoo.tests import messages_of
from unitune.importers.suite import Suite
from unitune.job.contenders import Server
from unitune.scorers.interface import Attempt, Measured, Scorer, Setting
from unitune.scorers.text import Contains, Exact

MADE = Path(__file__).parent / "made"
PROMPTFOO = MADE / "promptfoo"
ECHO = PROMPTFOO / "echo.jsonl"
URL = "http://127.0.0.1:8000/v1"


def test_a_suite_that_was_not_run_becomes_cases_and_scorers() -> None:
    """With its provider `echo` promptfoo fills in variables, defaults, lists and tables itself."""
    suite = read_results(ECHO)
    lines = ECHO.read_text(encoding="utf-8").splitlines()
    rows = {f"test-{row['testIdx'] + 1}": row for row in map(json.loads, lines)}
    rows = {case: row for case, row in rows.items() if not holds_code(row["testCase"])}

    assert suite.answers == ()
    assert set(rows) == {case.id for case in suite.cases}
    for case in suite.cases:
        row = rows[case.id or ""]
        assert json.loads(row["prompt"]["raw"]) == [turn.row for turn in case.messages]
        more = case.model_extra or {}
        assert row["testCase"].get("description") == more.get("description")
        values = {
            str(
                result.get("metadata", {}).get(
                    "renderedAssertionValue", result["assertion"]["value"]
                )
            )
            for result in row["gradingResult"]["componentResults"]
            if result["assertion"]["type"] == "equals"
        }
        assert values == {each["expected"] for each in more["scorers"] if each["type"] == "exact"}


def test_what_has_no_counterpart_is_reported_test_by_test() -> None:
    assert {
        finding.message.partition(":")[0]: finding.code for finding in read_results(ECHO).findings
    } == {"test-6": "no-counterpart", "test-7": "no-counterpart"}


def test_a_config_is_left_to_promptfoo(tmp_path: Path) -> None:
    config = tmp_path / "c.json"
    config.write_text('{"prompts": ["{{x}}"], "tests": []}')
    for path in (MADE / "promptfoo" / "promptfooconfig.yaml", config):
        with pytest.raises(DataError, match=f"promptfoo eval -c {path.name} --providers echo"):
            read_results(path)


PROMPTS: dict[str, tuple[str, ...]] = {
    "Capital of Peru?\nOne word.": ("user",),
    '[{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]': ("system", "user"),
    "- role: system\n  content: a\n- role: user\n  content: b\n": ("system", "user"),
    '[{"role": "user", "content": [{"modality": "text", "value": "a"}]}]': ("user",),
    '["no messages"]': ("user",),
}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_is_a_list_of_messages_or_one_of_the_user(prompt: str) -> None:
    assert PROMPTS[prompt] == tuple(turn.role for turn in messages_of(prompt))


IMAGE = '[{"role": "user", "content": [{"modality": "image", "value": "a"}]}]'


@pytest.mark.parametrize(
    "prompt", [" ", '[{"role": "user", "content": 7}]', "- role: alien", IMAGE]
)
def test_a_prompt_that_is_no_text_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="the prompt is"):
        messages_of(prompt)


def translated(assertion: dict[str, JsonValue]) -> Entry:
    """Return an assertion as an entry, in a test with a few variables."""
    variables: dict[str, JsonValue] = {"y": "three", "list": [1]}
    return Translator({"{{ x | upper }}": "two"}, variables, SuiteFiles(PROMPTFOO)).entry(assertion)


VERDICTS = PROMPTFOO / "assertions.jsonl"
ERROR = 2
"""promptfoo's `failureReason` of an answer that it could not judge."""


CODE = re.compile(r'"type": "(not-)?(javascript|python|ruby)"|"transform"')


def holds_code(test: dict[str, Any]) -> bool:
    """Return whether a test of promptfoo cannot come over because it holds code."""
    return CODE.search(json.dumps(test)) is not None


def test_rows_are_right_where_promptfoo_passes(tmp_path: Path) -> None:
    """promptfoo's own verdicts on recorded answers to assertions of every kind that comes along.

    Where it could not judge an answer, neither can the scorer.
    """
    rows = [json.loads(line) for line in VERDICTS.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if not holds_code(row["testCase"])]
    echoed = [{**row, "provider": {"id": "echo"}} for row in rows]
    (tmp_path / "echoed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in echoed))
    result = import_suite([f"promptfoo:{tmp_path / 'echoed.jsonl'}"], tmp_path / "evals")
    assert result.suite.findings == ()
    (spec,) = result.job.evaluate.scorers
    assert isinstance(spec, Scorer)
    scorer = build(spec, Setting(tmp_path / "evals"))
    measured = Measured("", seconds=1.0, usd=0.001)
    cases = {case.case_id: case for case in result.suite.cases}
    for row in rows:
        answer, finish = row["vars"]["answer"], row["vars"].get("finish")
        case, figures = cases[f"test-{row['testIdx'] + 1}"], replace(measured, text=answer)
        score = scorer.score(Attempt(case, answer, measured=figures, finish_reason=finish))
        named, judged = (row["vars"]["id"], answer, score.reason), row["failureReason"] != ERROR
        assert (*named, row["success"], judged) == (*named, score.value == 1, not score.failed)
    assert {row["success"] for row in rows} == {True, False}


REFUSED: list[tuple[dict[str, JsonValue], str]] = [
    ({"type": "llm-rubric", "value": "nice"}, "a model or a service scores it"),
    ({"type": "not-similar", "value": "nice"}, "a model or a service scores it"),
    ({"type": "promptfoo:redteam:pii"}, "a model or a service scores it"),
    ({"type": "finish-reason", "value": "stop"}, "only length and tool_calls mean the same"),
    ({"type": "trajectory:step-count", "value": 1}, "it reads an agent's trace"),
    ({"type": "python", "value": "True"}, "unitune does not run its code"),
    ({"type": "not-javascript", "value": "file://x.js"}, "unitune does not run its code"),
    ({"type": "equals", "value": "a", "transform": "output"}, "changes the answer with code"),
    ({"type": "rouge-n", "value": "x"}, "splits words differently"),
    ({"type": "is-jsonn"}, "promptfoo has no such type"),
    ({"type": "equals", "value": "{{ z }}"}, "do not show its rendered value"),
    ({"type": "equals", "value": ["{{ list | first }}"]}, "do not show its rendered value"),
    ({"type": "contains", "value": ""}, "the text to compare with is missing"),
    ({"type": "contains-any", "value": " , "}, "the list of texts to search for"),
    ({"type": "is-json", "value": "- object"}, "a JSON Schema is an object"),
    ({"type": "is-json", "value": {"format": "date"}}, "`format`"),
    ({"type": "equals", "value": "file://none.txt"}, "none.txt is not next to the results"),
    ({"type": "equals", "value": "file://../README.md"}, "outside the suite's folder"),
    ({"type": "equals", "value": "file://recorded.mjs"}, "recorded.mjs is not text, JSON or"),
    ({"type": "latency"}, "it has no threshold"),
    ({"type": "regex", "value": r"\p{L}"}, r"'\\p{L}' has no counterpart"),
    ({"type": "assert-set", "assert": []}, "has no assertions"),
    ({"type": "assert-set", "assert": [{"type": "assert-set"}]}, "contains a set"),
    ({"type": "equals", "value": "a", "weight": "2"}, "the weight '2', which is not a number"),
]


@pytest.mark.parametrize(("assertion", "reason"), REFUSED, ids=lambda item: str(item)[:40])
def test_what_unitune_would_score_otherwise_is_refused(
    assertion: dict[str, JsonValue], reason: str
) -> None:
    with pytest.raises(NoCounterpart, match=re.escape(reason)):
        translated(assertion)


def test_values_are_filled_in_as_promptfoo_shows_them_or_by_the_tests_variables() -> None:
    filled = translated({"type": "contains-all", "value": ["{{ x | upper }}", "{{y}} pigs"]})
    assert filled["all_of"] == ["two", "three pigs"]


def echoed(folder: Path, *tests: dict[str, Any], **config: Any) -> Suite:
    """Read results of promptfoo's provider `echo`."""
    rows = [
        {
            "testIdx": at,
            "promptIdx": 0,
            "prompt": {"raw": f"Question {at}?", "label": "p"},
            "provider": {"id": "echo"},
            "success": True,
            "testCase": test,
        }
        for at, test in enumerate(tests)
    ]
    content = {"results": {"version": 3, "results": rows}, "config": config}
    (folder / "r.json").write_text(json.dumps(content), encoding="utf-8")
    return read_results(folder / "r.json")


EQUALS: dict[str, JsonValue] = {"type": "equals", "value": "a"}
RUBRIC: dict[str, JsonValue] = {"type": "llm-rubric", "value": "nice"}


def test_what_a_model_would_judge_is_said_and_never_left_out_in_silence(tmp_path: Path) -> None:
    suite = echoed(tmp_path, {"assert": [EQUALS, RUBRIC]}, {"assert": [RUBRIC]}, {"assert": []})
    assert [case.id for case in suite.cases] == ["test-1"]
    assert [(finding.message.partition(":")[0], finding.code) for finding in suite.findings] == [
        ("test-1", "no-counterpart"),
        ("test-2", "no-counterpart"),
        ("test-3", "no-assertion"),
    ]


def test_what_has_no_weight_is_named(tmp_path: Path) -> None:
    """It decides nothing in promptfoo either, which yet ends the test where it cannot run."""
    weightless: dict[str, JsonValue] = {"type": "javascript", "value": "file://x.js", "weight": 0}
    suite = echoed(tmp_path, *[{"assert": [EQUALS, weightless]}] * 5, {"assert": [EQUALS]})
    (note,) = suite.notes
    assert (len(suite.cases), suite.findings) == (6, ())
    assert note.startswith("'javascript' of weight 0 was not imported (test-1, test-2, test-3 a")


def test_a_mean_over_some_of_its_assertions_would_be_another_test(tmp_path: Path) -> None:
    suite = echoed(tmp_path, {"assert": [EQUALS, RUBRIC], "threshold": 0.5}, {"assert": [EQUALS]})
    assert [case.id for case in suite.cases] == ["test-2"]


def test_tests_that_differ_in_their_text_alone_share_a_scorer(tmp_path: Path) -> None:
    contains = [{"type": "icontains", "value": text} for text in ("a", "b")]
    suite = echoed(tmp_path, *({"assert": [each], "vars": {"n": 1}} for each in contains))
    assert suite.scorers == (Contains(ignore_case=True, strip=False),)
    assert [(case.expected, case.model_extra) for case in suite.cases] == [("a", {}), ("b", {})]


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ({"assertScoringFunction": "file://s.js"}, "a custom function scores it"),
        ({"threshold": "half"}, "its threshold 'half' is not a number"),
        ({"options": {"transform": "file://t.js"}}, "`transform` changes the answers with code"),
    ],
)
def test_a_test_that_is_scored_by_code_in_a_file_is_refused(
    test: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    (finding,) = echoed(tmp_path, {"assert": [EQUALS], **test}).findings
    assert reason in finding.message


def test_a_prompt_that_holds_another_tests_answer_is_no_case(tmp_path: Path) -> None:
    first = {"assert": [EQUALS], "options": {"storeOutputAs": "x"}}
    suite = echoed(tmp_path, first, {"assert": [EQUALS]})
    assert (
        [case.id for case in suite.cases],
        [finding.code for finding in suite.findings],
    ) == (["test-1"], ["depends"])


def test_providers_come_along_with_their_settings_or_are_named(tmp_path: Path) -> None:
    settings = {"temperature": 0.7, "max_tokens": 99}
    suite = echoed(
        tmp_path,
        {"assert": [EQUALS]},
        providers=[
            {"id": "openai:chat:gpt-4.1-mini", "config": {**settings, "tools": []}},
            {"id": "openai:chat:own", "label": "ours", "config": {**settings, "apiBaseUrl": URL}},
            {"anthropic:messages:claude": {"config": settings}},
            {"id": "exec:./run.sh", "config": settings},
        ],
    )
    assert suite.base == ("openai", "gpt-4.1-mini")
    server, model = suite.contenders
    assert Server(name="ours", url=URL, model="own", prompt="zero-shot") == server
    assert (model.type, getattr(model, "backend", None)) == ("model", "anthropic")
    assert settings == suite.settings
    assert suite.notes == (
        "The provider exec:./run.sh was not imported, because no backend supports it.",
        "These settings of openai:chat:gpt-4.1-mini were not imported: tools.",
    )


def test_settings_that_differ_are_said(tmp_path: Path) -> None:
    providers = [{"id": "openai:a", "config": {"temperature": 0}}, "openai:b"]
    suite = echoed(tmp_path, {"assert": [EQUALS]}, providers=providers)
    assert suite.settings == {}
    (note,) = suite.notes
    assert note.startswith("temperature was not imported: it is 0 of openai:a, None of openai:b.")


def test_an_imported_suite_runs_with_the_settings_of_its_providers(tmp_path: Path) -> None:
    echoed(
        tmp_path,
        {"assert": [EQUALS, {"type": "is-json"}], "vars": {"n": 1}},
        providers=[{"id": "openai:gpt-4.1", "config": {"temperature": 0.5, "apiBaseUrl": URL}}],
    )
    result = import_suite([f"promptfoo:{tmp_path / 'r.json'}"], tmp_path / "evals")
    evaluate = result.job.evaluate
    assert (evaluate.temperature, evaluate.max_tokens) == (0.5, 1024)
    assert [each.type for each in evaluate.contenders] == ["zero-shot", "tuned", "server"]
    (problem,) = check(result.job).errors
    assert "has no training rows" in problem.message, "all else is ready"


NOT_TRANSLATED = {
    *(r"(?<year>\d{4})-\k<year>", "[[]", "[a&&b]", "{,3}", "a{,3}", "a{", "}", "]"),
    *(r"\p{L}", "[^]", "[]", r"\1", r"(a)\1", r"\cA", r"[\b]"),
}


def _found() -> list[tuple[str, list[str] | None]]:
    return list(json.loads((MADE / "javascript_regex.json").read_text("utf-8"))["patterns"].items())


@pytest.mark.parametrize(("pattern", "matched"), _found())
def test_a_translated_pattern_finds_what_javascript_finds(
    pattern: str, matched: list[str] | None
) -> None:
    texts = json.loads((MADE / "javascript_regex.json").read_text("utf-8"))["texts"]
    try:
        translated = python_pattern(pattern)
    except NoTranslation:
        assert matched is None or pattern in NOT_TRANSLATED
    else:
        assert matched == [text for text in texts if re.search(translated, text)]


@given(st.text(max_size=30))
def test_a_pattern_is_translated_or_refused_and_never_breaks(pattern: str) -> None:
    with suppress(NoTranslation):
        re.compile(python_pattern(pattern))


def test_results_keep_what_promptfoo_said_of_each_answer() -> None:
    suite = read_results(MADE / "promptfoo" / "results.json")
    by_name = {one.model: one for one in suite.answers}

    assert list(by_name) == ["small", "big", "broken"]
    assert {f"test-{number}" for number in range(1, 6)} == {case.id for case in suite.cases}
    passed = {case: scores["promptfoo"] for case, scores in by_name["small"].scores.items()}
    assert passed == {"test-1": 1.0, "test-2": 0.0, "test-3": 0.0, "test-4": 1.0, "test-5": 0.0}
    assert by_name["big"].texts["test-3"] == " Lome\n"
    assert "test-4" not in by_name["broken"].texts, (
        "the provider failed: no answer, not a wrong one"
    )
    assert suite.scorers == (Exact(strip=False),)
    assert suite.findings == ()


def test_whether_unitune_agrees_with_promptfoo_is_told() -> None:
    """promptfoo counts outer whitespace: ' Lome' is no Lome."""
    notes = read_results(PROMPTFOO / "results.json").notes
    assert "unitune's exact was imported too and agrees with promptfoo on 14 of 14" in notes[-1]


def test_bounds_on_cost_need_prices_and_what_recorded_answers_do_not_hold(tmp_path: Path) -> None:
    cost: dict[str, JsonValue] = {"type": "cost", "threshold": 0.1}
    suite = echoed(tmp_path, {"assert": [EQUALS, cost]})
    assert "1 test limits the cost of an answer: set evaluate.prices." in suite.notes
    run = (tmp_path / "r.json").read_text().replace('"echo"', '"openai:gpt-4.1"')
    (tmp_path / "r.json").write_text(run)
    assert "which recorded answers do not have" in read_results(tmp_path / "r.json").notes[-1]


def test_results_of_code_keep_the_verdict_of_promptfoo(tmp_path: Path) -> None:
    lines = VERDICTS.read_text(encoding="utf-8").splitlines(keepends=True)
    coded = [line for line in lines if '"id":"py"' in line]
    (tmp_path / "r.jsonl").write_text("".join(coded))
    suite = read_results(tmp_path / "r.jsonl")
    assert suite.scorers == ()
    assert "only by promptfoo: the assertion 'python': unitune does not run" in suite.notes[-1]
    (answers,) = suite.answers
    passed = {f"test-{row['testIdx'] + 1}": float(row["success"]) for row in map(json.loads, coded)}
    assert {case: each["promptfoo"] for case, each in answers.scores.items()} == passed


def test_results_of_judges_and_code_come_along_whole() -> None:
    suite = read_results(MADE / "promptfoo" / "judged.jsonl")

    assert suite.findings == ()
    assert suite.scorers == ()
    assert len(suite.cases) == 3
    assert [[scores["promptfoo"] for scores in one.scores.values()] for one in suite.answers] == [
        [0.0, 1.0, 0.0]
    ] * 2
    names = [one.model for one in suite.answers]
    assert names == ["openai:big, prompt 1", "openai:big, prompt 2"]


def test_a_file_that_is_something_else_is_named_with_what_to_do(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text('{"results": {"version": 2, "table": {}}}')
    with pytest.raises(DataError, match=r"old\.json is not a results file of version 3 but of 2"):
        read_results(old)
    row = {"testIdx": 0, "promptIdx": 0}
    old.write_text(json.dumps({"results": {"version": 3, "results": [row]}}))
    with pytest.raises(
        DataError, match=r"result 1 is not in the format of promptfoo .*: prompt is missing"
    ):
        read_results(old)
