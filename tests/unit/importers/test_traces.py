"""Traces of four tools, recorded by the tools themselves, become the same rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import Command

from unitune.errors import DataError, UserError
from unitune.importers.traces.calls import Call, Exports, Score, read_traces
from unitune.importers.traces.messages import Unusable, answer_of, prompt_of
from unitune.importers.traces.rows import TraceRows, rows_of
from unitune.job.job import Job

MADE = Path(__file__).parent / "made" / "traces"
EXPORTS = {
    "otel": ("otel.jsonl",),
    "phoenix": ("phoenix.jsonl", "phoenix-ratings.jsonl"),
    "phoenix-rest": ("phoenix-rest.json", "phoenix-ratings.jsonl"),
    "langfuse": ("langfuse.jsonl", "langfuse-scores.json"),
    "langsmith": ("langsmith.jsonl", "langsmith-feedback.jsonl"),
}
HELLO = {"role": "user", "content": "Hello"}


def made(name: str) -> TraceRows:
    return rows_of(read_traces([MADE / file for file in EXPORTS[name]]))


def spoken(rows: TraceRows) -> list[list[tuple[str, str]]]:
    return sorted([(turn.role, turn.text) for turn in row.messages] for row in rows.train)


@pytest.mark.parametrize("name", EXPORTS)
def test_every_tool_gives_one_row_for_each_conversation(name: str) -> None:
    rows = made(name)

    assert rows.counts == {"calls": 16, "continued by a later call": 4, "rated bad": 2}
    assert (len(rows.train), len(rows.test)) == (8, 2)
    assert spoken(rows) == spoken(made("otel"))
    (order,) = [row for row in rows.train + rows.test if "A17" in row.messages[1].text]
    assert [turn.role for turn in order.messages] == [
        *("system", "user", "assistant", "tool", "assistant", "user", "assistant")
    ]
    assert order.messages[2].tool_calls is not None
    (call,) = order.messages[2].tool_calls
    assert call["function"] == {"name": "order_status", "arguments": '{"id": "A17"}'}
    assert order.messages[3].tool_call_id == call["id"] == "call_A17"
    assert '"name":"order_status"' in order.line


@pytest.mark.parametrize("name", EXPORTS)
def test_feedback_gives_ratings_and_pairs_outside_the_test(name: str) -> None:
    rows = made(name)

    bad = [row.messages[-1].text for row in rows.ratings if row.kto_tag is False]
    assert sorted(bad) == ["No idea.", "Only new ones."]
    (pair,) = rows.pairs
    assert pair.messages[-1].text == "Yes, in five days."
    assert pair.non_preferred_output is not None
    assert pair.non_preferred_output[0].text == "No idea."
    tested = {(row.model_extra or {})["session"] for row in rows.test}
    others = {(row.model_extra or {})["session"] for row in rows.train + rows.ratings + rows.pairs}
    assert not tested & others


def test_phoenix_writes_otlp_in_snake_case() -> None:
    assert len(read_traces([MADE / "phoenix-otlp.json"]).calls) == 16


def test_langfuse_exports_observations_of_its_documented_fields(tmp_path: Path) -> None:
    """Fields: https://langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields."""
    observation = {
        "id": "o1",
        "trace_id": "t1",
        "type": "GENERATION",
        "start_time": "2026-11-30 10:00:00.000000",
        "session_id": "s1",
        "input": json.dumps({"messages": [HELLO]}),
        "output": json.dumps({"role": "assistant", "content": "Good day"}),
    }
    span = observation | {"id": "o0", "type": "SPAN", "output": "Good day"}
    score = {"id": "x", "trace_id": "t1", "observation_id": "o1", "name": "thumbs"}
    score |= {"value": None, "string_value": "up", "data_type": "CATEGORICAL"}
    file = tmp_path / "export.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in (span, observation, score)))

    found = read_traces([file])

    (call,) = found.calls
    assert (call.conversation, call.prompt, call.answer["content"]) == ("s1", [HELLO], "Good day")
    assert found.scores == [Score("thumbs", "up", "o1")]


