"""Rows as other tools have them: ShareGPT, Alpaca, Dolly, and pairs of any usual names."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessage

from unitune.data.check import check_file
from unitune.data.load import load
from unitune.data.shapes import wire_formats
from unitune.errors import DataError, UserError
from unitune.job.job import Data

SAIL = {"name": "sail", "description": "Sail.", "parameters": {"type": "object", "properties": {}}}


def _file(folder: Path, *rows: dict[str, Any]) -> Path:
    file = folder / "rows.json"
    file.write_text(json.dumps(list(rows), indent=2), encoding="utf-8")
    return file


def _content(folder: Path, row: dict[str, Any]) -> dict[str, Any]:
    (example,) = load(_file(folder, row), use="any")
    return example.content


def _turns(*texts: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]


SYSTEM = {"role": "system", "content": "s"}
READ: list[tuple[dict[str, Any], list[dict[str, str]]]] = [
    # Stanford Alpaca's README, with and without an input
    ({"instruction": "i", "input": "x", "output": "o"}, _turns("i\nx", "o")),
    ({"instruction": "i", "input": "", "output": "o"}, _turns("i", "o")),
    # LLaMA-Factory, data/README.md: Alpaca format
    (
        {
            "instruction": "i",
            "input": "x",
            "output": "o",
            "system": "s",
            "history": [["a", "b"], ["c", "d"]],
        },
        [SYSTEM, *_turns("a", "b", "c", "d", "i\nx", "o")],
    ),
    ({"instruction": "i", "context": "x", "response": "o"}, _turns("i\nx", "o")),  # Dolly
    ({"prompt": "p", "response": "r"}, _turns("p", "r")),
    ({"question": "q", "answer": "a"}, _turns("q", "a")),
    ({"input": "q", "output": "a"}, _turns("q", "a")),
    ({"question": "q", "response": "a", "system": "s"}, [SYSTEM, *_turns("q", "a")]),
    # FastChat's dumps; axolotl's roles
    (
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "a"},
                {"from": "gpt", "value": "b"},
                {"from": "user", "value": "c"},
                {"from": "assistant", "value": "d", "weight": None},
            ]
        },
        [SYSTEM, *_turns("a", "b", "c", "d")],
    ),
    ({"conversations": _turns("a", "b"), "system": "s"}, [SYSTEM, *_turns("a", "b")]),
    ({"conversation": _turns("a", "b")}, _turns("a", "b")),  # LMSYS-Chat-1M
]


@pytest.mark.parametrize(("row", "messages"), READ)
def test_rows_of_other_tools_are_messages(
    tmp_path: Path, row: dict[str, Any], messages: list[dict[str, str]]
) -> None:
    content = _content(tmp_path, {**row, "id": 7, "language": "en"})
    assert content == {"messages": messages, "id": "7", "language": "en"}


def test_sharegpts_calls_are_tool_calls(tmp_path: Path) -> None:
    """LLaMA-Factory, data/README.md: ShareGPT format, with `tools` as a text."""
    row = {
        "conversations": [
            {"from": "human", "value": "Sail twice."},
            {
                "from": "function_call",
                "value": '[{"name": "sail", "arguments": {"to": "ä"}},'
                ' {"name": "sail", "arguments": {}}]',
            },
            {"from": "observation", "value": "north"},
            {"from": "observation", "value": "south"},
            {"from": "gpt", "value": "Done."},
        ],
        "tools": json.dumps([SAIL]),
    }
    content = _content(tmp_path, row)
    _, calls, first, second, _ = content["messages"]
    assert content["tools"] == [{"type": "function", "function": SAIL}]
    assert [call["id"] for call in calls["tool_calls"]] == ["call_0", "call_1"]
    assert calls["tool_calls"][0]["function"]["arguments"] == '{"to": "ä"}'
    assert [first["tool_call_id"], second["tool_call_id"]] == ["call_0", "call_1"]


PREFERENCE = {
    "input": {"messages": _turns("q")},
    "preferred_output": _turns("q", "better")[1:],
    "non_preferred_output": _turns("q", "worse")[1:],
}


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "q", "input": "", "chosen": "better", "rejected": "worse"},
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "better"},
            "rejected": {"from": "gpt", "value": "worse"},
        },
    ],
)
def test_llama_factorys_preferences_are_read(tmp_path: Path, row: dict[str, Any]) -> None:
    assert _content(tmp_path, row) == PREFERENCE


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"question": "q", "answer": "a", "context": "x"}, "unseen-key", "template"),
    ({"question": "q", "answer": "a", "choices": ["a", "b"]}, "unseen-key", "template"),
    (
        {"question": "q", "answer": "a", "response": "b"},
        "ambiguous-keys",
        "'response' and 'answer'",
    ),
    ({"question": "q", "answer": 7}, "not-a-text", "'answer' is 7"),
    ({"instruction": "i", "input": 5, "output": "o"}, "not-a-text", "5"),
    ({"instruction": "i", "output": "o", "history": [["a"]]}, "wrong-value", "history"),
    ({"instruction": "i", "output": "o", "history": "h"}, "wrong-value", "history"),
    ({"instruction": "i", "output": "o", "label": False}, "rated-row", "label"),
    ({"instruction": "i", "output": "o", "images": ["a.png"]}, "foreign-key", "images"),
    ({"conversations": [{"from": "narrator", "value": "a"}]}, "wrong-value", "[0].from"),
    ({"conversations": [{"from": "human", "value": 1}]}, "wrong-value", "[0].value is 1"),
    ({"conversations": ["hello"]}, "wrong-value", "conversations[0] is 'hello'"),
    ({"conversations": []}, "wrong-value", "messages"),
    ({"conversations": [{"from": "function_call", "value": "sail"}]}, "wrong-value", "not JSON"),
    ({"conversations": [{"from": "function_call", "value": "[1]"}]}, "wrong-value", "not a call"),
    ({"conversations": [{"from": "gpt", "value": "a", "loss": True}]}, "unknown-key", "loss"),
    (
        {"conversations": [{"from": "human", "value": "a"}], "tools": "sail"},
        "wrong-value",
        "tools is not JSON",
    ),
    (
        {
            "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
            "kto_tag": True,
        },
        "rated-row",
        "kto_tag",
    ),
]


@pytest.mark.parametrize(("row", "code", "says"), REFUSED)
def test_what_would_be_lost_is_refused_with_its_line(
    tmp_path: Path, row: dict[str, Any], code: str, says: str
) -> None:
    file = _file(tmp_path, {"prompt": "p", "completion": "c"}, row)
    (finding,) = [each for each in check_file(file).findings if each.severity == "error"]
    assert (code, 6) == (finding.code, finding.line)
    assert says in finding.message + finding.fix


WEATHER = {
    "name": "get_weather",
    "description": "Get the current weather in a given location",
    "input_schema": {"type": "object", "properties": {"location": {"type": "string"}}},
}
"""Of docs.claude.com, "How to implement tool use"."""
CLAUDE: dict[str, Any] = {
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    "tools": [WEATHER],
    "messages": [
        {"role": "user", "content": "What's the weather like in San Francisco?"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I'll check."},
                {
                    "type": "tool_use",
                    "id": "toolu_01A09q90qw90lq917835lq9",
                    "name": "get_weather",
                    "input": {"location": "San Francisco, CA"},
                },
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_01A09q90qw90lq917835lq9",
                    "content": [{"type": "text", "text": "15 degrees"}],
                },
                {"type": "text", "text": "And?"},
            ],
        },
        {"role": "assistant", "content": "15 degrees."},
    ],
}


def test_anthropics_blocks_are_turns_and_calls(tmp_path: Path) -> None:
    content = _content(tmp_path, {**CLAUDE, "id": 3, "model": "claude"})
    function = {"name": "get_weather", "arguments": '{"location": "San Francisco, CA"}'}
    call = {"id": "toolu_01A09q90qw90lq917835lq9", "type": "function", "function": function}
    declared = {key: WEATHER[key] for key in ("name", "description")}
    assert content == {
        "messages": [
            SYSTEM,
            {"role": "user", "content": "What's the weather like in San Francisco?"},
            {"role": "assistant", "content": "I'll check.", "tool_calls": [call]},
            {"role": "tool", "content": "15 degrees", "tool_call_id": call["id"]},
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": "15 degrees."},
        ],
        "tools": [
            {"type": "function", "function": {**declared, "parameters": WEATHER["input_schema"]}}
        ],
        "id": "3",
        "model": "claude",
    }


GEMINI = {
    "systemInstruction": {"parts": [{"text": "s"}]},
    "contents": [
        {"role": "user", "parts": [{"text": "q"}]},
        {"role": "model", "parts": [{"text": "a"}]},
    ],
}
NOVA = {
    "schemaVersion": "bedrock-conversation-2024",
    "system": [{"text": "s"}],
    "messages": [
        {"role": "user", "content": [{"text": "q"}]},
        {"role": "assistant", "content": [{"text": "a"}]},
    ],
}


@pytest.mark.parametrize(("row", "name"), [(GEMINI, "vertex-sft"), (NOVA, "bedrock-nova")])
def test_vendors_rows_are_seen(tmp_path: Path, row: dict[str, Any], name: str) -> None:
    file = _file(tmp_path, {**row, "language": "en"})
    (example,) = load(file)
    assert example.content == {"messages": [SYSTEM, *_turns("q", "a")], "language": "en"}
    assert f"a JSON list: {name} rows from" in check_file(file).files[0].read_as


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({**GEMINI, "generationConfig": {"temperature": 0}}, "generationConfig"),
        ({**GEMINI, "images": ["a.png"]}, "images"),
        ({**NOVA, "weight": 2}, "weight"),
        (
            {**CLAUDE, "tools": [{"type": "web_search_20250305", "name": "w", "input_schema": {}}]},
            "web_search",
        ),
        (
            {**CLAUDE, "messages": [{"role": "assistant", "content": [{"type": "thinking"}]}]},
            "thinking",
        ),
    ],
)
def test_what_a_vendor_means_and_rows_cannot_say_is_refused(
    tmp_path: Path, row: dict[str, Any], says: str
) -> None:
    (finding,) = check_file(_file(tmp_path, row)).findings
    assert finding.severity == "error"
    assert says in finding.message


def test_an_answer_as_openais_package_dumps_it_is_a_turn(tmp_path: Path) -> None:
    """`ChatCompletionMessage.model_dump()` of openai 3: all keys, most without a value."""
    message = ChatCompletionMessage(role="assistant", content="a").model_dump()
    assert "refusal" in message
    row = {"messages": [{"role": "user", "content": "q"}, message]}
    assert _content(tmp_path, row) == {"messages": _turns("q", "a")}
    report = check_file(_file(tmp_path, {"messages": [*_turns("q"), {**message, "refusal": "no"}]}))
    assert "'refusal'" in report.findings[0].message


def test_a_job_may_say_what_its_rows_are(tmp_path: Path) -> None:
    file = _file(tmp_path, {"instruction": "i", "context": "x", "prompt": "p", "output": "o"})
    (example,) = load(file, Data(format="alpaca"))
    assert example.messages[0].text == "i\nx"
    with pytest.raises(DataError, match="Did you mean 'alpaca'"):
        load(file, Data(format="alpacka"))


def test_a_job_may_say_what_separates_columns(tmp_path: Path) -> None:
    file = tmp_path / "rows.txt"
    file.write_text("question^answer\nq^a\n")
    (example,) = load(file, Data(delimiter="^"))
    assert example.answer == "a"


def test_a_table_is_read_by_the_names_of_other_tools(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("id;instruction;input;output;expected\n1;i;x;o;\n2;j;;p;e\n", encoding="utf-8")
    first, second = load(file)
    assert first.content == {"messages": _turns("i\nx", "o"), "id": "1"}
    assert second.content == {"messages": _turns("j", "p"), "id": "2", "expected": "e"}


def test_a_format_that_a_package_has_no_more_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after `git pull` in a checkout: what is installed lists it, the code has it no more."""
    gone = EntryPoint("gone-sft", "unitune.data.shapes:GONE", "unitune.formats")
    monkeypatch.setattr("unitune.data.shapes.entry_points", lambda **_: [gone])
    with pytest.raises(
        UserError, match=r"format 'gone-sft' that it does not have .*GONE.*Reinstall"
    ):
        wire_formats.__wrapped__()
