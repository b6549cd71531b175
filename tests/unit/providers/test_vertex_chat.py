"""Asking Gemini: as it was trained, thinking little, and every failure a reply."""

from __future__ import annotations

import json
from collections.abc import Generator

import pytest
from google.genai import types
from pydantic import JsonValue
from support.impatient import served_vertex
from vendors.vertex.vendor import VertexVendor

from unitune.data.example import Example, Message
from unitune.errors import UserError
from unitune.models import ChatModel, Reply, Request, TunedModel
from unitune.security.json_fields import Fields
from unitune.testing.contract_base import reply_once
from unitune.testing.loopback import Server, VendorResponse
from unitune.testing.vendor_setup import ServerBehavior
from unitune_providers.formats.vertex import SFT
from unitune_providers.vertex.backend import VertexBackend
from unitune_providers.vertex.chat import least_thinking, read_answer

PLACE = "projects/my-project/locations/us-central1"
GENERATE = ("POST", ":generateContent$")
QUESTION = Message(role="user", content="What is the colour of snow?")
BASE = "gemini-3.5-flash"


@pytest.fixture
def vendor() -> VertexVendor:
    return VertexVendor(ServerBehavior(replies={"What is the colour of snow?": "white as ever"}))


@pytest.fixture
def server(vendor: VertexVendor, monkeypatch: pytest.MonkeyPatch) -> Generator[Server]:
    with served_vertex(vendor, monkeypatch) as served:
        yield served


@pytest.fixture
def tuned(server: Server, vendor: VertexVendor) -> Generator[ChatModel]:
    assert server.vendor is vendor
    _, (endpoint,) = vendor.add_model(PLACE, None, 1)
    return VertexBackend().chat(TunedModel(backend="vertex", name=endpoint, base=BASE))


def ask(chat: ChatModel, *messages: Message, **changes: object) -> Reply:
    request = Request(messages=messages or (QUESTION,)).model_copy(update=changes)
    return reply_once(chat, request)


def test_answer_comes_with_its_tokens_and_time(tuned: ChatModel) -> None:
    reply = ask(tuned)
    assert (reply.text, reply.finish_reason, reply.error) == ("white as ever", "stop", None)
    assert (reply.prompt_tokens, reply.completion_tokens) == (7, 3)
    assert reply.seconds is not None
    assert reply.seconds > 0


def test_answer_that_is_too_long_says_so(tuned: ChatModel) -> None:
    reply = ask(tuned, max_tokens=2)
    assert (reply.text, reply.finish_reason) == ("white as", "length")


def test_question_is_written_as_the_training_rows_are(tuned: ChatModel, server: Server) -> None:
    turns = (
        Message(role="system", content="Say one word."),
        Message(role="user", content="Coal?"),
        Message(role="assistant", content="black", weight=0),
        QUESTION,
    )
    assert ask(tuned, *turns).error is None
    trained = (*turns[:2], Message(role="assistant", content="black"), QUESTION)
    row = SFT.encode(Example(messages=(*trained, Message(role="assistant", content="white"))))
    (request,) = server.received(*GENERATE)
    assert types.Content.model_validate(row["systemInstruction"]) == types.Content.model_validate(
        request.json["systemInstruction"]
    )
    assert isinstance(row["contents"], list)
    assert [types.Content.model_validate(turn) for turn in row["contents"][:-1]] == [
        types.Content.model_validate(turn) for turn in request.json["contents"]
    ]


def test_sampling_is_as_asked(tuned: ChatModel, server: Server) -> None:
    ask(tuned, temperature=0.5, seed=7, stop=("\n",), max_tokens=9)
    sent = server.received(*GENERATE)[0].json["generationConfig"]
    settings = types.GenerationConfig.model_validate(sent)
    assert (
        settings.temperature,
        settings.seed,
        settings.stop_sequences,
        settings.max_output_tokens,
    ) == (0.5, 7, ["\n"], 9)


def test_tools_are_declared(tuned: ChatModel, server: Server) -> None:
    function: dict[str, JsonValue] = {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    }
    assert ask(tuned, tools=({"type": "function", "function": function},)).error is None
    (tool,) = server.received(*GENERATE)[0].json["tools"]
    assert tool["functionDeclarations"][0]["name"] == "look_up"


def test_credentials_that_end_during_a_comparison_are_a_reply_with_an_error(
    tuned: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(credentials: object) -> str:
        raise UserError(f"Sign in again. ({type(credentials).__name__})")

    monkeypatch.setattr("unitune_providers.vertex.cloud.token_of", refuse)
    assert "Sign in again" in (ask(tuned).error or "")


def test_what_rows_cannot_carry_is_a_reply_with_an_error(tuned: ChatModel) -> None:
    reply = ask(tuned, Message(role="user", name="anna", content="Hello?"))
    assert "anna" in (reply.error or "")


def test_untuned_models_can_be_asked_in_another_location(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_VERTEX_BASE_LOCATION", "global")
    chat = VertexBackend().chat(BASE)
    assert ask(chat).error is None
    assert len(server.received("POST", "/locations/global/publishers/google/models/")) == 1


@pytest.mark.parametrize(
    ("base", "thinking"),
    [
        ("gemini-3.5-flash", {"thinkingLevel": "MINIMAL"}),
        ("publishers/google/models/gemini-3.1-flash-lite", {"thinkingLevel": "MINIMAL"}),
        ("gemini-3.1-pro-preview", {"thinkingLevel": "LOW"}),
        ("gemini-2.5-flash-lite", {"thinkingBudget": 0}),
    ],
)
def test_base_thinks_as_little_as_it_can(base: str, thinking: dict[str, JsonValue]) -> None:
    assert thinking == least_thinking(base)
    types.ThinkingConfig.model_validate(thinking)


def test_base_that_is_not_known_thinks_as_it_does_by_itself() -> None:
    assert least_thinking(f"{PLACE}/models/1@2") is None


def read(answer: types.GenerateContentResponse) -> Reply:
    """Return what is read of an answer as the SDK's types write it."""
    fields = Fields(json.loads(answer.model_dump_json(by_alias=True, exclude_none=True)))
    reply = read_answer(fields)
    assert reply is not None
    return reply


def test_thoughts_are_no_answer_but_are_paid_for() -> None:
    parts = [types.Part(text="hmm", thought=True), types.Part(text="white")]
    answer = types.GenerateContentResponse(
        candidates=[types.Candidate(content=types.Content(role="model", parts=parts))],
        usage_metadata=types.GenerateContentResponseUsageMetadata(
            candidates_token_count=1, thoughts_token_count=5
        ),
    )
    reply = read(answer)
    assert (reply.text, reply.completion_tokens) == ("white", 6)


def test_a_blocked_question_is_an_empty_answer_as_a_blocked_answer_is() -> None:
    feedback = types.GenerateContentResponsePromptFeedback(
        block_reason=types.BlockedReason.PROHIBITED_CONTENT
    )
    reply = read(types.GenerateContentResponse(prompt_feedback=feedback))
    assert (reply.text, reply.finish_reason, reply.error) == ("", "content_filter", None)


def test_unknown_counts_stay_unknown() -> None:
    answer = types.GenerateContentResponse(candidates=[types.Candidate()])
    assert (read(answer).prompt_tokens, None) == (None, None)
    assert read(answer).completion_tokens is None


def test_server_that_speaks_no_json_is_a_reply_with_an_error(
    tuned: ChatModel, vendor: VertexVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor, "answer", lambda _: VendorResponse(b"<html>proxy</html>"))
    assert "no complete answer" in (ask(tuned).error or "")