def test_attributes_of_openllmetry_are_messages(tmp_path: Path) -> None:
    told = {
        "gen_ai.prompt.0.role": "user",
        "gen_ai.prompt.0.content": "Hello",
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.content": "Good day",
        "llm.request.type": "chat",
    }
    (call,) = read_traces([_otlp(tmp_path, told)]).calls
    assert (call.prompt, call.answer["content"]) == ([HELLO], "Good day")


def test_instructions_and_reasoning_of_genai_conventions(tmp_path: Path) -> None:
    answer = [{"type": "reasoning", "content": "Greet."}, {"type": "text", "content": "Good day"}]
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be kind."}]),
        "gen_ai.input.messages": json.dumps(
            [{"role": "user", "parts": [{"type": "text", "content": "Hello"}]}]
        ),
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": answer}]),
    }
    (call,) = read_traces([_otlp(tmp_path, told)]).calls
    assert call.prompt == [{"role": "system", "content": "Be kind."}, HELLO]
    assert call.answer["reasoning_content"] == "Greet."


def test_calls_that_no_row_can_hold_are_counted(tmp_path: Path) -> None:
    image = [{"role": "user", "parts": [{"type": "blob", "content": "aGk="}]}]
    answer = json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": "A cat"}]}])
    told = {"gen_ai.input.messages": json.dumps(image), "gen_ai.output.messages": answer}
    with pytest.raises(DataError, match=r"1 times?, a message has a part of type 'blob'"):
        read_traces([_otlp(tmp_path, told)])


def test_calls_without_an_id_are_counted_and_replace_no_other(tmp_path: Path) -> None:
    said = {"role": "assistant", "content": "Good day"}
    nameless = {"traceId": "t", "type": "GENERATION", "startTime": "1", "input": [HELLO]}
    lines = [nameless | {"output": said, "id": None}] * 2 + [nameless | {"output": said, "id": "o"}]
    file = tmp_path / "export.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_traces([file])
    assert [call.call_id for call in found.calls] == ["o"]
    assert found.unusable == {"without an id": 2}


def test_langchain_messages_are_read() -> None:
    lc = {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "AIMessage"]}
    called = {"name": "find", "args": {"a": 1}, "id": "c1", "type": "tool_call"}
    said: Any = lc | {"kwargs": {"content": "", "type": "ai", "tool_calls": [called]}}
    heard: Any = lc | {"kwargs": {"content": "Hello", "type": "human"}}

    assert prompt_of({"messages": [[heard]]}) == [HELLO]
    answer = answer_of({"generations": [[{"text": "", "message": said}]]})
    assert answer is not None
    function = {"name": "find", "arguments": '{"a": 1}'}
    assert answer["tool_calls"] == [{"id": "c1", "type": "function", "function": function}]


def test_a_bad_turn_within_a_conversation_is_not_trained_on() -> None:
    calls = [
        _call("1", [HELLO], "What?"),
        _call("2", [HELLO, _said("What?"), HELLO], "Good day"),
    ]
    (row,) = rows_of(Exports(calls, [Score("ok", value=False, about="1")])).train
    assert [turn.weight for turn in row.messages] == [None, 0, None, None]


def test_near_duplicates_keep_a_good_answer() -> None:
    asked = {"role": "user", "content": "How do I return the shoes that I bought last week?"}
    again = {"role": "user", "content": "how do I return the shoes, that I bought last week"}
    calls = [
        _call("1", [asked], "In the shop.", conversation="a"),
        _call("2", [again], "By post.", conversation="b"),
    ]
    rows = rows_of(Exports(calls, [Score("ok", value=True, about="1")]))
    assert rows.counts["near duplicates"] == 1
    assert [row.messages[-1].text for row in rows.train] == ["In the shop."]


