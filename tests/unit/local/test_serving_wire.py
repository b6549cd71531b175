"""Whatever a body holds, it is a request or a refusal that says what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitune_local.serving.request import Piece
from unitune_local.serving.wire import IGNORED, ONLY, ChatRequest, Completion, ServerError

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    LEAVES | st.sampled_from(["user", "text", "auto", [], {}]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "function", "name", "tool_calls"])
            | st.text(max_size=5),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(sorted({*ChatRequest.model_fields, *IGNORED, *ONLY})) | st.text(max_size=5)


def read(**changes: Any) -> ChatRequest:
    return ChatRequest.read(json.dumps({**BODY, **changes}).encode())


def read_or_refuse(**changes: Any) -> ChatRequest | ServerError:
    try:
        return read(**changes)
    except ServerError as refused:
        return refused


@given(changes=st.dictionaries(NAMES, VALUES, max_size=3))
def test_a_body_is_read_or_refused(changes: dict[str, Any]) -> None:
    outcome = read_or_refuse(**changes)
    if isinstance(outcome, ChatRequest):
        assert 1 <= outcome.sampling(room=9).max_tokens <= 9
        return
    error: Any = outcome.body["error"]
    assert (outcome.status, error["type"]) == (400, "invalid_request_error")
    assert error["message"].endswith((".", "?"))


def test_what_changes_no_answer_is_taken() -> None:
    plain = read(seed=1)
    assert plain == read(seed=1, **dict.fromkeys(IGNORED, "x"), **ONLY)
    nulls = dict.fromkeys(ChatRequest.model_fields.keys() - BODY.keys() - {"seed"})
    assert plain == read(seed=1, **nulls)


def test_an_unnamed_temperature_is_greedy_and_an_unnamed_seed_is_new() -> None:
    first, second = (read().sampling(5) for _ in range(2))
    assert first.temperature == 0
    assert first.seed != second.seed


def test_answers_of_openai_are_taken_back_as_turns() -> None:
    """As its client dumps them: with fields that stand in no prompt."""
    said = {
        "role": "assistant",
        "content": "hi",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    assert read(messages=[*BODY["messages"], said]).messages[1].text == "hi"
    with pytest.raises(ServerError, match="refusal"):
        read(messages=[{**said, "refusal": "no"}])


def test_reasoning_is_taken_back_and_goes_out_with_the_answer() -> None:
    said = {"role": "assistant", "content": "hi", "reasoning_content": "because"}
    wanted = read(messages=[*BODY["messages"], said], stream=True)
    assert wanted.messages[1].reasoning_content == "because"
    piece = Piece("yes", finish_reason="stop", reasoning="because")
    completion = Completion("m", "fp", wanted, 1)
    assert completion.whole(piece)["choices"][0]["message"]["reasoning_content"] == "because"
    deltas = [chunk["choices"][0]["delta"] for chunk in completion.chunks(piece)]
    assert deltas == [{"reasoning_content": "because"}, {"content": "yes"}, {}]


def test_variables_of_the_chat_template_are_taken() -> None:
    assert read(chat_template_kwargs={"enable_thinking": False}).chat_template_kwargs == {
        "enable_thinking": False
    }
    with pytest.raises(ServerError, match="chat_template_kwargs"):
        read(chat_template_kwargs="x")
