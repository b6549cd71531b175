"""Convert rows to and from Anthropic's Messages API, and so from files of its requests.

    system      `system`, next to the messages
    assistant   text, {"type": "tool_use", "id", "name", "input"}
    tool        {"role": "user", "content": [{"type": "tool_result", "tool_use_id", "content"}]}

Results of neighbouring turns share one message. The arguments of a call are an object there and a
text here, so their spacing is lost; content "" with tool calls equals no content. `cache_control`
is ignored. Reasoning and media are refused.

Source: docs.claude.com/en/api/messages; tuning files of Claude 3 Haiku on Bedrock have the same
`system` and `messages` (docs.aws.amazon.com/bedrock, preparing-text-data).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import groupby

from pydantic import JsonValue

from unitune.backends.formats import Format, UnrepresentableRow, WireRow
from unitune.data.example import Example, Message
from unitune_providers.formats.checks import (
    called_functions,
    example_of,
    is_answered,
    is_plain,
    joined,
    known_keys,
    object_of,
    objects,
    single_text,
    text_of,
    texts,
    with_paths,
    written_system,
)
from unitune_providers.formats.openai import check_tools, check_turn

KEYS = ("system", "messages", "tools")
_NO_ARGUMENTS: WireRow = {"type": "object", "properties": {}}


def encode(example: Example) -> WireRow:
    """Encode a row for supervised tuning."""
    is_answered(example)
    turns = with_paths(example.messages)
    for where, turn in turns:
        is_plain(where, turn)
        check_turn(where, turn)
    row: WireRow = {}
    if turns[0][1].role == "system":
        row["system"] = _content(*written_system(*turns.pop(0)))
    row["messages"] = [*_messages(turns)]
    check_tools(example.tools or (), known=("name", "description", "parameters"))
    return row if example.tools is None else {**row, "tools": [*map(_tool, example.tools)]}


def decode(row: Mapping[str, JsonValue]) -> Example:
    """Decode a row for supervised tuning."""
    known_keys("the row", row, KEYS)
    made: list[JsonValue] = []
    if row.get("system"):
        made.append({"role": "system", "content": _text("system", row["system"])})
    for index, turn in enumerate(objects("messages", row.get("messages"))):
        where = f"messages[{index}]"
        known_keys(where, turn, ("role", "content"))
        made += _turns(where, turn)
    tools: WireRow = {}
    if row.get("tools") is not None:
        declared = enumerate(objects("tools", row["tools"]))
        tools["tools"] = [_function(f"tools[{at}]", tool) for at, tool in declared]
    return example_of({"messages": made, **tools}, encode)


def fits(row: Mapping[str, JsonValue]) -> bool:
    """Return whether a row's messages have blocks or tools that only Anthropic has."""
    turns, tools = row.get("messages"), row.get("tools")
    if isinstance(tools, list) and any("input_schema" in tool for tool in _dicts(tools)):
        return True
    contents = (turn.get("content") for turn in _dicts(turns))
    return any(block.get("type") in BLOCKS for content in contents for block in _dicts(content))


BLOCKS = ("tool_use", "tool_result", "thinking", "redacted_thinking")


