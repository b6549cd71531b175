from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scoring import case, dataset, score

from unitune.errors import DataError, JobError
from unitune.evaluate.documents.records import Record
from unitune.evaluate.scoring.scorers import attempt_of, build, check_expected
from unitune.scorers.interface import Attempt, Score, Scorer, Setting
from unitune.scorers.json_text import JsonContained, JsonEqual, JsonFields, JsonSchema, JsonValid
from unitune.scorers.text import Contains, EditDistance, Exact, FinishReason, Regex


def json_equal(answer: str, expected: str) -> bool:
    return score(JsonEqual(), answer, expected).value == 1


def json_fields(answer: str, expected: str) -> Score:
    return score(JsonFields(), answer, expected)


def json_valid(answer: str) -> bool:
    return score(JsonValid(), answer, "").value == 1


CASES: list[tuple[Scorer, str, str, float]] = [
    (Exact(), "refund", "refund", 1),
    (Exact(), " refund\n", "refund", 1),
    (Exact(), "refund", "\trefund ", 1),
    (Exact(), "Refund", "refund", 0),
    (Exact(), "refund.", "refund", 0),
    (Exact(), "re fund", "refund", 0),
    (Exact(), "", "", 1),
    (Exact(), "\u00e9", "e\u0301", 0),
    (Exact(ignore_case=True), "REFUND", "refund", 1),
    (Exact(ignore_case=True), "STRASSE", "straße", 1),
    (Contains(), "The intent is refund.", "refund", 1),
    (Contains(), "The intent is Refund.", "refund", 0),
    (Contains(), "refund or cancel", " refund ", 1),
    (Contains(), "anything", "", 0),
    (Contains(), "anything", "  ", 0),
    (Contains(ignore_case=True), "The intent is REFUND.", "refund", 1),
    (Exact(strip=False), " refund", "refund", 0),
    (Contains(strip=False), "a  b", " b", 1),
    (Contains(strip=False), "ab", " b", 0),
    (Contains(position="start"), " refund it", "refund", 1),
    (Contains(position="start"), "no refund", "refund", 0),
    (Contains(position="end"), "no refund\n", "refund", 1),
    (Contains(position="end"), "refund it", "refund", 0),
    (EditDistance(max_edits=3), "sitting", "kitten", 1),
    (EditDistance(max_edits=2), "sitting", "kitten", 0),
    (JsonContained(), 'So: {"a": {"b": 1}}.', "unused", 1),
    (JsonContained(), "[1] and {a: 1", "unused", 0),
    (JsonContained(definition={"required": ["a"]}), '{"b": 1} {"a": 1}', "unused", 1),
    (JsonContained(definition={"required": ["a"]}), '{"b": {"a": 1}}', "unused", 0),
    (Regex(pattern=r"T-\d{4}"), "your ticket is T-1234.", "unused", 1),
    (Regex(pattern=r"^T-\d{4}$"), "your ticket is T-1234.", "unused", 0),
    (Regex(pattern=r"(?i)yes"), "YES", "unused", 1),
    (JsonValid(), '{"a": 1}', "unused", 1),
    (JsonValid(), " [1, null]\n", "unused", 1),
    (JsonValid(), '"text"', "unused", 1),
    (JsonValid(), "refund", "unused", 0),
    (JsonValid(), "", "unused", 0),
    (JsonValid(), '{"a": 1} done', "unused", 0),
    (JsonValid(), '```json\n{"a": 1}\n```', "unused", 0),
    (JsonValid(), '{"a": NaN}', "unused", 0),
    (JsonValid(), "-Infinity", "unused", 0),
    (JsonValid(), '{"a": 1, "a": 1}', "unused", 0),
    (JsonValid(), '{"b": [{"a": 1, "a": 2}]}', "unused", 0),
    (JsonValid(), "{'a': 1}", "unused", 0),
    (JsonValid(), '{"a": 1,}', "unused", 0),
    (JsonValid(), "1" * 6000, "unused", 1),
    (JsonValid(), "1e400", "unused", 1),
    (JsonValid(), "[" * 100_000, "unused", 0),
    (JsonEqual(), '{"b": 2, "a": 1}', '{"a":1,"b":2}', 1),
    (JsonEqual(), '{"a": 1.0}', '{"a": 1}', 1),
    (JsonEqual(), "1e3", "1000", 1),
    (JsonEqual(), "0.10", "0.1", 1),
    (JsonEqual(), "-0", "0", 1),
    (JsonEqual(), "1e30", "1" + "0" * 30, 1),
    (JsonEqual(), "9007199254740993", "9007199254740992", 0),
    (JsonEqual(), "true", "1", 0),
    (JsonEqual(), "false", "0", 0),
    (JsonEqual(), "null", "false", 0),
    (JsonEqual(), '"1"', "1", 0),
    (JsonEqual(), "[1, 2]", "[2, 1]", 0),
    (JsonEqual(), '{"a": null}', "{}", 0),
    (JsonEqual(), '"\\u00e9"', '"é"', 1),
    (JsonEqual(), '"a "', '"a"', 0),
    (JsonEqual(), "not json", '{"a": 1}', 0),
    (JsonEqual(), '{"a": 1, "a": 1}', '{"a": 1}', 0),
]


