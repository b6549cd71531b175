"""promptfoo's configs and results come over as promptfoo itself understands them."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from unitune.errors import DataError
from unitune.importers.promptfoo import assertions, prompts
from unitune.importers.promptfoo.assertions import Check, NoCounterpart, from_cell, translate
from unitune.importers.promptfoo.config import read_config
from unitune.importers.promptfoo.javascript_regex import NoTranslation, python_pattern
from unitune.importers.promptfoo.results import is_results, read_results
from unitune.importers.promptfoo.templates import NotPlain, render
from unitune.importers.promptfoo.yaml12 import Yaml12
from unitune.scorers.json_text import JsonEqual, JsonSchema, JsonValid
from unitune.scorers.text import Contains, Exact, Regex

MADE = Path(__file__).parent / "made"
CONFIG = MADE / "promptfoo" / "promptfooconfig.yaml"


def echoed() -> dict[str, dict[str, Any]]:
    """What promptfoo asks and expects in each test of the config, as it says itself."""
    lines = (MADE / "promptfoo" / "echo.jsonl").read_text(encoding="utf-8").splitlines()
    return {f"test-{row['testIdx'] + 1}": row for row in map(json.loads, lines)}


def test_cases_ask_and_expect_what_promptfoo_does() -> None:
    """Variables, defaults, lists, YAML 1.2, quotes in JSON prompts and tables, all at once."""
    suite = read_config(CONFIG)
    rows = echoed()

    assert ["Capital cities", 16, ("openai", "small")] == [
        suite.name,
        suite.max_tokens,
        suite.base,
    ]
    assert (Exact(),) == suite.scorers
    for case in suite.cases:
        row = rows[case.id or ""]
        assert prompts.messages_of(row["prompt"]["raw"]) == case.messages
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


def test_what_does_not_come_over_is_told_test_by_test_with_its_place() -> None:
    told = {
        finding.message.partition(":")[0]: (finding.code, Path(finding.file or "").name)
        for finding in read_config(CONFIG).findings
    }

    assert {
        "test-6": ("no-counterpart", CONFIG.name),
        "test-7": ("no-counterpart", CONFIG.name),
        "test-8": ("prompt", CONFIG.name),
        "test-11": ("only-here", "tests.csv"),
    } == told
    lines = {Path(one.file or "").name: one.line for one in read_config(CONFIG).findings[:3]}
    assert {CONFIG.name: 27, "tests.csv": 4} == lines
    kept = {f"test-{number}" for number in range(1, 13)} - {"test-7", "test-8"}
    assert kept == {case.id for case in read_config(CONFIG).cases}


def test_a_text_prompt_is_one_message_of_the_user(tmp_path: Path) -> None:
    content = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    text = CONFIG.parent / "prompts" / "plain.txt"
    content["prompts"] = [{"id": f"file://{text}", "label": "plain"}]
    content["tests"] = [{"vars": {"country": "Peru\n", "capital": "Lima"}}]
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")

    suite = read_config(tmp_path / "c.yaml")

    assert ["What is the capital of Peru?\nOne word."] == [
        case.messages[0].text for case in suite.cases
    ]
    assert ["user"] == [turn.role for case in suite.cases for turn in case.messages]


CONFIGS: dict[str, tuple[dict[str, JsonValue], str]] = {
    "tests by code": ({"tests": "file://make.py"}, "takes tests from 'file://make.py'"),
    "tests from afar": ({"tests": "https://docs.example/x"}, "takes tests from"),
    "scenarios": ({"scenarios": [{"config": []}]}, "`scenarios`"),
    "a prompt by code": ({"prompts": ["file://p.py"]}, "a prompt comes from 'file://p.py'"),
    "no tests": ({"tests": []}, "it has no tests"),
}


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_what_only_promptfoo_can_make_is_left_to_promptfoo(name: str, tmp_path: Path) -> None:
    change, message = CONFIGS[name]
    content: dict[str, JsonValue] = {
        "prompts": ["{{x}}"],
        "tests": [{"vars": {"x": "1"}, "assert": [{"type": "equals", "value": "1"}]}],
        **change,
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")

    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read_config(tmp_path / "c.yaml")
    assert "promptfoo eval -c c.yaml --providers echo" in str(caught.value)


ASSERTIONS: list[tuple[dict[str, JsonValue], Check]] = [
    ({"type": "equals", "value": "{{ x.y[1] }}"}, Check(Exact(), "two")),
    ({"type": "equals", "value": 4}, Check(Exact(), "4")),
    ({"type": "equals", "value": {"a": 1}}, Check(JsonEqual(), '{"a": 1}')),
    ({"type": "contains", "value": "{{x.z}}"}, Check(Contains(), "")),
    ({"type": "icontains", "value": "Paris"}, Check(Contains(ignore_case=True), "Paris")),
    ({"type": "regex", "value": r"^\d$"}, Check(Regex(pattern=r"(?a:^\d\Z)"))),
    ({"type": "is-json"}, Check(JsonValid())),
    (
        {"type": "is-json", "value": "type: object"},
        Check(JsonSchema(definition={"$schema": assertions.DRAFT_7, "type": "object"})),
    ),
]


@pytest.mark.parametrize(("assertion", "check"), ASSERTIONS, ids=lambda item: str(item)[:40])
def test_assertions_become_scorers(assertion: dict[str, JsonValue], check: Check) -> None:
    values: dict[str, JsonValue] = {"x": {"y": ["one", "two"]}}
    if check.expected == "":
        with pytest.raises(NoCounterpart, match="every answer contains nothing"):
            translate(assertion, values)
    else:
        assert check == translate(assertion, values)


REFUSED: list[tuple[dict[str, JsonValue], str]] = [
    ({"type": "llm-rubric", "value": "nice"}, "a model judges it"),
    ({"type": "javascript", "value": "true"}, "it is code"),
    ({"type": "python", "value": "True"}, "scorer `python`"),
    ({"type": "not-contains", "value": "x"}, "no opposites"),
    ({"type": "levenshtein", "value": "x"}, "passes at a threshold"),
    ({"type": "cost", "threshold": 1}, "measures it for every contender"),
    ({"type": "contains-any", "value": ["x"]}, "several texts"),
    ({"type": "is-jsonn"}, "no such type of promptfoo is known"),
    ({"type": "equals", "value": "x", "transform": "output.trim()"}, "by code before it looks"),
    ({"type": "equals", "value": "{{ x | upper }}"}, "more than a plain name"),
    ({"type": "equals", "value": "file://x.txt"}, "stands in a file"),
    ({"type": "is-json", "value": {"format": "date"}}, "`format`"),
    ({"type": "regex", "value": r"\p{L}"}, r"'\\p' has no counterpart"),
]


@pytest.mark.parametrize(("assertion", "reason"), REFUSED, ids=lambda item: str(item)[:40])
def test_what_unitune_would_score_otherwise_is_refused(
    assertion: dict[str, JsonValue], reason: str
) -> None:
    with pytest.raises(NoCounterpart, match=re.escape(reason)):
        translate(assertion, {"x": "1"})


def test_an_assertion_without_weight_counts_for_nothing() -> None:
    assert translate({"type": "llm-rubric", "weight": 0}, {}) is None


def test_a_cell_of_a_table_is_an_assertion_as_promptfoo_reads_it() -> None:
    """Source: promptfoo 0.121.20, src/csv.ts, `assertionFromString`."""
    cells = {
        "Paris": ("equals", "Paris"),
        "Paris: a city": ("equals", "Paris: a city"),
        "icontains: paris ": ("icontains", "paris"),
        "not-contains:x": ("not-contains", "x"),
        "similar(0.8): like this": ("similar", "like this"),
        "is-json": ("is-json", None),
        "grade: kind": ("llm-rubric", "kind"),
        "fn:output.length": ("javascript", "output.length"),
        "file://check.py": ("python", "file://check.py"),
    }
    assert cells == {cell: (from_cell(cell)["type"], from_cell(cell)["value"]) for cell in cells}


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
        assert matched is None or pattern in (r"\p{L}", "[^]", "[]", r"\1", r"(a)\1", r"\cA")
    else:
        assert matched == [text for text in texts if re.search(translated, text)]


@given(st.text(max_size=30))
def test_a_pattern_is_translated_or_refused_and_never_breaks(pattern: str) -> None:
    with suppress(NoTranslation):
        re.compile(python_pattern(pattern))


@given(st.dictionaries(st.from_regex(r"[a-z]\w{0,5}", fullmatch=True), st.text(max_size=9)))
def test_plain_templates_put_in_what_is_there(values: dict[str, str]) -> None:
    template = " ".join(f"{{{{ {name} }}}}" for name in values)
    wanted = " ".join(values.values())
    if any(mark in text for text in values.values() for mark in ("{{", "{%", "{#")):
        with pytest.raises(NotPlain):
            render(template, {**values})
    else:
        assert wanted == render(template, {**values})


def test_yaml_is_read_by_version_1_2_as_promptfoo_does() -> None:
    """Known answers: js-yaml 5.2.2 on the same text."""
    text = "[yes, on, true, 010, 1:30, 0o10, 1e3, 2024-01-01, ~, 1_000, .5, 0x1F, No, 1.0, '1', -3]"
    expected = ["yes", "on", True, 10, "1:30", 8, 1000, "2024-01-01", None, "1_000", 0.5, 31]
    assert [*expected, "No", 1, "1", -3] == yaml.load(text, Loader=Yaml12)  # noqa: S506


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
    assert ["openai:big, prompt 1", "openai:big, {{ country }}: capital?"] == names


def test_a_file_that_is_something_else_is_named_with_what_to_do(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text('{"results": {"version": 2, "table": {}}}')
    with pytest.raises(DataError, match=r"old\.json is no results file of version 3.*says 2"):
        read_results(old)
    row = {"testIdx": 0, "promptIdx": 0}
    old.write_text(json.dumps({"results": {"version": 3, "results": [row]}}))
    with pytest.raises(DataError, match=r"result 1 is not as promptfoo .*: prompt: Field required"):
        read_results(old)
    assert is_results(MADE / "promptfoo" / "results.json")
    assert not is_results(CONFIG)
