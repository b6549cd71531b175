from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example, Message
from unitune.errors import DataError
from unitune.evaluate.scorers import check_expected, json_equal, json_valid, score
from unitune.job import Contains, Exact, JsonEqual, JsonValid, Regex, ScorerSpec

CASES: list[tuple[ScorerSpec, str, str, float]] = [
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
    spec: ScorerSpec, answer: str, expected: str, right: float
) -> None:
    assert right == score(spec, answer, expected)


def test_expected_json_that_is_none_is_refused() -> None:
    with pytest.raises(DataError, match="the expected answer 'refund' is not JSON"):
        score(JsonEqual(), "{}", "refund")


def _dataset(*answers: str) -> Dataset:
    rows = (
        Row(line, Example(messages=(Message(role="user", content="q"),), expected=answer))
        for line, answer in enumerate(answers, start=1)
    )
    return Dataset("test.jsonl", tuple(rows))


def test_expected_json_is_checked_before_anybody_is_asked_naming_the_lines() -> None:
    with pytest.raises(DataError) as caught:
        check_expected((Exact(), JsonEqual()), _dataset("{}", "refund", "[", "1"))
    assert [2, 3] == [finding.line for finding in caught.value.findings]
    assert "test.jsonl:2" in str(caught.value)


def test_other_scorers_take_any_expected_text() -> None:
    check_expected((Exact(), Contains(), JsonValid()), _dataset("refund", ""))


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


@given(st.text())
def test_no_answer_makes_a_json_scorer_fall_over(answer: str) -> None:
    assert json_valid(answer) or not json_equal(answer, "{}")