def _dicts(value: JsonValue) -> list[dict[str, JsonValue]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _messages(turns: list[tuple[str, Message]]) -> Iterator[JsonValue]:
    for is_tool, group in groupby(turns, key=lambda place: place[1].role == "tool"):
        if is_tool:
            yield {"role": "user", "content": [_result(*place) for place in group]}
            continue
        for where, turn in group:
            if turn.role not in ("user", "assistant"):
                raise UnrepresentableRow(
                    f"{where} is from {turn.role!r}, which is not allowed there; only the first "
                    "message may be from 'system'"
                )
            yield {"role": turn.role, "content": _content(where, turn)}


def _content(where: str, turn: Message) -> JsonValue:
    no_text = turn.tool_calls is not None and turn.content in (None, "")
    written = [] if no_text else texts(where, turn)
    if turn.tool_calls is None and len(written) == 1:
        return written[0]
    blocks: list[JsonValue] = [{"type": "text", "text": text} for text in written]
    for id_, function in called_functions(where, turn):
        block: WireRow = {"type": "tool_use", "id": id_, "name": function["name"]}
        blocks.append({**block, "input": function["arguments"]})
    return blocks


def _result(where: str, turn: Message) -> JsonValue:
    answers: WireRow = {"type": "tool_result", "tool_use_id": turn.tool_call_id}
    return {**answers, "content": single_text(where, turn)}


def _tool(tool: Mapping[str, JsonValue]) -> JsonValue:
    function = object_of("tools", tool["function"])
    described = {"description": function["description"]} if "description" in function else {}
    schema = function.get("parameters", _NO_ARGUMENTS)
    return {"name": function["name"], **described, "input_schema": schema}


def _function(where: str, tool: WireRow) -> JsonValue:
    known_keys(where, tool, ("type", "name", "description", "input_schema", "cache_control"))
    if tool.get("type", "custom") != "custom":
        raise UnrepresentableRow(f"{where} is of type {tool['type']!r}, a tool run by Anthropic")
    made: WireRow = {"name": text_of(f"{where}.name", tool.get("name"))}
    if tool.get("description") is not None:
        made["description"] = tool["description"]
    made["parameters"] = object_of(f"{where}.input_schema", tool.get("input_schema"))
    return {"type": "function", "function": made}


def _turns(where: str, turn: WireRow) -> Iterator[JsonValue]:
    role, content = turn.get("role"), turn.get("content")
    if isinstance(content, str):
        yield {"role": role, "content": content}
        return
    kinds: dict[str, list[WireRow]] = {"text": [], "tool_use": [], "tool_result": []}
    for index, block in enumerate(objects(f"{where}.content", content)):
        kind = text_of(f"{where}.content[{index}].type", block.get("type"))
        if kind not in kinds or (kind == "tool_use") > (role == "assistant"):
            raise UnrepresentableRow(f"{where}.content[{index}] is of type {kind!r}, from {role!r}")
        if kind == "tool_result" and (kinds["text"] or role == "assistant"):
            raise UnrepresentableRow(
                f"{where} has text before a tool's result, or is not the user's"
            )
        kinds[kind].append(block)
    yield from (_answer(f"{where}.content", block) for block in kinds["tool_result"])
    text: JsonValue = [*kinds["text"]] or None
    said: WireRow = {} if text is None else {"content": _text(f"{where}.content", text)}
    if calls := kinds["tool_use"]:
        yield {"role": role, **said, "tool_calls": [_call(f"{where}.content", c) for c in calls]}
    elif said or not kinds["tool_result"]:
        yield {"role": role, "content": "", **said}


def _call(where: str, block: WireRow) -> JsonValue:
    known_keys(where, block, ("type", "id", "name", "input", "cache_control"))
    text = json.dumps(object_of(f"{where}.input", block.get("input")), ensure_ascii=False)
    function: WireRow = {"name": text_of(f"{where}.name", block.get("name")), "arguments": text}
    return {"id": text_of(f"{where}.id", block.get("id")), "type": "function", "function": function}


def _answer(where: str, block: WireRow) -> JsonValue:
    known_keys(where, block, ("type", "tool_use_id", "content", "is_error", "cache_control"))
    if block.get("is_error"):
        raise UnrepresentableRow(f"{where} has a tool's error (`is_error`), which is not supported")
    called = text_of(f"{where}.tool_use_id", block.get("tool_use_id"))
    content = _text(f"{where}.content", block.get("content") or "")
    return {"role": "tool", "tool_call_id": called, "content": content}


def _text(where: str, value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return value
    return joined(where, objects(where, value), ("type", "text", "cache_control"))


CHAT = Format("anthropic", "Anthropic messages, with tools", encode, decode, KEYS, fits)
