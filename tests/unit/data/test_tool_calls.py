"""Tool calls that no model should learn are named, with their place in the row."""

from __future__ import annotations

from typing import Any

import pytest

from unitune.data.example import Example
from unitune.data.records import Record
from unitune.data.rows import examples, tool_findings
from unitune.findings import Finding

TOOLS: list[dict[str, Any]] = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
USER = {"role": "user", "content": "a"}
WORSE = "non_preferred_output"


def row(*calls: object, **more: Any) -> Example:
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "tool_calls": list(calls)},
    ]
    return Example.model_validate({"messages": messages, "tools": TOOLS, **more})


def call(name: object = "f", **arguments: Any) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, **arguments}}


@pytest.mark.parametrize("arguments", ["", "{}", '{"a": [1]}', {"a": 1}])
def test_arguments_are_an_object_or_its_json(arguments: object) -> None:
    assert list(tool_findings(row(call(arguments=arguments), call()))) == []


@pytest.mark.parametrize("arguments", ["{a: 1}", "[1]", "NaN", '{"a": 1', "[" * 10_000, 3, None])
def test_other_arguments_are_errors(arguments: object) -> None:
    (finding,) = tool_findings(row(call(), call(arguments=arguments)))
    assert (finding.severity, finding.code) == ("error", "broken-call")
    assert "messages[1].tool_calls[1], 'f'" in finding.message
    assert len(finding.message) < 200


@pytest.mark.parametrize("broken", [{"id": "1"}, {"function": "f"}, call(None), call("")])
def test_a_call_names_its_function(broken: dict[str, Any]) -> None:
    (finding,) = tool_findings(row(broken))
    assert "messages[1].tool_calls[0] has no function name" in finding.message


def test_a_call_of_another_tool_is_a_warning_where_tools_are_declared() -> None:
    (finding,) = tool_findings(row(call("g")))
    assert (finding.severity, finding.code) == ("warning", "undeclared-tool")


def test_calls_in_a_row_that_declares_no_tools_are_one_warning() -> None:
    (finding,) = tool_findings(row(call("g"), call("f"), tools=None))
    assert (finding.severity, finding.code) == ("warning", "no-tools")
    assert "messages[1].tool_calls[0] calls 'g', but the row declares no tools" in finding.message


def test_a_call_without_an_id_and_a_result_of_no_call_are_warnings() -> None:
    results: list[dict[str, Any]] = [
        {"role": "tool", "content": "x", "tool_call_id": name} for name in ("1", "2", None)
    ]
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "tool_calls": [call()]},
        *results,
        {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]},
    ]
    found = list(tool_findings(Example.model_validate({"messages": turns, "tools": TOOLS})))
    assert [each.code for each in found] == ["unknown-call", "unknown-call", "call-without-id"]
    assert "messages[3] answers the call '2', which no earlier message makes" in found[0].message


def test_rows_of_which_nothing_is_learned_are_warned_of() -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "completion": "b", "weight": 0},
        {"messages": [USER, {"role": "assistant", "content": "b", "weight": 0}]},
    ]
    for row in rows:
        found = [
            each for each in examples(Record(1, row), None, "sft") if isinstance(each, Finding)
        ]
        assert [each.code for each in found] == ["no-weight"]
        assert len(list(examples(Record(1, row), None, "case"))) == 1


def test_calls_of_the_worse_answer_are_looked_at_too() -> None:
    worse = [{"role": "assistant", "tool_calls": [call("g")]}]
    (finding,) = tool_findings(row(call(), **{WORSE: worse}))
    assert "messages[2].tool_calls[0]" in finding.message