@pytest.mark.parametrize(("spec", "answer", "expected", "right"), CASES)
def test_a_scorer_says_right_or_wrong(
    spec: Scorer, answer: str, expected: str, right: float
) -> None:
    assert right == score(spec, answer, expected).value


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("tool_use", "tool_calls"),
        ("function_call", "tool_calls"),
        ("end_turn", "stop"),
        ("MAX_TOKENS", "length"),
        ("refusal", "content_filter"),
        ("tool_calls", "tool_calls"),
    ],
)
def test_why_an_answer_ended_is_read_in_every_vendors_word(word: str, reason: Any) -> None:
    record = Record(contender="a", case="c", request_hash="h", finish_reason=word)
    attempt = attempt_of(case("x"), record)
    other = "stop" if reason != "stop" else "length"
    judged = [FinishReason(reason=each).score(attempt).value for each in (reason, other)]
    assert judged == [1, 0]


def test_an_answer_of_which_no_end_is_known_cannot_be_scored_by_it() -> None:
    assert FinishReason().score(Attempt(case("x"), "y")).failed


def test_expected_json_that_is_none_is_refused() -> None:
    with pytest.raises(DataError, match="the expected answer 'refund' is not JSON"):
        score(JsonEqual(), "{}", "refund")


@pytest.mark.parametrize("spec", [JsonEqual(), JsonFields()])
def test_expected_json_is_checked_before_anybody_is_asked_naming_the_lines(
    spec: Scorer,
) -> None:
    with pytest.raises(DataError) as caught:
        check_expected((build(Exact()), build(spec)), dataset("{}", "refund", "[", "1"))
    assert [finding.line for finding in caught.value.findings] == [2, 3]
    assert "test.jsonl:2" in str(caught.value)


def test_an_empty_expected_text_is_found_nowhere_and_so_refused() -> None:
    with pytest.raises(DataError, match=r"test\.jsonl:2: the expected answer is empty"):
        check_expected([build(Contains())], dataset("refund", " "))


def test_other_scorers_take_any_expected_text() -> None:
    specs = (Exact(), JsonValid(), Regex(pattern="a"))
    check_expected([build(spec) for spec in specs], dataset("refund", ""))


FIELDS: list[tuple[str, str, float, str]] = [
    ('{"b": 2.0, "a": 1}', '{"a": 1, "b": 2}', 1, ""),
    ('{"a": 1, "b": 3}', '{"a": 1, "b": 2}', 1 / 2, "wrong: b"),
    ('{"a": 1}', '{"a": 1, "b": 2}', 1 / 2, "wrong: b"),
    ('{"a": 1, "b": 2, "c": 3}', '{"a": 1, "b": 2}', 2 / 3, "wrong: c"),
    ('{"a": {"x": 1, "y": 2}}', '{"a": {"x": 1, "y": 3}}', 1 / 2, "wrong: a.y"),
    ('{"a": [1, 2]}', '{"a": [1, 2, 3]}', 2 / 3, "wrong: a[2]"),
    ('{"a": {}}', '{"a": []}', 0, "wrong: a"),
    ('{"a.b": 1}', '{"a": {"b": 1}}', 0, 'wrong: "a.b", a.b'),
    ("2", "2", 1, ""),
    ("3", "2", 0, "wrong: the whole"),
    ("true", "1", 0, "wrong: the whole"),
    ("none", "2", 0, "not JSON: Expecting value: line 1 column 1 (char 0)"),
    (json.dumps(dict.fromkeys("abcdefg", 1)), "{}", 0, "wrong: a, b, c, d, e, …"),
]


