"""Convert rows of Gemini's tuning files on Vertex: `contents` of parts instead of messages.

    system        systemInstruction (preference: system_instruction)
    user          {"role": "user", "parts": [{"text"}, {"inlineData"}, {"fileData"}]}
    assistant     {"role": "model", "parts": [{"text"}, {"functionCall"}]}
    tool          {"role": "user", "parts": [{"functionResponse"}]}, neighbours in one content
    own keys      references of text (reinforcement, whose rewards read them)

The arguments of a call are an object there and a text here, so their spacing is lost. A tool's
result is kept as text under `output`. Content "" with tool calls equals no content, and an empty
list of tools equals none; a first developer message is the system prompt. Keys are read in
camelCase and snake_case. `vertex_tools` converts tool declarations.

Source: docs.cloud.google.com/gemini-enterprise-agent-platform/models/tuning: prepare-data of
supervised-tuning and of preference-tuning, tuning-dataset of reinforcement-tuning, function-calling
(2026); google-genai 3.6 types.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from pydantic import JsonValue

from unitune.backends.formats import Format, UnrepresentableRow, WireRow
from unitune.data.example import Example, Message
from unitune.data.images import ImageUrl
from unitune.scorers.row_scorers import KEY
from unitune_providers.formats.checks import (
    CONVERSATION,
    embedded,
    example_of,
    is_answered,
    is_pair,
    is_plain,
    is_question,
    joined,
    json_object,
    known_keys,
    object_of,
    objects,
    only_text,
    pieces,
    require_unit_weight,
    single_text,
    text_of,
    texts,
    weighs_as_usual,
    with_paths,
)
from unitune_providers.formats.openai import check_call
from unitune_providers.formats.vertex_tools import declarations, tools_of

# Endings of the images that Gemini reads. Source: docs.cloud.google.com, Image understanding (2026)
_MEDIA_TYPES = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
}
Place = tuple[str, Message]
Parts = list[JsonValue]


def encode_sft(example: Example) -> WireRow:
    """Encode a row for supervised tuning."""
    is_answered(example)
    return _row(example)


def decode_sft(row: Mapping[str, JsonValue]) -> Example:
    """Decode a row for supervised tuning."""
    return example_of(_example(row), encode_sft)


def encode_rft(example: Example) -> WireRow:
    """Encode a prompt with the references for its rewards."""
    is_question(example)
    references = {
        key: value for key, value in example.content.items() if key not in (*CONVERSATION, KEY)
    }
    for key, value in references.items():
        if not isinstance(value, str):
            raise UnrepresentableRow(
                f"{key!r} is {value!r}, but references for rewards must be text there"
            )
    return {**_row(example), "references": references}


def decode_rft(row: Mapping[str, JsonValue]) -> Example:
    """Decode a prompt with the references for its rewards."""
    row = {**row}
    references = object_of("references", row.pop("references", {}))
    for key, value in references.items():
        text_of(f"references.{key}", value)
        if key in CONVERSATION:
            raise UnrepresentableRow(f"references.{key} would be read as the row's own {key!r}")
    return example_of({**references, **_example(row)}, encode_rft)


def _row(example: Example) -> WireRow:
    require_unit_weight(example)
    system, turns = _system(example.messages)
    row: WireRow = {"contents": list(_contents(turns))}
    if system is not None:
        row = {"systemInstruction": {"role": "system", "parts": system}, **row}
    return {**row, "tools": declarations(example.tools)} if example.tools else row


def _image(where: str, part: WireRow) -> str | None:
    if "inlineData" in part:
        data = _camel(object_of(f"{where}.inlineData", part["inlineData"]))
        known_keys(f"{where}.inlineData", data, ("mimeType", "data"))
        media_type = text_of(f"{where}.mimeType", data.get("mimeType"))
        return f"data:{media_type};base64,{text_of(f'{where}.data', data.get('data'))}"
    if "fileData" in part:
        data = _camel(object_of(f"{where}.fileData", part["fileData"]))
        known_keys(f"{where}.fileData", data, ("mimeType", "fileUri"))
        return text_of(f"{where}.fileUri", data.get("fileUri"))
    return None


def _example(row: Mapping[str, JsonValue]) -> WireRow:
    row = _camel(row)
    known_keys("the row", row, ("systemInstruction", "contents", "tools"))
    messages: JsonValue = [*_instruction(row), *_messages(row.get("contents"))]
    tools = tools_of(row["tools"]) if "tools" in row else None
    return {"messages": messages, **({"tools": tools} if tools else {})}


def encode_preference(example: Example) -> WireRow:
    """Encode a pair of answers, which must be plain text."""
    worse = is_pair(example)
    require_unit_weight(example)
    if example.tools:
        raise UnrepresentableRow("the row has tools, but preferences may contain only text there")
    for where, turn in [*with_paths(example.messages), ("non_preferred_output", worse)]:
        only_text(where, turn)
        texts(where, turn)
    system, turns = _system(example.messages[:-1])
    if not turns or turns[-1][1].role != "user":
        raise UnrepresentableRow("the message before the two answers is not the user's")
    row: WireRow = {} if system is None else {"system_instruction": {"parts": system}}
    row["contents"] = list(_contents(turns))
    row["completions"] = [
        _completion(1, "preferred_output", example.messages[-1]),
        _completion(0, "non_preferred_output", worse),
    ]
    return row


def decode_preference(row: Mapping[str, JsonValue]) -> Example:
    """Decode a pair of answers, in any order."""
    row = _camel(row)
    known_keys("the row", row, ("systemInstruction", "contents", "completions"))
    completions = objects("completions", row.get("completions"))
    scores = [completion.get("score") for completion in completions]
    if scores not in ([1, 0], [0, 1]):
        raise UnrepresentableRow("completions are not one of score 1 and one of score 0")
    better, worse = completions if scores == [1, 0] else reversed(completions)
    triple: dict[str, JsonValue] = {
        "input": {"messages": [*_instruction(row), *_messages(row.get("contents"))]},
        "preferred_output": _messages([better.get("completion")]),
        "non_preferred_output": _messages([worse.get("completion")]),
    }
    return example_of(triple, encode_preference)


def _system(messages: Sequence[Message]) -> tuple[Parts | None, list[Place]]:
    turns = with_paths(messages)
    first = messages[0] if messages else None
    if first is None or first.role not in ("system", "developer"):
        return None, turns
    is_plain("messages[0]", first)
    only_text("messages[0]", first)
    return _text_parts("messages[0]", first), turns[1:]


def _contents(turns: list[Place]) -> Iterator[JsonValue]:
    names: dict[str, str] = {}
    for is_tool, group in groupby(turns, key=lambda place: place[1].role == "tool"):
        if is_tool:
            yield {"role": "user", "parts": [_response(*place, names) for place in group]}
        else:
            yield from (_content(*place, names) for place in group)


def _content(where: str, turn: Message, names: dict[str, str]) -> JsonValue:
    """Encode a turn of user or assistant, and record the names of called functions."""
    is_plain(where, turn)
    if turn.role == "assistant":
        return {"role": "model", "parts": _model_parts(where, turn, names)}
    if turn.role != "user":
        why = "it must be the first message" if turn.role == "system" else "use 'system'"
        raise UnrepresentableRow(
            f"{where} is from {turn.role!r}, which is not allowed there; {why}"
        )
    only_text(where, turn)
    return {"role": "user", "parts": [_part(where, part) for part in pieces(where, turn)]}


def _part(where: str, part: str | ImageUrl) -> JsonValue:
    if isinstance(part, str):
        return {"text": part}
    if found := embedded(where, part, "gs", "https"):
        return {"inlineData": {"mimeType": found.media_type, "data": part.url.partition(",")[2]}}
    kind = _MEDIA_TYPES.get(part.url.partition("?")[0].rpartition(".")[2].lower())
    if kind is None:
        raise UnrepresentableRow(
            f"{where} has the image {part.url[:80]!r}; its address must end in one of "
            f"{', '.join(_MEDIA_TYPES)}"
        )
    return {"fileData": {"mimeType": kind, "fileUri": part.url}}


def _model_parts(where: str, turn: Message, names: dict[str, str]) -> Parts:
    if turn.tool_call_id is not None:
        raise UnrepresentableRow(
            f"{where} has a tool_call_id, which is allowed only in tool messages"
        )
    if turn.tool_calls is None:
        return _text_parts(where, turn)
    if not turn.tool_calls:
        raise UnrepresentableRow(f"{where}.tool_calls is an empty list")
    parts = _text_parts(where, turn) if turn.content not in (None, "") else []
    for index, call in enumerate(turn.tool_calls):
        place = f"{where}.tool_calls[{index}]"
        check_call(place, call, needs_id=False)
        function = object_of(place, call["function"])
        name = text_of(place, function["name"])
        arguments = text_of(place, function["arguments"])
        made: dict[str, JsonValue] = {}
        if "id" in call:
            made["id"] = call["id"]
            names[text_of(place, call["id"])] = name
        made["name"] = name
        made["args"] = json_object(f"{place}.function.arguments", arguments)
        parts.append({"functionCall": made})
    return parts


def _response(where: str, turn: Message, names: dict[str, str]) -> JsonValue:
    weighs_as_usual(where, turn)
    if turn.tool_calls is not None:
        raise UnrepresentableRow(f"{where} has tool_calls, but only the assistant may call tools")
    called = None if turn.tool_call_id is None else names.get(turn.tool_call_id)
    name = turn.name if called is None else called
    if name is None:
        raise UnrepresentableRow(
            f"{where} neither answers an earlier call nor has the name of a function"
        )
    if turn.name not in (None, name):
        raise UnrepresentableRow(
            f"{where} has the name {turn.name!r}, but answers a call of {name!r}"
        )
    id_ = {} if turn.tool_call_id is None else {"id": turn.tool_call_id}
    response: JsonValue = {"output": single_text(where, turn)}
    return {"functionResponse": {**id_, "name": name, "response": response}}


def _text_parts(where: str, turn: Message) -> Parts:
    return [{"text": text} for text in texts(where, turn)]


def _completion(score: int, where: str, turn: Message) -> JsonValue:
    is_plain(where, turn)
    return {"score": score, "completion": {"role": "model", "parts": _text_parts(where, turn)}}


def _instruction(row: Mapping[str, JsonValue]) -> list[JsonValue]:
    if row.get("systemInstruction") is None:
        return []
    content = object_of("systemInstruction", row["systemInstruction"])
    known_keys("systemInstruction", content, ("role", "parts"))
    parts = objects("systemInstruction.parts", content.get("parts"))
    return [{"role": "system", "content": joined("systemInstruction.parts", parts)}]


def _messages(contents: JsonValue) -> list[JsonValue]:
    made: list[JsonValue] = []
    names: dict[str, str] = {}
    for index, content in enumerate(objects("contents", contents)):
        where = f"contents[{index}]"
        known_keys(where, content, ("role", "parts"))
        parts = [_camel(part) for part in objects(f"{where}.parts", content.get("parts"))]
        role = content.get("role", "user")
        if any("functionResponse" in part for part in parts) and role in ("user", "function"):
            made += [_tool_turn(f"{where}.parts[{n}]", part, names) for n, part in enumerate(parts)]
        elif role == "user":
            user = joined(f"{where}.parts", parts, image=_image)
            made.append({"role": "user", "content": user})
        elif role == "model":
            made.append(_assistant_turn(where, parts, names))
        else:
            raise UnrepresentableRow(f"{where}.role is {role!r}; allowed are 'user' and 'model'")
    return made


def _assistant_turn(where: str, parts: list[WireRow], names: dict[str, str]) -> JsonValue:
    text_parts = [part for part in parts if "functionCall" not in part]
    turn: dict[str, JsonValue] = {"role": "assistant"}
    if text_parts or not parts:
        turn["content"] = joined(f"{where}.parts", text_parts)
    if parts[: len(text_parts)] != text_parts:
        raise UnrepresentableRow(f"{where} has text after a functionCall")
    calls: list[JsonValue] = []
    for index, part in enumerate(parts[len(text_parts) :], start=len(text_parts)):
        place = f"{where}.parts[{index}]"
        known_keys(place, part, ("functionCall",))
        calls.append(_call(place, object_of(place, part["functionCall"]), names))
    return {**turn, "tool_calls": calls} if calls else turn


def _call(where: str, call: WireRow, names: dict[str, str]) -> JsonValue:
    known_keys(where, call, ("id", "name", "args"))
    name = text_of(f"{where}.name", call.get("name"))
    arguments = object_of(f"{where}.args", call.get("args", {}))
    made: JsonValue = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    if call.get("id") is None:
        return {"type": "function", "function": made}
    names[text_of(f"{where}.id", call["id"])] = name
    return {"id": call["id"], "type": "function", "function": made}


def _tool_turn(where: str, part: WireRow, names: dict[str, str]) -> JsonValue:
    known_keys(where, part, ("functionResponse",))
    answer = object_of(where, part.get("functionResponse"))
    known_keys(where, answer, ("id", "name", "response"))
    name = text_of(f"{where}.name", answer.get("name"))
    turn: dict[str, JsonValue] = {"role": "tool", "content": _result(where, answer)}
    if answer.get("id") is None:
        return {**turn, "name": name}
    turn["tool_call_id"] = text_of(f"{where}.id", answer["id"])
    return turn if names.get(turn["tool_call_id"]) == name else {**turn, "name": name}


def _result(where: str, answer: WireRow) -> str:
    response = object_of(f"{where}.response", answer.get("response"))
    output = response.get("output")
    if isinstance(output, str) and len(response) == 1:
        return output
    return json.dumps(response, ensure_ascii=False)


_SPELLINGS: Mapping[str, str] = {
    "system_instruction": "systemInstruction",
    "file_data": "fileData",
    "file_uri": "fileUri",
    "function_call": "functionCall",
    "function_response": "functionResponse",
    "inline_data": "inlineData",
    "mime_type": "mimeType",
}


def _camel(row: Mapping[str, JsonValue]) -> WireRow:
    made = {_SPELLINGS.get(key, key): value for key, value in row.items()}
    if len(made) != len(row):
        raise UnrepresentableRow(f"a key appears twice in two spellings among {', '.join(row)}")
    return made


_KEYS = ("systemInstruction", "system_instruction", "contents", "tools", "completions")
# Keys of a request that are read only to be refused, because they control the answer
_REFUSED = ("toolConfig", "tool_config", "generationConfig", "generation_config", "cachedContent")
SFT = Format(
    "vertex-sft",
    "Gemini contents on Vertex, for supervised tuning",
    encode_sft,
    decode_sft,
    (*_KEYS, *_REFUSED),
    lambda row: "contents" in row and not row.keys() & {"completions", "references"},
)
PREFERENCE = Format(
    "vertex-preference",
    "Gemini contents on Vertex with a better and a worse completion",
    encode_preference,
    decode_preference,
    (*_KEYS, *_REFUSED),
    lambda row: "contents" in row and "completions" in row,
)
RFT = Format(
    "vertex-rft",
    "Gemini contents on Vertex with references, for reinforcement tuning",
    encode_rft,
    decode_rft,
    (*_KEYS, *_REFUSED, "references"),
    lambda row: "contents" in row and "references" in row,
)
