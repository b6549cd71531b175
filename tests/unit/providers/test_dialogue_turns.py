"""The second turn of a dialogue in each vendor's form, as its own SDK's types have it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue, TypeAdapter

pytest.importorskip("google.genai", reason="needs the vendors' extras")

from anthropic.types import MessageParam
from botocore.session import Session
from botocore.validate import ParamValidator
from google.genai import types as gemini
from openai.types.chat import ChatCompletionMessageParam

from unitune.backends.kit.chat_completions import Dialect, read_reply
from unitune.data.example import Example, Message
from unitune.data.tools import Tools
from unitune.evaluate.documents.records import Record
from unitune.evaluate.inference.dialogues import Dialogues, collect_dialogues
from unitune.evaluate.inference.engine import InferenceOptions, Question
from unitune.evaluate.inference.journal import open_journal
from unitune.models import ChatModel, Reply, Request
from unitune.security.json_fields import Fields
from unitune_providers.anthropic import message_body
from unitune_providers.anthropic import read_answer as read_claude
from unitune_providers.bedrock.chat import converse_request
from unitune_providers.bedrock.chat import read_reply as read_bedrock
from unitune_providers.vertex.chat import read_answer as read_gemini
from unitune_providers.vertex.chat import request_body

CITIES = ("Ulm", "Zürich")
TOOL: dict[str, JsonValue] = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CASE = Example(messages=(Message(role="user", content="Weather?"),), tools=(TOOL,), id="a")


class Once(ChatModel):
    """Calls tools once and then answers."""

    fingerprint = "once"

    def __init__(self, first: Reply) -> None:
        self.replies, self.requests = [first, Reply(text="fine")], list[Request]()

    async def reply(self, request: Request) -> Reply:
        self.requests.append(request)
        return self.replies.pop(0)


def weather(city: str) -> dict[str, str]:
    if city == "Ulm":
        raise LookupError("closed")
    return {"sky": f"blue over {city}"}


def silent(done: int, total: int) -> None:
    """Show nothing."""


def second(first: Reply | None, folder: Path) -> tuple[Request, Record]:
    """Return the request after an answer that calls tools, and the dialogue's record."""
    assert first is not None
    assert first.error is None
    model = Once(first)
    question = Question("a", Request(messages=CASE.messages, tools=CASE.tools))
    dialogues = Dialogues(Tools({"weather": weather}, {}, "f"), 2)
    with open_journal(folder / "rows.jsonl") as journal:
        work = collect_dialogues(
            model,
            [question],
            journal,
            "c",
            silent,
            options=InferenceOptions(),
            dialogues=dialogues,
            rows=[CASE],
        )
        (record,) = asyncio.run(work)
    return model.requests[1], record


def test_openais_wire(tmp_path: Path) -> None:
    calls = [
        {
            "id": f"c{at}",
            "type": "function",
            "function": {"name": "weather", "arguments": json.dumps({"city": city})},
        }
        for at, city in enumerate(CITIES)
    ]
    signed = {**calls[1], "extra_content": {"google": {"thought_signature": "s=="}}}
    message = {"role": "assistant", "content": None, "tool_calls": [calls[0], signed]}
    answer = {"choices": [{"finish_reason": "tool_calls", "message": message}]}
    request, record = second(read_reply(answer, 1.0), tmp_path)
    turns: Any = Dialect().body("m", request)["messages"]
    for turn in turns:
        TypeAdapter(ChatCompletionMessageParam).validate_python(turn)
    assert turns[1]["tool_calls"] == [calls[0], signed], "Gemini's signature is sent back"
    assert [turn["tool_call_id"] for turn in turns[2:]] == ["c0", "c1"]
    assert json.loads(turns[2]["content"]) == {"error": "LookupError: closed"}
    assert record.trajectory is not None
    assert (record.text, record.trajectory.tool_errors) == ("fine", 1)


def test_claudes_wire(tmp_path: Path) -> None:
    blocks = [
        {"type": "tool_use", "id": f"t{at}", "name": "weather", "input": {"city": city}}
        for at, city in enumerate(CITIES)
    ]
    said = {"type": "text", "text": "Let me look."}
    answer: Any = {"content": [said, *blocks], "stop_reason": "tool_use"}
    request, _ = second(read_claude(Fields(answer)), tmp_path)
    turns: Any = message_body("m", request)["messages"]
    for turn in turns:
        TypeAdapter(MessageParam).validate_python(turn)
    assert turns[1] == {"role": "assistant", "content": [said, *blocks]}
    results = [block for turn in turns[2:] for block in turn["content"]]
    assert [(each["type"], each["tool_use_id"]) for each in results] == [
        ("tool_result", "t0"),
        ("tool_result", "t1"),
    ]


def test_bedrocks_wire(tmp_path: Path) -> None:
    uses = [
        {"toolUse": {"toolUseId": f"t{at}", "name": "weather", "input": {"city": city}}}
        for at, city in enumerate(CITIES)
    ]
    answer: Any = {"output": {"message": {"content": uses}}, "stopReason": "tool_use"}
    request, _ = second(read_bedrock(Fields(answer), 1.0), tmp_path)
    body = converse_request("amazon.nova-lite-v1:0", request)
    model = Session().get_service_model("bedrock-runtime").operation_model("Converse")
    assert model.input_shape is not None
    report = ParamValidator().validate(body, model.input_shape)
    assert not report.has_errors(), report.generate_report()
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][1]["content"] == uses
    ids = [block["toolResult"]["toolUseId"] for block in body["messages"][2]["content"]]
    assert ids == ["t0", "t1"]


@pytest.mark.parametrize("with_id", [True, False])
def test_geminis_wire(tmp_path: Path, *, with_id: bool) -> None:
    """Its first parallel call has the signature of its reasoning, which must be sent back."""
    calls: list[dict[str, Any]] = [
        {**({"id": f"g{at}"} if with_id else {}), "name": "weather", "args": {"city": city}}
        for at, city in enumerate(CITIES)
    ]
    parts = [{"functionCall": calls[0], "thoughtSignature": "c2ln"}, {"functionCall": calls[1]}]
    thought = {"text": "The user wants…", "thought": True}
    content = {"role": "model", "parts": [thought, *parts]}
    answer: Any = {"candidates": [{"content": content, "finishReason": "STOP"}]}
    request, _ = second(read_gemini(Fields(answer)), tmp_path)
    contents: Any = request_body(request, None)["contents"]
    for each in contents:
        gemini.Content.model_validate(each)
    assert [each["role"] for each in contents] == ["user", "model", "user"]
    sent = contents[1]["parts"]
    assert [part.get("thoughtSignature") for part in sent] == ["c2ln", None]
    assert [part["functionCall"]["args"] for part in sent] == [each["args"] for each in calls]
    names = [part["functionResponse"]["name"] for part in contents[2]["parts"]]
    assert names == ["weather", "weather"]
    ids = [part["functionResponse"]["id"] for part in contents[2]["parts"]]
    assert ids == [part["functionCall"]["id"] for part in sent]
    assert len(set(ids)) == 2
