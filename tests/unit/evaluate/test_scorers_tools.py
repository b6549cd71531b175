"""tool_calls: the expected calls, no more and no less, with the same arguments."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scoring import case

from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example
from unitune.errors import DataError
from unitune.evaluate.scoring.scorers import build, check_expected
from unitune.models import function_call
from unitune.scorers.interface import Attempt
from unitune.scorers.json_text import ToolCalls

PLAY = function_call("play", {"artist": "Abba", "minutes": 20}, "call_1")
STOP = function_call("stop", {}, "call_2")


def expecting(*calls: dict[str, Any]) -> Example:
    last = {"role": "assistant", "content": None, "tool_calls": list(calls)}
    if not calls:
        last = {"role": "assistant", "content": "I cannot do that."}
    return case(None, messages=[{"role": "user", "content": "q"}, last])


def right(spec: ToolCalls, expected: Example, *given_: dict[str, Any]) -> float:
    return build(spec).score(Attempt(expected, "some text beside", given_)).value


def test_ids_key_order_and_the_way_of_writing_numbers_do_not_matter() -> None:
    other = function_call("play", '{"minutes": 20.0, "artist": "Abba"}', "another_id")
    assert right(ToolCalls(), expecting(PLAY), other) == 1


@pytest.mark.parametrize(
    "calls",
    [
        (),
        (PLAY, PLAY),
        (STOP,),
        (function_call("play", {"artist": "Abba", "minutes": 21}),),
        (function_call("play", {"artist": "Abba"}),),
        (function_call("play", "{broken"),),
        (function_call("Play", {"artist": "Abba", "minutes": 20}),),
    ],
)
def test_another_call_is_wrong(calls: tuple[dict[str, Any], ...]) -> None:
    assert right(ToolCalls(), expecting(PLAY), *calls) == 0


def test_no_arguments_may_be_written_in_two_ways() -> None:
    assert right(ToolCalls(), expecting(STOP), function_call("stop", "")) == 1


def test_a_row_may_have_arguments_as_an_object() -> None:
    """So do rows for chat templates of Hugging Face."""
    wanted = {"function": {"name": "play", "arguments": {"artist": "Abba", "minutes": 20}}}
    assert right(ToolCalls(), expecting(wanted), PLAY) == 1
    score = build(ToolCalls()).score(Attempt(expecting(wanted), "", ()))
    assert (score.value, score.reason) == (0, "called nothing")


def test_names_alone_may_count() -> None:
    other = function_call("play", "{broken")
    assert right(ToolCalls(arguments=False), expecting(PLAY), other) == 1


def test_where_no_call_is_expected_none_is_right() -> None:
    assert right(ToolCalls(), expecting()) == 1
    assert right(ToolCalls(), expecting(), STOP) == 0


@given(st.permutations([PLAY, PLAY, STOP]))
def test_order_counts_only_where_it_is_wished(calls: list[dict[str, Any]]) -> None:
    expected = expecting(PLAY, PLAY, STOP)
    assert right(ToolCalls(), expected, *calls) == 1
    assert (calls == [PLAY, PLAY, STOP]) == right(ToolCalls(ordered=True), expected, *calls)


def test_a_multiset_is_compared_and_not_a_set() -> None:
    for calls in permutations([PLAY, STOP, STOP]):
        assert right(ToolCalls(), expecting(PLAY, PLAY, STOP), *calls) == 0


def test_expected_arguments_that_are_not_json_are_refused() -> None:
    row = Row(7, expecting(function_call("play", "{broken")))
    with pytest.raises(DataError, match=r"test\.jsonl:7: the arguments of the expected call"):
        check_expected([build(ToolCalls())], Dataset("test.jsonl", (row,)))


def test_a_wrong_answer_says_what_it_called() -> None:
    found = build(ToolCalls()).score(Attempt(expecting(PLAY), "", (STOP,)))
    assert "stop({})" in found.reason


def test_a_call_is_written_as_openai_writes_it() -> None:
    assert {
        "id": "call_1",
        "type": "function",
        "function": {
            "name": "play",
            "arguments": json.dumps({"artist": "Abba", "minutes": 20}),
        },
    } == PLAY
