"""Results of tools: whatever a model calls gets one, and only named functions run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unitune.data.example import Example
from unitune.data.tools import Tools, check_tools, each_answer, opening, sendable, with_call_ids
from unitune.errors import JobError
from unitune.job.dialogue import Dialogue
from unitune.models import function_call

ROW = {
    "messages": [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "hm"},
        {"role": "user", "content": "second"},
        {"role": "assistant", "tool_calls": [function_call("look", {"n": 20}, "c1")]},
        {"role": "tool", "tool_call_id": "c1", "content": "own"},
        {"role": "assistant", "content": "done"},
    ],
    "tools": [{"type": "function", "function": {"name": name}} for name in ("look", "add", "bad")],
}
CASE = Example.model_validate(ROW)


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    (tmp_path / "code.py").write_text(
        "import sys\ndef add(a, b=1):\n    return a + b\n"
        "def bad(**_):\n    sys.exit('no')\ndef odd():\n    return object()\n"
    )
    names = {"add": "code.py:add", "bad": "code.py:bad", "odd": "code.py:odd", "say": "say.jsonl"}
    recorded = '{"arguments": {}, "result": ["x", null]}\r\n\r\n'
    (tmp_path / "say.jsonl").write_text(recorded, encoding="utf-8-sig", newline="")
    return Tools.of(Dialogue(tools=names), tmp_path)


@pytest.mark.parametrize(
    ("name", "arguments", "content"),
    [
        ("add", '{"a": 2}', "3"),
        ("add", '{"a": "x", "b": "ü"}', "xü"),
        ("say", "", '["x", null]'),
        ("look", '{"n": 20.0}', "own"),
        ("look", '{"n": 20}', "own"),
    ],
)
def test_a_call_gets_its_result(tools: Tools, name: str, arguments: str, content: str) -> None:
    found = tools.result(CASE, function_call(name, arguments))
    assert (found.content, found.is_error) == (content, False)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (function_call("look", '{"n": 21}'), 'no result is recorded for look({"n": 21})'),
        (function_call("os.system", '{"command": "ls"}'), "unknown tool 'os.system'"),
        (function_call("add", "{broken"), "the arguments are not a JSON object: '{broken'"),
        (function_call("add", "[1]"), "the arguments are not a JSON object: '[1]'"),
        (function_call("add", '{"a": 1, "c": 1}'), "TypeError"),
        (function_call("add", '{"a": {}}'), "TypeError"),
        (function_call("bad", "{}"), "SystemExit: no"),
        (function_call("odd", "{}"), "TypeError: Object of type object is not JSON"),
        (function_call("say", '{"a": NaN}'), "no result is recorded"),
        ({"type": "function", "function": "text"}, "unknown tool ''"),
        ({}, "unknown tool ''"),
        (function_call("add", "[" * 100_000), "the arguments are not a JSON object"),
    ],
)
def test_any_other_call_gets_an_error(tools: Tools, call: dict[str, Any], words: str) -> None:
    found = tools.result(CASE, call)
    assert found.is_error
    assert words in json.loads(found.content)["error"]


@pytest.mark.parametrize(("own", "named"), [(None, None), ("1", None), ("1", "1")])
def test_results_without_an_id_answer_the_calls_in_order(
    tools: Tools, own: str | None, named: str | None
) -> None:
    calls = [{**function_call("look", {"n": n}), "id": own and str(n)} for n in (1, 2)]
    results = [
        {"role": "tool", "content": f"result {n}", "tool_call_id": named and str(n)} for n in (1, 2)
    ]
    turns = [ROW["messages"][0], {"role": "assistant", "tool_calls": calls}, *results]
    case = Example.model_validate({**ROW, "messages": [*turns, ROW["messages"][-1]]})
    found = [tools.result(case, function_call("look", {"n": n})).content for n in (1, 2)]
    assert found == ["result 1", "result 2"]


def test_a_dialogue_begins_with_the_last_question_and_expects_the_rest() -> None:
    begun = opening(CASE)
    assert [turn.text for turn in begun.prompt] == ["first", "hm", "second"]
    assert (begun.answer, begun.case_id) == ("done", CASE.case_id)
    assert [len(each.messages) for each in each_answer(CASE)] == [4, 6]


def test_calls_get_ids_that_every_chat_template_takes() -> None:
    (first, second) = with_call_ids([function_call("a", {}), function_call("b", {}, "own")], 3)
    assert (first["id"], second["id"]) == ("call03000", "own")


def test_arguments_that_are_not_an_object_are_not_sent_back() -> None:
    calls = (function_call("a", "{broken", "1"), function_call("a", '{"b": 1}', "2"))
    sent = sendable(replace(CASE.messages[3], tool_calls=calls)).tool_calls
    assert sent == (function_call("a", {}, "1"), calls[1])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            None,
            r"say\.jsonl: the results of the tool 'say' cannot be read: the file does not exist",
        ),
        (
            '{"arguments": {}',
            r"say\.jsonl:1: the results of the tool 'say' cannot be read: not valid JSON",
        ),
        ('{"arguments": {}}', r"say\.jsonl:1 is not a .*: '\{\"arguments\": \{\}\}'\. Write one"),
        ('{"arguments": [1], "result": 1}', r"say\.jsonl:1 is not a recorded result"),
    ],
)
def test_a_file_without_results_is_refused(tmp_path: Path, line: str | None, words: str) -> None:
    if line is not None:
        (tmp_path / "say.jsonl").write_text(f"{line}\n")
    with pytest.raises(JobError, match=words):
        check_tools(Dialogue(tools={"say": "say.jsonl"}), tmp_path)


def test_an_async_tool_is_refused(tmp_path: Path) -> None:
    (tmp_path / "later.py").write_text("async def look():\n    return 1\n")
    with pytest.raises(JobError, match=r"later\.py:look is async"):
        Tools.of(Dialogue(tools={"look": "later.py:look"}), tmp_path)