@pytest.mark.parametrize(
    ("values", "good", "bad"),
    [
        ((0, 1), None, [0]),
        ((-1, 1), None, [-1]),
        ((1, 3, 5), "4", [1, 3]),
        (("up", "down"), "up", ["down"]),
    ],
)
def test_the_scale_of_scores_decides_which_are_good(
    values: tuple[float | str, ...], good: str | None, bad: list[float | str]
) -> None:
    calls = [_call(str(at), [HELLO], f"a{at}") for at in range(len(values))]
    scores = [Score("stars", value, str(at)) for at, value in enumerate(values)]
    rated = rows_of(Exports(calls, scores), good=good).ratings
    assert [values[int(row.case_id)] for row in rated if not row.kto_tag] == bad


@pytest.mark.parametrize("values", [(1, 5), ("up", "down")])
def test_an_unclear_scale_is_an_error_that_lists_its_values(
    values: tuple[float | str, ...],
) -> None:
    calls = [_call(str(at), [HELLO], f"a{at}") for at in range(2)]
    scores = [Score("stars", value, str(at)) for at, value in enumerate(values)]
    with pytest.raises(UserError, match=f"{values[0]}.*--good VALUE"):
        rows_of(Exports(calls, scores))


def test_several_names_of_scores_need_a_choice() -> None:
    scores = [Score("a", 1, "1"), Score("b", 0, "1")]
    with pytest.raises(UserError, match="named a and b"):
        rows_of(Exports([_call("1", [HELLO], "Hi")], scores))
    assert rows_of(Exports([_call("1", [HELLO], "Hi")], scores), "a").feedback == "a"


def test_the_command_writes_a_job_that_passes_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unitune: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    files = [str(MADE / file) for file in EXPORTS["phoenix"]]
    outcome = unitune("import", "traces", *files, "--output", "shop")
    assert outcome.code == 0
    assert "8 to train on, 2 to test on" in outcome.out
    assert "12 rated answers, 1 pair" in outcome.out
    job = Job.load(Path("shop/unitune.yaml"))
    assert job.evaluate.clusters == "session"
    plan = unitune("plan", "shop/unitune.yaml")
    assert "template of" in plan.out, "not the whole template"
    assert {file.name for file in Path("shop").iterdir()} == {
        *("train.jsonl", "test.jsonl", "ratings.jsonl", "pairs.jsonl", "unitune.yaml")
    }


def test_a_row_with_a_key_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unitune: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    key = "sk-proj-" + "aB3dE5gH7jK9mN1pQ3sT" * 4
    text = (MADE / "langsmith.jsonl").read_text().replace("only unworn ones.", key)
    Path("runs.jsonl").write_text(text)
    outcome = unitune("import", "traces", "runs.jsonl")
    assert "with a secret              1" in outcome.out
    assert not any(key in file.read_text() for file in (Path("train.jsonl"), Path("test.jsonl")))


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "parts", "type", "messages", "kwargs", "tool_calls"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=9,
)


@given(value=json_values)
def test_any_recorded_value_gives_messages_or_a_reason(value: Any) -> None:
    for read in (prompt_of, answer_of):
        with suppress(Unusable):
            read(value)


def _said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _call(
    name: str, prompt: list[dict[str, Any]], answer: str, conversation: str | None = None
) -> Call:
    return Call(
        call_id=name,
        conversation=conversation or f"t{name}",
        above=(f"t{name}",),
        start=name,
        prompt=prompt,
        answer=_said(answer),
        tools=(),
        model="",
    )


def _otlp(folder: Path, attributes: Mapping[str, str]) -> Path:
    """Write one span with attributes as OTLP JSON."""
    told = [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]
    span = {"traceId": "t", "spanId": "s", "startTimeUnixNano": "1", "attributes": told}
    file = folder / "spans.json"
    file.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}))
    return file
