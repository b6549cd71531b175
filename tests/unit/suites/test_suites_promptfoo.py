"""Results of promptfoo come over as promptfoo itself scored them."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from unitune.errors import DataError
from unitune.importers.promptfoo import assertions
from unitune.importers.promptfoo.assertions import Check, NoCounterpart, translate
from unitune.importers.promptfoo.javascript_regex import NoTranslation, python_pattern
from unitune.importers.promptfoo.results import messages_of, read_results
from unitune.scorers.json_text import JsonEqual, JsonSchema, JsonValid
from unitune.scorers.text import Contains, Exact, Regex

MADE = Path(__file__).parent / "made"
ECHO = MADE / "promptfoo" / "echo.jsonl"


def test_a_suite_that_was_not_run_becomes_cases_and_scorers() -> None:
    """With its provider `echo` promptfoo fills in variables, defaults, lists and tables itself."""
    suite = read_results(ECHO)
    lines = ECHO.read_text(encoding="utf-8").splitlines()
    rows = {f"test-{row['testIdx'] + 1}": row for row in map(json.loads, lines)}

    assert (Exact(),) == suite.scorers
    assert () == suite.answers
    assert set(rows) - {"test-7"} == {case.id for case in suite.cases}
    for case in suite.cases:
        row = rows[case.id or ""]
        assert json.loads(row["prompt"]["raw"]) == [turn.row for turn in case.messages]
        assert row["testCase"].get("description") == (case.model_extra or {}).get("description")
        values = {
            str(
                result.get("metadata", {}).get(
                    "renderedAssertionValue", result["assertion"]["value"]
                )
            )
            for result in row["gradingResult"]["componentResults"]
            if result["assertion"]["type"] == "equals"
        }
        assert {case.expected} == values


def test_what_has_no_counterpart_is_reported_test_by_test() -> None:
    assert {
        "test-6": "no-counterpart",
        "test-7": "no-counterpart",
        "test-11": "only-here",
    } == {
        finding.message.partition(":")[0]: finding.code for finding in read_results(ECHO).findings
    }


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
    '["no messages"]': ("user",),
}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_is_a_list_of_messages_or_one_of_the_user(prompt: str) -> None:
    assert PROMPTS[prompt] == tuple(turn.role for turn in messages_of(prompt))


@pytest.mark.parametrize("prompt", [" ", '[{"role": "user", "content": 7}]', "- role: alien"])
def test_a_prompt_that_is_no_text_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="the prompt is"):
        messages_of(prompt)


ASSERTIONS: list[tuple[dict[str, JsonValue], Check]] = [
    ({"type": "equals", "value": "{{ x }}"}, Check(Exact(), "two")),
    ({"type": "equals", "value": 4}, Check(Exact(), "4")),
    ({"type": "equals", "value": {"a": 1}}, Check(JsonEqual(), '{"a": 1}')),
    ({"type": "icontains", "value": "Paris"}, Check(Contains(ignore_case=True), "Paris")),
    ({"type": "regex", "value": r"^\d$"}, Check(Regex(pattern=r"(?a:^\d\Z)"))),
    ({"type": "is-json"}, Check(JsonValid())),
    (
        {"type": "is-json", "value": '{"type": "object"}'},
        Check(JsonSchema(definition={"$schema": assertions.DRAFT_7, "type": "object"})),
    ),
]


@pytest.mark.parametrize(("assertion", "check"), ASSERTIONS, ids=lambda item: str(item)[:40])
def test_assertions_become_scorers(assertion: dict[str, JsonValue], check: Check) -> None:
    assert check == translate(assertion, {"{{ x }}": "two"})


REFUSED: list[tuple[dict[str, JsonValue], str]] = [
    ({"type": "llm-rubric", "value": "nice"}, "a model judges it"),
    ({"type": "javascript", "value": "true"}, "it is code"),
    ({"type": "python", "value": "True"}, "scorer `python`"),
    ({"type": "not-contains", "value": "x"}, "no opposites"),
    ({"type": "levenshtein", "value": "x"}, "passes at a threshold"),
    ({"type": "cost", "threshold": 1}, "measures it for every contender"),
    ({"type": "contains-any", "value": ["x"]}, "several texts"),
    ({"type": "is-jsonn"}, "no such type of promptfoo is known"),
    ({"type": "equals", "value": "x", "transform": "output.trim()"}, "by code first"),
    ({"type": "equals", "value": "{{ y }}"}, "do not show it filled in"),
    ({"type": "equals", "value": ["{{ y }}"]}, "do not show it filled in"),
    ({"type": "contains", "value": ""}, "nothing to compare with"),
    ({"type": "is-json", "value": "type: object"}, "Expecting value"),
    ({"type": "equals", "value": "file://x.txt"}, "stands in a file"),
    ({"type": "is-json", "value": {"format": "date"}}, "`format`"),
    ({"type": "regex", "value": r"\p{L}"}, r"'\\p{L}' has no counterpart"),
]


@pytest.mark.parametrize(("assertion", "reason"), REFUSED, ids=lambda item: str(item)[:40])
def test_what_unitune_would_score_otherwise_is_refused(
    assertion: dict[str, JsonValue], reason: str
) -> None:
    with pytest.raises(NoCounterpart, match=re.escape(reason)):
        translate(assertion, {"{{ x }}": "two"})


def test_an_assertion_without_weight_counts_for_nothing() -> None:
    assert translate({"type": "llm-rubric", "weight": 0}, {}) is None


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

    assert ["small", "big", "broken"] == list(by_name)
    assert {f"test-{number}" for number in range(1, 6)} == {case.id for case in suite.cases}
    passed = {case: scores["promptfoo"] for case, scores in by_name["small"].scores.items()}
    assert {"test-1": 1.0, "test-2": 0.0, "test-3": 0.0, "test-4": 1.0, "test-5": 0.0} == passed
    assert " Lome\n" == by_name["big"].texts["test-3"]
    assert "test-4" not in by_name["broken"].texts, (
        "the provider failed: no answer, not a wrong one"
    )
    assert (Exact(),) == suite.scorers
    assert () == suite.findings


def test_where_unitune_would_score_an_answer_otherwise_is_told() -> None:
    """promptfoo counts outer whitespace, exact does not: ' Lome' is the one that differs."""
    notes = read_results(MADE / "promptfoo" / "results.json").notes
    assert "agrees with promptfoo on 13 of 14 answers; first: big in test-3" in notes[-1]


def test_results_of_judges_and_code_come_along_whole() -> None:
    suite = read_results(MADE / "promptfoo" / "judged.jsonl")

    assert () == suite.findings
    assert () == suite.scorers
    assert 3 == len(suite.cases)
    assert [[0.0, 1.0, 0.0]] * 2 == [
        [scores["promptfoo"] for scores in one.scores.values()] for one in suite.answers
    ]
    names = [one.model for one in suite.answers]
    assert ["openai:big, prompt 1", "openai:big, prompt 2"] == names


def test_a_file_that_is_something_else_is_named_with_what_to_do(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text('{"results": {"version": 2, "table": {}}}')
    with pytest.raises(DataError, match=r"old\.json is no results file of version 3.*version is 2"):
        read_results(old)
    row = {"testIdx": 0, "promptIdx": 0}
    old.write_text(json.dumps({"results": {"version": 3, "results": [row]}}))
    with pytest.raises(DataError, match=r"result 1 is not as promptfoo .*: prompt is missing"):
        read_results(old)