@pytest.mark.parametrize(("answer", "expected", "share", "reason"), FIELDS)
def test_fields_are_right_one_by_one(answer: str, expected: str, share: float, reason: str) -> None:
    found = score(JsonFields(), answer, expected)
    assert pytest.approx(share) == found.value
    assert reason[:23] == found.reason[:23]


ORDER: dict[str, Any] = {
    "type": "object",
    "properties": {"item": {"type": "string"}, "count": {"type": "integer", "minimum": 1}},
    "required": ["item", "count"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("answer", "right", "reason"),
    [
        ('{"item": "desk", "count": 2}', 1, ""),
        ('{"item": "desk", "count": 0}', 0, "0 is less than the minimum of 1"),
        ('{"item": "desk"}', 0, "'count' is a required property"),
        ("a desk", 0, "not JSON"),
        ('{"item": "desk", "item": "lamp", "count": 1}', 0, "a key appears twice"),
        ('{"item": "desk", "count": NaN}', 0, "NaN is not JSON"),
    ],
)
def test_a_json_schema_says_what_is_allowed(answer: str, right: float, reason: str) -> None:
    found = score(JsonSchema(definition=ORDER), answer, "unused")
    assert right == found.value
    assert reason in found.reason


def test_a_json_schema_may_stand_in_a_file_of_the_jobs_folder(tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text(json.dumps(ORDER))
    spec = JsonSchema(definition="order.json")
    assert score(spec, '{"item": "desk", "count": 2}', "", Setting(tmp_path)).value == 1


@pytest.mark.parametrize(
    ("definition", "complaint"),
    [
        ({"type": "wrong"}, "is not a JSON Schema"),
        ({"$ref": "http://127.0.0.1:9/other.json"}, "would have to fetch"),
        ("missing.json", "missing.json: the scorer 'json_schema' cannot use this file"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_before_anybody_is_asked(
    tmp_path: Path, definition: Any, complaint: str
) -> None:
    with pytest.raises(JobError, match=complaint):
        build(JsonSchema(definition=definition), Setting(tmp_path))


def test_a_ref_that_only_some_answers_reach_is_a_failure_and_never_fetched() -> None:
    schema = {"properties": {"a": {"$ref": "http://127.0.0.1:9/other.json"}}}
    found = score(JsonSchema(definition=schema), '{"a": 1}', "")
    assert found.failed
    assert "other.json" in found.reason


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _reordered(value: Any, data: st.DataObject) -> Any:
    if isinstance(value, dict):
        items = data.draw(st.permutations(list(value.items())))
        return {key: _reordered(inner, data) for key, inner in items}
    return [_reordered(inner, data) for inner in value] if isinstance(value, list) else value


@given(JSON, st.data())
def test_key_order_and_spacing_never_matter(value: Any, data: st.DataObject) -> None:
    indent = data.draw(st.sampled_from([None, 0, 2, "\t"]))
    ascii_only = data.draw(st.booleans())
    answer = json.dumps(_reordered(value, data), indent=indent, ensure_ascii=ascii_only)
    assert json_equal(answer, json.dumps(value))


def _tagged(value: Any) -> Any:
    """The value such that plain equality tells true from 1."""
    if isinstance(value, dict):
        return {key: _tagged(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_tagged(inner) for inner in value]
    return (isinstance(value, bool), value)


@given(JSON, JSON)
def test_values_are_equal_only_when_they_are_the_same(one: Any, other: Any) -> None:
    assert (_tagged(one) == _tagged(other)) == json_equal(json.dumps(one), json.dumps(other))


@given(JSON, JSON)
def test_field_by_field_is_a_share_symmetric_and_1_for_equal_values(one: Any, other: Any) -> None:
    first, second = json.dumps(one), json.dumps(other)
    found = json_fields(first, second).value
    assert 0 <= found <= 1
    assert found == json_fields(second, first).value
    assert json_equal(first, second) == (found == 1)


@given(st.text())
def test_no_answer_makes_a_json_scorer_fall_over(answer: str) -> None:
    assert json_valid(answer) or not json_equal(answer, "{}")
