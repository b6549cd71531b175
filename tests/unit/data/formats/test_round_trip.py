"""The laws that every wire format obeys, whatever the row.

What a format writes, it reads back as the same row, but for what says nothing (`unitune_providers.
formats.checks`) and for what no training reads (`id`, `expected`, own keys), unless graders do.
What it cannot carry it refuses, and it never fails in another way.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unitune.backends.formats import Format, UnrepresentableRow, WireRow, format_names, wire_format
from unitune.data.example import Example, Message
from unitune.data.questions import is_blank

FORMATS = [
    *("alpaca", "anthropic"),
    *("bedrock-nova", "bedrock-prompt", "openai-chat", "openai-dpo", "openai-rft"),
    *("sharegpt", "together-chat", "together-dpo"),
    *("vertex-preference", "vertex-rft", "vertex-sft"),
]
KEEP_EVERY_KEY = ("openai-rft", "vertex-rft")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SAID = TEXT.filter(lambda text: not is_blank(text))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
IDENTIFIER = st.from_regex(r"[a-z_][a-z0-9_-]{0,8}", fullmatch=True)
OWN_KEYS = st.dictionaries(
    TEXT.filter(
        lambda key: key not in (*Example.model_fields, "input", "preferred_output", "system")
    )
    | st.sampled_from(["parallel_tool_calls", "text", "prompt", "grade"]),
    JSON,
    max_size=2,
)
SCHEMAS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "number", "integer", "boolean", "null"])},
        optional={
            "description": TEXT,
            "enum": st.lists(TEXT, max_size=2),
            "nullable": st.booleans(),
        },
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.dictionaries(IDENTIFIER, inner, max_size=2),
            },
            optional={"additionalProperties": st.booleans() | inner},
        ),
    ),
    max_leaves=3,
)
QUICK = settings(
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
SAID_BY_REFUSALS: set[str] = set()
RARE = st.integers(0, 39).map(lambda drawn: drawn == 7)


@st.composite
def some_json_text(draw: st.DrawFn) -> str:
    value = draw(st.dictionaries(TEXT, JSON, max_size=3))
    return json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.none() | st.just(1)))


@st.composite
def content(draw: st.DrawFn) -> Any:
    said = draw(st.lists(SAID, min_size=1, max_size=2))
    whole = draw(st.booleans())
    return said[0] if whole else [{"type": "text", "text": text} for text in said]


@st.composite
def turn(draw: st.DrawFn, role: str, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"role": role, "content": draw(content()), **more}
    if draw(RARE):
        made["name"] = draw(IDENTIFIER)
    if draw(RARE):
        made["weight"] = draw(st.sampled_from([0, 1]))
    if draw(RARE):
        made["content"] = draw(st.sampled_from([None, "", []]))
    return made


def plain_turn(role: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"role": st.just(role), "content": SAID})


@st.composite
def tool_turns(draw: st.DrawFn, number: int) -> list[dict[str, Any]]:
    """Calls of tools with their results, mostly in good order."""
    names = draw(st.lists(IDENTIFIER, min_size=1, max_size=2))
    calls = [
        {
            "id": f"call_{number}_{index}",
            "type": "function",
            "function": {"name": name, "arguments": draw(some_json_text() | TEXT)},
        }
        for index, name in enumerate(names)
    ]
    asked = draw(turn("assistant", tool_calls=calls))
    asked["content"] = draw(st.sampled_from([asked["content"], None, ""]))
    results = [draw(turn("tool", tool_call_id=call["id"])) for call in calls]
    if draw(RARE):
        results[0]["tool_call_id"] = draw(st.none() | TEXT)
    if draw(RARE):
        results[0]["name"] = names[0]
    return [asked, *results]


@st.composite
def conversation(draw: st.DrawFn) -> list[dict[str, Any]]:
    before = draw(
        st.sampled_from([[], ["system"], ["system"], ["developer"], ["system", "system"]])
    )
    messages = [draw(turn(role)) for role in before]
    rounds = draw(st.integers(1, 2))
    for number in range(rounds):
        messages.append(draw(turn("user")))
        if draw(st.integers(0, 3)) == 0:
            messages += draw(tool_turns(number))
        if number < rounds - 1 and not draw(RARE):
            messages.append(draw(turn("assistant")))
    return messages


@st.composite
def tool(draw: st.DrawFn) -> dict[str, Any]:
    function: dict[str, Any] = {"name": draw(IDENTIFIER)}
    function |= draw(
        st.fixed_dictionaries({}, optional={"description": TEXT, "parameters": SCHEMAS})
    )
    if draw(RARE):
        function["strict"] = draw(st.booleans())
    return {"type": "function", "function": function}


@st.composite
def row(draw: st.DrawFn) -> dict[str, Any]:
    """A row of any method, mostly in good order."""
    kind = draw(st.sampled_from(["answered", "pair", "question"]))
    # Plain rows are those that the poorest formats have a place for, and else too rare.
    plain = draw(st.integers(0, 2)) == 0
    messages = [draw(plain_turn("user"))] if plain else draw(conversation())
    answer = plain_turn("assistant") if plain else turn("assistant")
    if kind != "question":
        messages.append(draw(answer))
    made: dict[str, Any] = {"messages": messages}
    if kind == "pair":
        made["non_preferred_output"] = [draw(answer)]
    if draw(st.integers(0, 3)) == 0:
        made["tools"] = draw(st.lists(tool() | st.dictionaries(TEXT, JSON, max_size=2), max_size=2))
    if draw(RARE):
        made["weight"] = draw(st.floats(min_value=0, max_value=9))
    if draw(st.integers(0, 3)) == 0:
        made |= draw(st.fixed_dictionaries({}, optional={"id": TEXT, "expected": SAID}))
    if draw(st.integers(0, 3)) == 0:
        made = {**draw(OWN_KEYS), **made}
    return made


def without_idle_words(example: Example, name: str) -> Example:
    """Return a row without what the format need not keep."""
    outputs = [example.messages[-1], *(example.non_preferred_output or ())]
    weighed = name in ("openai-chat", "openai-dpo", "together-chat", "together-dpo")

    def plain(message: Message) -> Message:
        in_output = name.endswith("-dpo") and any(message is output for output in outputs)
        kept = weighed and not in_output
        if name.startswith("openai") and message.role != "assistant":
            kept = False
        return _plain(message, name, keeps_weight=kept)

    changed: dict[str, Any] = {"messages": tuple(plain(message) for message in example.messages)}
    if example.non_preferred_output is not None:
        changed["non_preferred_output"] = tuple(map(plain, example.non_preferred_output))
    if name in ("vertex-sft", "vertex-rft"):
        changed["messages"] = _with_unnamed_tools(changed["messages"])
    if name.startswith("vertex"):
        first, *others = changed["messages"]
        role = "system" if first.role == "developer" else first.role
        changed["messages"] = (replace(first, role=role), *others)
        changed["tools"] = tuple(map(_without_strict, example.tools or ())) or None
    if name == "sharegpt":
        changed["messages"] = _with_counted_calls(changed["messages"])
    if name == "anthropic" and example.tools is not None:
        changed["tools"] = tuple(map(_with_parameters, example.tools))
    if name in KEEP_EVERY_KEY:
        return example.model_copy(update=changed)
    changed |= {"id": None, "expected": None}
    known = {key: getattr(example, key) for key in Example.model_fields} | changed
    if name.startswith("openai") and "parallel_tool_calls" in (example.model_extra or {}):
        known["parallel_tool_calls"] = (example.model_extra or {})["parallel_tool_calls"]
    return Example.model_validate(known)


def _plain(message: Message, name: str, *, keeps_weight: bool) -> Message:
    changed: dict[str, Any] = {}
    if not keeps_weight and message.weight == (message.role == "assistant"):
        changed["weight"] = None
    if isinstance(message.content, tuple) and len(message.content) == 1 and "openai" not in name:
        changed["content"] = message.content[0].text
    if name in ("anthropic", "sharegpt", "vertex-rft", "vertex-sft") and message.tool_calls:
        changed["tool_calls"] = tuple(map(_respaced, message.tool_calls))
        if message.content == "":
            changed["content"] = None
    return replace(message, **changed)


def _respaced(call: dict[str, Any]) -> dict[str, Any]:
    arguments = json.dumps(json.loads(call["function"]["arguments"]), ensure_ascii=False)
    return {**call, "function": {**call["function"], "arguments": arguments}}


def _without_strict(tool: dict[str, Any]) -> dict[str, Any]:
    function = {key: value for key, value in tool["function"].items() if key != "strict"}
    return {**tool, "function": function}


def _with_parameters(tool: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's description: "Omitting `parameters` defines a function with an empty list"."""
    nothing: dict[str, Any] = {"type": "object", "properties": {}}
    return {**tool, "function": {"parameters": nothing, **tool["function"]}}


