"""Rows: what is prompt, answer and training, for every kind of counter."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitune.cost.tokens import Count, counter_for
from unitune.cost.tokens.by_encoding import count_tokens
from unitune.data.example import Example, Message

from .conftest import text_tokens

MODELS = ["gpt-4o", "gpt-4", "gpt-6-luna", "gpt-oss-20b", "claude-sonnet-5-5"]
SAYING = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant"]), "content": SAYING},
    optional={"name": SAYING},
)
CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "look", "arguments": '{"at": "the moon"}'},
}
LOOK: dict[str, Any] = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
}
ROWS = st.fixed_dictionaries(
    {"messages": st.lists(TURN, min_size=1, max_size=5)},
    optional={"tools": st.just([LOOK]), "expected": SAYING},
)
CHAT = (
    Message(role="system", content="Be brief."),
    Message(role="user", content="What colour has snow?"),
    Message(role="assistant", content="White."),
)


def is_range(count: Count) -> bool:
    return 0 <= count.low <= count.expected <= count.high


@pytest.mark.parametrize("model", MODELS)
@given(row=ROWS)
def test_counts_are_ranges_and_the_whole_is_no_less_than_its_prompt(
    model: str, row: dict[str, Any]
) -> None:

    example = Example.model_validate(row)
    count = counter_for(model).row(example)

    assert all(map(is_range, (count.prompt, count.answer, count.total)))
    if example.messages[-1].role == "assistant" and example.expected is None:
        assert count.prompt.expected <= count.total.expected


@pytest.mark.parametrize("model", MODELS)
@given(row=ROWS, more=TURN)
def test_a_turn_more_is_never_fewer_tokens(
    model: str, row: dict[str, Any], more: dict[str, Any]
) -> None:
    counter = counter_for(model)
    longer = {**row, "messages": [more, *row["messages"]]}
    less, much = (counter.row(Example.model_validate(one)).total for one in (row, longer))

    assert less.low < much.low
    assert less.expected < much.expected
    assert less.high < much.high


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4"])
@given(turns=st.lists(TURN, min_size=1, max_size=5))
def test_a_rows_tokens_are_those_of_its_turns(model: str, turns: list[dict[str, Any]]) -> None:
    """The cookbook's sum: for each 3, its role and its text, and 1 and its name if it has one."""
    counter = counter_for(model)
    total = counter.row(Example.model_validate({"messages": turns})).total
    texts = [text for turn in turns for text in turn.values()]
    names = sum("name" in turn for turn in turns)
    sum_of_parts = 3 * len(turns) + names
    sum_of_parts += sum(text_tokens(counter, text).expected for text in texts)

    assert Count(sum_of_parts, sum_of_parts, sum_of_parts + 3) == total


def test_prompt_ends_before_the_answer_and_opens_it() -> None:
    counter = counter_for("gpt-4o")
    whole, asked = counter.row(Example(messages=CHAT)), counter.row(Example(messages=CHAT[:2]))

    assert whole.prompt == asked.prompt
    assert Count.of(0) == asked.answer
    assert Count.of(count_tokens("o200k_base", "White.")) == whole.answer
    # The reply's 3 opening tokens are in a prompt; a training has its own turn in their place.
    assert whole.prompt.expected - 3 + 3 + 1 + whole.answer.expected == whole.total.expected


def test_expected_answer_counts_where_no_turn_has_it() -> None:
    counter = counter_for("gpt-4o")
    row = counter.row(Example(messages=CHAT[:2], expected="White as ever."))
    assert Count.of(count_tokens("o200k_base", "White as ever.")) == row.answer


@pytest.mark.parametrize("model", MODELS)
def test_preference_rows_have_both_answers_and_their_prompt_once_to_twice(model: str) -> None:
    counter = counter_for(model)
    worse = Message(role="assistant", content="It depends on the light.")
    better = Example(messages=CHAT)
    pair = better.model_copy(update={"non_preferred_output": (worse,)})
    once, both = counter.row(better), counter.row(pair)
    other = counter.row(Example(messages=(*CHAT[:2], worse)))
    asked = counter.row(Example(messages=CHAT[:2])).total

    assert (once.prompt, once.answer) == (both.prompt, both.answer)
    assert both.total.high >= once.total.high + other.total.high - 1
    expected = once.total.expected + other.total.expected - asked.expected
    assert abs(expected - both.total.expected) <= 1


def test_tools_and_their_calls_are_ranges_up_to_their_json() -> None:
    counter = counter_for("gpt-4o")
    plain = counter.row(Example(messages=CHAT))
    turns = (
        *CHAT[:2],
        Message(role="assistant", tool_calls=(CALL,)),
        Message(role="tool", tool_call_id="call_1", content="bright"),
        CHAT[2],
    )
    row = counter.row(Example(messages=turns, tools=(LOOK,)))

    assert plain.prompt.exact
    assert row.prompt.low < row.prompt.expected < row.prompt.high
    as_json = sum(text_tokens(counter, json.dumps(each)).expected for each in (CALL, LOOK))
    assert row.prompt.high <= row.prompt.low + as_json + text_tokens(counter, "call_1").expected


def test_nested_parameters_of_a_tool_count() -> None:
    counter = counter_for("gpt-4o")
    inner = {"type": "object", "properties": {"when": {"type": "string", "enum": ["now", 5]}}}
    flat = {"type": "object", "properties": {"at": {"type": "object"}}}
    deep = {"type": "object", "properties": {"at": {"type": "array", "items": inner}}}
    counts = [
        counter.row(
            Example(messages=CHAT, tools=({"function": {"name": "f", "parameters": schema}},))
        ).prompt.expected
        for schema in (flat, deep)
    ]
    assert counts[0] < counts[1]


@pytest.mark.parametrize(
    "tool", [{}, {"function": "look"}, {"function": {"parameters": {"properties": {"x": 1}}}}]
)
def test_tools_of_any_shape_count(tool: dict[str, Any]) -> None:
    turn = Message(role="assistant", tool_calls=(tool,))
    for model in MODELS:
        row = counter_for(model).row(Example(messages=(*CHAT[:2], turn), tools=(tool,)))
        assert is_range(row.total)
