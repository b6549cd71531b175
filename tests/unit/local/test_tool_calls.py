"""Calls of tools in answers of local models, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="needs the extra `dev`")

import openai
from support.tiny_model import save_tiny_model
from unit.local.serving import NAME, Served, served

from unitune.data.example import Message
from unitune.models import Request
from unitune_local.inference.answers import Ending
from unitune_local.inference.structured import call_begins, read_calls

pytestmark = pytest.mark.anyio  # asynchronous tests
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
# As Qwen2.5 writes them: https://qwen.readthedocs.io/en/latest/framework/function_call.html
TWO = (
    'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
)
# As Llama 3.1 does: https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1/
LLAMA = '{"name": "weather", "parameters": {"city": "Ulm"}}'
TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def functions(calls: Any) -> list[Any]:
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


def test_calls_are_read_as_models_write_them() -> None:
    two = read_calls(TWO, [WEATHER])
    assert two.text == "Let me see."
    assert functions(two.calls) == [("weather", {"city": "Ulm"}), ("weather", {"city": "Köln"})]
    assert len({call["id"] for call in two.calls}) == 2
    llama = read_calls(LLAMA, [WEATHER])
    assert (llama.text, functions(llama.calls)) == ("", [("weather", {"city": "Ulm"})])


@pytest.mark.parametrize(
    "text",
    [
        "It is warm.",
        '{"name": "other", "arguments": {}}',
        '{"name": "weather", "arguments": [1]}',
        '{"city": "Ulm"}',
        "[]",
        "<tool_call>{broken</tool_call>",
        "<tool_call>" + LLAMA,  # cut off
        TWO + "<tool_call>{}</tool_call>",
    ],
)
def test_anything_else_is_text(text: str) -> None:
    said = read_calls(text, [WEATHER])
    assert (text, ()) == (said.text, said.calls)
    assert text == read_calls(text, ()).text


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("a < b", 5),
        ("a b<", 3),
        ("a b <tool", 3),
        ("a b\n<tool_call>{", 3),
        (' {"', 0),
        ("a {", 3),
    ],
)
def test_what_may_become_a_call_is_held_back(text: str, sent: int) -> None:
    assert sent == call_begins(text)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = save_tiny_model(tmp_path / "tools")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture
async def place(model: Path) -> AsyncIterator[Served]:
    async with served(model) as place:
        yield place


@pytest.fixture(params=[TWO, LLAMA, "It is <tool_call> what?"])
def text(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the model says, seven letters a token."""
    said: str = request.param
    monkeypatch.setattr(Ending, "text", lambda _, ids: said[: 7 * len(ids)])
    return said


async def test_a_client_gets_calls_whole_and_streamed(place: Served, text: str) -> None:
    expected = read_calls(text, [WEATHER])
    options = {"tools": [WEATHER], "max_tokens": 40}
    whole = (await place.create("Weather in Ulm and Köln?", **options)).choices[0]
    calls = [call.model_dump() for call in whole.message.tool_calls or ()]
    assert expected.text == (whole.message.content or "")
    assert functions(expected.calls) == functions(calls)
    assert ("tool_calls" if expected.calls else "length") == whole.finish_reason
    parts = [part async for part in await place.create("Weather?", stream=True, **options)]
    deltas = [part.choices[0].delta for part in parts]
    assert expected.text == "".join(delta.content or "" for delta in deltas)
    calls = [call.model_dump() for delta in deltas for call in delta.tool_calls or ()]
    assert functions(expected.calls) == functions(calls)
    assert list(range(len(calls))) == [call["index"] for call in calls]
    assert whole.finish_reason == parts[-1].choices[0].finish_reason
    reply = await place.engine.reply(
        Request(
            messages=(Message(role="user", content="Weather?"),),
            tools=(WEATHER,),
            max_tokens=40,
        )
    )
    assert expected.text == reply.text
    assert functions(expected.calls) == functions(reply.tool_calls or ())


async def test_tools_stand_in_the_prompt_unless_none_may_be_called(place: Served) -> None:
    bare = await place.create("hello")
    with_tools = await place.create("hello", tools=[WEATHER])
    forbidden = await place.create("hello", tools=[WEATHER], tool_choice="none")
    assert bare.usage.prompt_tokens == forbidden.usage.prompt_tokens
    more = len(json.dumps(WEATHER))
    assert bare.usage.prompt_tokens + more <= with_tools.usage.prompt_tokens


async def test_results_of_tools_are_sent_back(place: Served) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    turns: list[Any] = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    answer = await place.client.chat.completions.create(
        model=NAME, messages=turns, tools=[WEATHER], max_tokens=2
    )
    assert answer.choices
    with pytest.raises(openai.BadRequestError):
        await place.create("x", tools=[WEATHER], tool_choice="required")
