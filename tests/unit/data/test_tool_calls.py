"""Tool calls that no model should learn are named, with their place in the row."""

from __future__ import annotations

from typing import Any

import pytest

from unitune.data.example import Example
from unitune.data.rows import tool_findings

TOOLS: list[dict[str, Any]] = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
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
    assert [] == list(tool_findings(row(call(arguments=arguments), call())))


@pytest.mark.parametrize("arguments", ["{a: 1}", "[1]", "NaN", '{"a": 1', "[" * 10_000, 3, None])
def test_other_arguments_are_errors(arguments: object) -> None:
    (finding,) = tool_findings(row(call(), call(arguments=arguments)))
    assert ("error", "broken-call") == (finding.severity, finding.code)
    assert "messages[1].tool_calls[1], 'f'" in finding.message
    assert len(finding.message) < 200


@pytest.mark.parametrize("broken", [{"id": "1"}, {"function": "f"}, call(None), call("")])
def test_a_call_names_its_function(broken: dict[str, Any]) -> None:
    (finding,) = tool_findings(row(broken))
    assert "messages[1].tool_calls[0] names no function" in finding.message


def test_a_call_of_another_tool_is_a_warning_where_tools_are_declared() -> None:
    (finding,) = tool_findings(row(call("g")))
    assert ("warning", "undeclared-tool") == (finding.severity, finding.code)
    assert [] == list(tool_findings(row(call("g"), tools=None)))


def test_calls_of_the_worse_answer_are_looked_at_too() -> None:
    worse = [{"role": "assistant", "tool_calls": [call("g")]}]
    (finding,) = tool_findings(row(call(), **{WORSE: worse}))
    assert "messages[2].tool_calls[0]" in finding.message
