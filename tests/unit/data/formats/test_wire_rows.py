"""What rows look like on each wire, what is refused there and why, and which spellings are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.rows import write_rows

from unitune.backends.formats import Converted, UnrepresentableRow, convert_file, wire_format
from unitune.data.example import Example

SYSTEM = {"role": "system", "content": "Be short."}
USER = {"role": "user", "content": "Where is my order?"}
ANSWER = {"role": "assistant", "content": "On its way."}
WORSE = {"role": "assistant", "content": "Who knows."}
CALL = {"id": "c1", "type": "function", "function": {"name": "track", "arguments": '{"order":7}'}}
CALLS = {"role": "assistant", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "in Bonn"}
PARAMETERS = {
    "type": "object",
    "properties": {"order": {"type": "integer"}, "tags": {"type": "array", "items": {}}},
    "required": ["order"],
}
TOOL = {"type": "function", "function": {"name": "track", "parameters": PARAMETERS}}
CHAT = {"messages": [SYSTEM, USER, ANSWER]}
WITH_TOOLS = {"messages": [USER, CALLS, RESULT, ANSWER], "tools": [TOOL]}
PAIR = {
    "input": {"messages": [SYSTEM, USER]},
    "preferred_output": [ANSWER],
    "non_preferred_output": [WORSE],
}
QUESTION = {"messages": [USER], "expected": "shipped", "grade": {"max": 3}}
GEMINI_TOOL = {
    "functionDeclarations": [
        {
            "name": "track",
            "parameters": {
                "type": "OBJECT",
                "properties": {
                    "order": {"type": "INTEGER"},
                    "tags": {"type": "ARRAY", "items": {}},
                },
                "required": ["order"],
            },
        }
    ]
}


def model(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "model", "parts": list(parts)}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "parts": list(parts)}


PAIRS = [
    ("openai-chat", CHAT, CHAT),
    ("openai-chat", WITH_TOOLS, WITH_TOOLS),
    (
        "openai-chat",
        {"messages": [USER, {**ANSWER, "weight": 0}, USER, ANSWER], "parallel_tool_calls": False},
        {"messages": [USER, {**ANSWER, "weight": 0}, USER, ANSWER], "parallel_tool_calls": False},
    ),
    ("openai-dpo", PAIR, PAIR),
    ("openai-rft", QUESTION, QUESTION),
    ("together-chat", {**WITH_TOOLS, "weight": 0.5}, {**WITH_TOOLS, "weight": 0.5}),
    (
        "together-chat",
        {"messages": [{**USER, "weight": 1}, ANSWER]},
        {"messages": [{**USER, "weight": 1}, ANSWER]},
    ),
    ("together-dpo", {**PAIR, "weight": 2.0}, {**PAIR, "weight": 2.0}),
    (
        "vertex-sft",
        CHAT,
        {
            "systemInstruction": {"role": "system", "parts": [{"text": "Be short."}]},
            "contents": [user({"text": "Where is my order?"}), model({"text": "On its way."})],
        },
    ),
    (
        "vertex-sft",
        WITH_TOOLS,
        {
            "contents": [
                user({"text": "Where is my order?"}),
                model({"functionCall": {"id": "c1", "name": "track", "args": {"order": 7}}}),
                user(
                    {
                        "functionResponse": {
                            "id": "c1",
                            "name": "track",
                            "response": {"output": "in Bonn"},
                        }
                    }
                ),
                model({"text": "On its way."}),
            ],
            "tools": [GEMINI_TOOL],
        },
    ),
    (
        "vertex-preference",
        PAIR,
        {
            "system_instruction": {"parts": [{"text": "Be short."}]},
            "contents": [user({"text": "Where is my order?"})],
            "completions": [
                {"score": 1, "completion": model({"text": "On its way."})},
                {"score": 0, "completion": model({"text": "Who knows."})},
            ],
        },
    ),
    (
        "vertex-rft",
        {"messages": [SYSTEM, USER], "expected": "shipped", "carrier": "DHL"},
        {
            "systemInstruction": {"role": "system", "parts": [{"text": "Be short."}]},
            "contents": [user({"text": "Where is my order?"})],
            "references": {"expected": "shipped", "carrier": "DHL"},
        },
    ),
    (
        "bedrock-nova",
        CHAT,
        {
            "schemaVersion": "bedrock-conversation-2024",
            "system": [{"text": "Be short."}],
            "messages": [
                {"role": "user", "content": [{"text": "Where is my order?"}]},
                {"role": "assistant", "content": [{"text": "On its way."}]},
            ],
        },
    ),
    (
        "bedrock-prompt",
        {"messages": [USER, ANSWER]},
        {"prompt": "Where is my order?", "completion": "On its way."},
    ),
]


@pytest.mark.parametrize(("name", "row", "wire"), PAIRS)
def test_a_row_is_written_as_the_vendor_describes_it(
    name: str, row: dict[str, Any], wire: dict[str, Any]
) -> None:
    assert wire == wire_format(name).encode(Example.model_validate(row))


def chat(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


def with_schema(schema: Any) -> dict[str, Any]:
    function = {"name": "track", "parameters": schema}
    return chat(USER, ANSWER, tools=[{"type": "function", "function": function}])


PARTS = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
SFT = ["openai-chat", "together-chat", "vertex-sft", "bedrock-nova", "bedrock-prompt"]
DPO = ["openai-dpo", "together-dpo", "vertex-preference"]
REFUSED = [
    *((name, PAIR, "a preference") for name in SFT),
    *((name, chat(USER, expected="a"), "`expected` is used for evaluation") for name in SFT),
    *((name, CHAT, "no worse answer") for name in DPO),
    *((n, {**CHAT, "weight": 0.5}, "weight 0.5") for n in SFT if n != "together-chat"),
    ("openai-chat", chat(USER, {**ANSWER, "tool_call_id": "c"}), "has tool_call_id"),
    ("openai-chat", chat(USER, CALLS, {**RESULT, "name": "t"}, ANSWER), "has a name"),
    ("openai-chat", chat({**USER, "weight": 1}, ANSWER), "messages[0] has the weight 1"),
    ("openai-chat", chat(USER, {**CALLS, "tool_calls": [{"id": "1"}]}), "type is not"),
    ("openai-chat", chat(USER, ANSWER, parallel_tool_calls=3), "neither true nor false"),
    (
        "openai-chat",
        chat(USER, ANSWER, tools=[{"name": "t"}]),
        "tools[0] has the unknown key 'name'",
    ),
    ("openai-chat", chat(USER, {"role": "assistant"}), "messages[1] has no content"),
    ("openai-rft", CHAT, "must end with the user's message"),
    ("openai-rft", {**QUESTION, "weight": 2}, "the weight 2"),
    ("together-chat", chat({"role": "developer", "content": "a"}, USER, ANSWER), "first"),
    ("together-chat", chat(USER, USER, ANSWER), "messages[1] is from 'user' like"),
    ("together-chat", chat(USER, SYSTEM, ANSWER), "at the beginning"),
    ("together-chat", chat({**USER, "content": PARTS}, ANSWER), "has 2 parts"),
    ("together-chat", chat({**USER, "name": "Ann"}, ANSWER), "'Ann'"),
    ("together-chat", chat(USER, ANSWER, tools=[]), "an empty list"),
    ("together-dpo", {**PAIR, "input": {"messages": [USER, ANSWER]}}, "also from 'assistant'"),
    ("vertex-sft", chat(USER, {**ANSWER, "weight": 0}), "messages[1] has the weight 0"),
    ("vertex-sft", chat(USER, {**USER, "role": "developer"}, ANSWER), "use 'system'"),
    ("vertex-sft", with_schema({"additionalProperties": 1}), "nor a boolean"),
    ("vertex-sft", chat(USER, SYSTEM, ANSWER), "it must be the first message"),
    ("vertex-sft", chat({**USER, "name": "Ann"}, ANSWER), "'Ann'"),
    ("vertex-sft", chat(USER, RESULT, ANSWER), "neither answers an earlier call"),
    (
        "vertex-sft",
        chat(
            USER,
            {
                "role": "assistant",
                "tool_calls": [{**CALL, "function": {"name": "t", "arguments": "[1]"}}],
            },
        ),
        "is not a JSON object",
    ),
    ("vertex-sft", with_schema({"type": ["string", "null"]}), "type is ['string', 'null']"),
    ("vertex-sft", with_schema({"type": "dict"}), "type is 'dict'"),
    ("vertex-sft", with_schema({"$ref": "#/x"}), "has the unknown key '$ref'"),
    ("vertex-sft", with_schema({"enum": [1]}), "enum is not a list of texts"),
    (
        "vertex-preference",
        {**PAIR, "input": {"messages": [USER], "tools": WITH_TOOLS["tools"]}},
        "has tools",
    ),
    ("vertex-preference", {**PAIR, "input": {"messages": [SYSTEM]}}, "not the user's"),
    ("vertex-rft", CHAT, "must end with the user's message"),
    ("vertex-rft", QUESTION, "'grade' is {'max': 3}, but references for rewards must be text"),
    ("bedrock-nova", WITH_TOOLS, "has tools"),
    ("bedrock-nova", chat(SYSTEM, ANSWER), "messages[1] is from 'assistant' instead of 'user'"),
    ("bedrock-nova", chat(USER, USER, ANSWER), "messages[1] is from 'user' instead of"),
    ("bedrock-nova", chat({**USER, "content": "a System: b"}, ANSWER), "'System:'"),
    ("bedrock-nova", chat(USER, CALLS, RESULT, ANSWER), "calls or answers a tool"),
    ("bedrock-prompt", CHAT, "move a system prompt into the user's"),
]


@pytest.mark.parametrize(("name", "row", "says"), REFUSED)
def test_what_has_no_place_is_refused_with_its_place_and_reason(
    name: str, row: dict[str, Any], says: str
) -> None:
    with pytest.raises(UnrepresentableRow) as caught:
        wire_format(name).encode(Example.model_validate(row))
    assert says in str(caught.value)


def test_a_word_that_nova_reserves_may_stand_in_an_answer() -> None:
    row = Example.model_validate(chat(USER, {**ANSWER, "content": "System: up"}))
    assert wire_format("bedrock-nova").encode(row)


@pytest.mark.parametrize("name", [*SFT, *DPO])
def test_what_is_for_judging_is_no_reason_to_refuse(name: str) -> None:
    row = {"messages": [USER, ANSWER]} if name in SFT else PAIR
    form = wire_format(name)
    judged = Example.model_validate({**row, "id": "7", "expected": "b", "customer": 4711})
    assert form.encode(Example.model_validate(row)) == form.encode(judged)


def test_rows_of_googles_documentation_are_read() -> None:
    row = {
        "system_instruction": {"role": "system", "parts": [{"text": "Be short."}]},
        "contents": [
            user({"text": "Where?"}),
            model({"functionCall": {"name": "sku", "args": {"product": "Pixel 8"}}}),
            {"parts": [{"functionResponse": {"name": "sku", "response": {"output": "True"}}}]},
            model({"text": "Here."}),
        ],
        "tools": [{"function_declarations": [{"name": "sku", "parameters": {"type": "OBJECT"}}]}],
    }
    read = wire_format("vertex-sft").decode(row)
    assert [m.role for m in read.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert (read.messages[3].content, read.messages[3].name) == ("True", "sku")
    assert (read.messages[2].tool_calls or ())[0]["function"][
        "arguments"
    ] == '{"product": "Pixel 8"}'  # type: ignore[index,call-overload] - JSON


def test_a_structured_result_of_a_tool_is_read_as_its_json() -> None:
    answer = {"functionResponse": {"name": "sku", "response": {"sku": "GA1"}}}
    row = {"contents": [user({"text": "a"}), user(answer), model({"text": "b"})]}
    assert wire_format("vertex-sft").decode(row).messages[1].content == '{"sku": "GA1"}'


def test_completions_are_read_in_either_order() -> None:
    form = wire_format("vertex-preference")
    row = form.encode(Example.model_validate(PAIR))
    turned = {**row, "completions": list(reversed(row["completions"]))}  # type: ignore[arg-type]
    assert form.decode(row) == form.decode(turned)


UNREADABLE = [
    ("openai-chat", {"messages": [USER, {**ANSWER, "refusal": "no"}]}, "'refusal'"),
    ("openai-chat", {"messages": [USER, ANSWER], "functions": []}, "'functions'"),
    ("openai-chat", {"prompt": "a"}, "'prompt'"),
    ("openai-dpo", {"input": {"messages": [USER]}, "preferred_output": [ANSWER]}, "no 'non_pref"),
    ("openai-dpo", CHAT, "'messages'"),
    ("openai-rft", {**QUESTION, "weight": 1}, "'weight'"),
    ("together-chat", {"text": "a"}, "no 'messages'"),
    ("vertex-sft", {"contents": [user({"fileData": {}}), model({"text": "a"})]}, "fileUri"),
    ("vertex-sft", {"contents": [user({"text": "a"})]}, "from 'user'"),
    ("vertex-sft", {"contents": [user({"text": "a"}), {"role": "ai", "parts": []}]}, "'ai'"),
    ("vertex-sft", {"contents": 3}, "contents is not a list"),
    (
        "vertex-sft",
        {"contents": [user({"text": "a"}), model({"functionCall": {"name": "f"}}, {"text": "b"})]},
        "text after",
    ),
    ("vertex-preference", {"contents": [user({"text": "a"})], "completions": []}, "score"),
    (
        "bedrock-nova",
        {"schemaVersion": "x", "messages": [{"role": "user"}]},
        "content is not a list",
    ),
    ("bedrock-nova", {"messages": []}, "schemaVersion"),
    ("bedrock-prompt", {"prompt": "a"}, "completion is not text"),
]


@pytest.mark.parametrize(("name", "row", "says"), UNREADABLE)
def test_rows_of_unknown_shape_are_refused(name: str, row: dict[str, Any], says: str) -> None:
    with pytest.raises(UnrepresentableRow) as caught:
        wire_format(name).decode(row)
    assert says in str(caught.value)


STRICT = {
    "name": "track",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"id": {"type": "string"}},
        "required": ["id"],
        "additionalProperties": False,
    },
}


@pytest.mark.parametrize("name", ["vertex-sft", "vertex-rft"])
def test_openais_strict_tools_and_developer_turn_go_to_vertex(name: str) -> None:
    turns = [{"role": "developer", "content": "Be brief."}, USER]
    row = chat(*turns, *([ANSWER] if name == "vertex-sft" else []))
    row["tools"] = [{"type": "function", "function": STRICT}]
    written: Any = wire_format(name).encode(Example.model_validate(row))
    assert written["systemInstruction"]["parts"] == [{"text": "Be brief."}]
    (declared,) = written["tools"][0]["functionDeclarations"]
    assert "strict" not in declared
    assert declared["parameters"]["additionalProperties"] is False


def test_an_empty_list_of_tools_is_none_at_vertex() -> None:
    row = chat(USER, ANSWER, tools=[])
    assert "tools" not in wire_format("vertex-sft").encode(Example.model_validate(row))


def test_converting_reports_rows_that_lose_strict(tmp_path: Path) -> None:
    row = chat(USER, ANSWER, tools=[{"type": "function", "function": STRICT}])
    file = write_rows(tmp_path / "rows.jsonl", [row])
    (lost,) = convert_file(file, to="vertex-sft")
    (kept,) = convert_file(file, to="openai-chat")
    assert isinstance(lost, Converted)
    assert isinstance(kept, Converted)
    assert (lost.left_out, kept.left_out) == (("strict",), ())