def _with_counted_calls(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    ids: list[str] = []
    made: list[Message] = []
    answered = 0
    for message in messages:
        if message.tool_calls:
            answered = len(ids)
            ids += [f"call_{answered + at}" for at, _ in enumerate(message.tool_calls)]
            calls = zip(message.tool_calls, ids[answered:], strict=True)
            made.append(
                replace(message, tool_calls=tuple({**call, "id": id_} for call, id_ in calls))
            )
        elif message.role == "tool":
            made.append(replace(message, tool_call_id=ids[answered]))
            answered += 1
        else:
            made.append(message)
    return tuple(made)


def _with_unnamed_tools(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return messages whose tools' turns do not repeat the name of the function called."""
    called: dict[Any, Any] = {}
    made: list[Message] = []
    for message in messages:
        for call in message.tool_calls or ():
            called[call.get("id")] = call["function"]["name"]  # type: ignore[index]
        same = message.role == "tool" and message.name == called.get(message.tool_call_id)
        made.append(replace(message, name=None) if same else message)
    return tuple(made)


def carried(content: dict[str, Any]) -> dict[str, tuple[Example, WireRow]]:
    """Return a row as each format that accepts it writes it."""
    example = Example.model_validate(content)
    made: dict[str, tuple[Example, WireRow]] = {}
    for name in FORMATS:
        try:
            made[name] = example, wire_format(name).encode(example)
        except UnrepresentableRow as problem:
            SAID_BY_REFUSALS.add(str(problem))
    return made


def test_what_a_format_writes_it_reads_back_and_what_it_refuses_it_says() -> None:
    accepted: Counter[str] = Counter()

    @given(content=row())
    @settings(QUICK, max_examples=400)  # so that each format accepts some
    def check(content: dict[str, Any]) -> None:
        for name, (example, written) in carried(content).items():
            accepted[name] += 1
            form = wire_format(name)
            assert written == json.loads(json.dumps(written))
            read = form.decode(written)
            assert without_idle_words(example, name) == read, name
            assert written == form.encode(read), name

    check()
    assert set(FORMATS) == {name for name, count in accepted.items() if count > 3}
    assert len(SAID_BY_REFUSALS) > 20
    assert not [words for words in SAID_BY_REFUSALS if words.endswith(".") or not words]


@given(data=st.data())
@QUICK
def test_reading_fails_in_no_other_way_than_by_saying_why(data: st.DataObject) -> None:
    for name, (_, written) in carried(data.draw(row())).items():
        form = wire_format(name)
        broken = broken_somewhere(data, json.loads(json.dumps(written)))
        with contextlib.suppress(UnrepresentableRow):
            read = form.decode(broken)
            assert read == form.decode(form.encode(read)), name


def broken_somewhere(data: st.DataObject, value: Any) -> Any:
    """Return a value with one of its parts replaced by another."""
    place, keys = value, list(value)
    while keys:
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        keys = list(inner) if isinstance(inner, dict) else []
        if isinstance(inner, list):
            keys = list(range(len(inner)))
        if not keys or data.draw(RARE):
            place[key] = data.draw(JSON)
            return value
        place = inner
    return value


def test_every_format_is_tested_and_named_as_it_is_found() -> None:
    ours = [name for name in format_names() if name.split("-")[0] in _VENDORS]
    assert ours == FORMATS
    assert [wire_format(name).name for name in ours] == FORMATS
    assert all(isinstance(wire_format(name), Format) for name in ours)


_VENDORS = ("alpaca", "anthropic", "bedrock", "openai", "sharegpt", "together", "vertex")
