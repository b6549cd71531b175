"""Claude answers as a baseline or judge through the real SDK, and refuses to be tuned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytest.importorskip("anthropic", reason="needs the extra `anthropic`")

import anthropic
from support.impatient import served_anthropic
from vendors.anthropic import KEY, AnthropicVendor

from unitune.backends.protocol import Launch, Upload
from unitune.data.example import Message
from unitune.errors import Unsupported, UserError
from unitune.job.job import Data, Job
from unitune.models import Reply, Request, TunedModel
from unitune.testing.contract_base import reply_once
from unitune.testing.loopback import Server, VendorRequest, VendorResponse, serve
from unitune.testing.vendor_setup import ServerBehavior
from unitune_providers.anthropic import AnthropicBackend

NEW, OLD = "claude-sonnet-5-5", "claude-haiku-4-5"
CALL: dict[str, Any] = {
    "id": "call-1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"place": "Bonn"}'},
}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells it.", "parameters": {"type": "object"}},
}
DIALOGUE = (
    Message(role="system", content="Be brief."),
    Message(role="developer", content="Be kind."),
    Message(role="user", content="Is it wet?"),
    Message(role="assistant", content="I look.", tool_calls=(CALL,)),
    Message(role="tool", tool_call_id="call-1", content="rain"),
    Message(role="user", content="So?"),
)


@pytest.fixture
def vendor() -> AnthropicVendor:
    return AnthropicVendor(
        ServerBehavior(replies={"So?": "Yes."}), refused=frozenset({"How to harm?"})
    )


@pytest.fixture
def server(vendor: AnthropicVendor, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with served_anthropic(vendor, monkeypatch) as server:
        yield server


def ask(request: Request | str, model: str = OLD) -> Reply:
    if isinstance(request, str):
        request = Request(messages=(Message(role="user", content=request),))
    chat = AnthropicBackend().chat(model)
    return reply_once(chat, request)


@pytest.mark.usefixtures("server")
def test_a_question_is_answered_with_its_tokens_and_time() -> None:
    reply = ask("So?")

    assert (reply.text, reply.finish_reason, reply.error) == ("Yes.", "stop", None)
    assert reply.completion_tokens == 1
    assert (reply.prompt_tokens or 0) > 0
    assert AnthropicBackend().chat(OLD).fingerprint == f"anthropic:{OLD}"
    assert (reply.seconds or 0) > 0


def test_a_dialogue_with_tools_is_written_in_anthropics_form(server: Server) -> None:
    request = Request(messages=DIALOGUE, tools=(WEATHER,), stop=("END",), max_tokens=9)
    assert ask(request).text == "Yes."

    (asked,) = server.received("POST", "/v1/messages$")
    assert asked.json == {
        "model": OLD,
        "max_tokens": 9,
        "temperature": 0.0,
        "system": "Be brief.\n\nBe kind.",
        "stop_sequences": ["END"],
        "tools": [
            {"name": "weather", "description": "Tells it.", "input_schema": {"type": "object"}}
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Is it wet?"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "I look."},
                    {
                        "type": "tool_use",
                        "id": "call-1",
                        "name": "weather",
                        "input": {"place": "Bonn"},
                    },
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "call-1", "content": "rain"}],
            },
            {"role": "user", "content": [{"type": "text", "text": "So?"}]},
        ],
    }


def test_what_is_not_asked_for_is_left_out(server: Server) -> None:
    ask("So?")

    (asked,) = server.received("POST", "/v1/messages$")
    assert set(asked.json) == {"model", "max_tokens", "messages", "temperature"}


def test_a_model_without_temperature_is_asked_again_without_it_and_remembered(
    server: Server,
) -> None:
    chat = AnthropicBackend().chat(NEW)
    request = Request(messages=(Message(role="user", content="So?"),))
    replies = [reply_once(chat, request) for _ in range(2)]

    assert [reply.text for reply in replies] == ["Yes.", "Yes."]
    sent = ["temperature" in one.json for one in server.received("POST", "/v1/messages$")]
    assert sent == [True, False, False]


@pytest.mark.usefixtures("server")
def test_a_refusal_is_an_answer_with_its_reason() -> None:
    reply = ask("How to harm?")

    assert (
        reply.text,
        reply.finish_reason,
        reply.error,
    ) == ("It is against the rules.", "refusal", None)


class Cutting:
    """A vendor that thinks, and answers in the middle of a word."""

    said: ClassVar[dict[str, Any]] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": OLD,
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "x"},
            {"type": "text", "text": "Y"},
        ],
        "stop_reason": "max_tokens",
        "stop_sequence": None,
        "usage": {"input_tokens": 2, "output_tokens": 3, "cache_read_input_tokens": 5},
    }

    def answer(self, asked: VendorRequest) -> VendorResponse:
        assert asked.body
        return VendorResponse(self.said)


@pytest.mark.usefixtures("server")
def test_thoughts_are_no_answer_and_cached_tokens_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serve(Cutting()) as cutting:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", cutting.url)
        reply = ask("So?")

    assert (
        reply.text,
        reply.finish_reason,
        reply.prompt_tokens,
        reply.completion_tokens,
    ) == ("Y", "length", 7, 3)


def test_no_request_left_is_told_beside_the_answer(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = server.vendor.answer
    soon = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def last_one(asked: VendorRequest) -> VendorResponse:
        left = {"limit": "50", "remaining": "0", "reset": soon}
        headers = {f"anthropic-ratelimit-requests-{name}": text for name, text in left.items()}
        return replace(answer(asked), headers=headers)

    monkeypatch.setattr(server.vendor, "answer", last_one)
    reply = ask("So?")
    assert reply.text == "Yes."
    assert (reply.retry_after_seconds or 0) > 1


@pytest.mark.usefixtures("server")
def test_a_model_that_is_not_there_is_an_error_in_the_reply() -> None:
    assert "HTTP 404" in (ask("So?", "gpt-6").error or "")


@pytest.mark.usefixtures("server")
def test_a_tool_call_that_is_no_json_is_an_error_in_the_reply() -> None:
    call = {**CALL, "function": {"name": "weather", "arguments": "{"}}
    turn = Message(role="assistant", tool_calls=(call,))
    assert "cannot take this request" in (ask(Request(messages=(turn,))).error or "")


def test_a_key_is_taken_out_of_a_gateways_words(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"type": "error", "error": {"type": "permission_error", "message": f"no {KEY} here"}}
    monkeypatch.setattr(server.vendor, "answer", lambda _: VendorResponse(told, 403))
    reply = ask("So?")
    assert "no *** here (HTTP 403)" in (reply.error or "")


@pytest.mark.usefixtures("server")
def test_a_missing_key_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(UserError, match="variable ANTHROPIC_API_KEY"):
        AnthropicBackend().chat(OLD)


def launch() -> Launch:
    job = Job(name="x", model=OLD, backend="anthropic", data=Data(train="rows.jsonl"))
    return Launch("key", job, Upload("x", "0"), None, Path())


TUNED = TunedModel(backend="anthropic", name="tuned", base=OLD)


@pytest.mark.parametrize(
    "verb",
    [
        lambda backend: backend.upload(Path("rows.jsonl"), "0"),
        lambda backend: backend.submit(launch()),
        lambda backend: backend.find("key", Path()),
        lambda backend: backend.poll("job", ""),
        lambda backend: backend.cancel("job"),
        lambda backend: backend.chat(TUNED),
    ],
)
def test_every_verb_of_a_training_says_why_not_since_when_and_what_can(
    verb: Callable[[AnthropicBackend], object],
) -> None:
    with pytest.raises(Unsupported, match="no tuning API") as caught:
        verb(AnthropicBackend())
    for word in ("2026-11-24", "2026-09-10", "unitune plan", "baseline"):
        assert word in str(caught.value)


@pytest.mark.usefixtures("server")
def test_a_batch_is_created_ends_and_gives_its_results_through_the_sdk() -> None:
    with anthropic.Anthropic(max_retries=0) as client:
        params: Any = {"max_tokens": 3, "messages": [{"role": "user", "content": "So?"}]}
        batch = client.messages.batches.create(
            requests=[
                {"custom_id": "good", "params": {**params, "model": OLD}},
                {"custom_id": "bad", "params": {**params, "model": "gpt-6"}},
            ]
        )
        assert (batch.processing_status, batch.request_counts.processing) == ("in_progress", 2)
        while batch.processing_status != "ended":
            batch = client.messages.batches.retrieve(batch.id)
        results = {one.custom_id: one.result for one in client.messages.batches.results(batch.id)}

        assert (batch.request_counts.succeeded, batch.request_counts.errored) == (1, 1)
        assert {name: result.type for name, result in results.items()} == {
            "good": "succeeded",
            "bad": "errored",
        }
        stopped = client.messages.batches.create(
            requests=[{"custom_id": "late", "params": {**params, "model": OLD}}]
        )
        assert client.messages.batches.cancel(stopped.id).processing_status == "canceling"
        with pytest.raises(anthropic.BadRequestError):
            client.messages.batches.create(requests=[{"custom_id": "a b", "params": params}])
        with pytest.raises(anthropic.NotFoundError):
            client.messages.batches.retrieve("msgbatch_none")


@pytest.mark.usefixtures("server")
def test_another_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-somebody-else")
    reply = ask("So?")

    assert "invalid x-api-key (HTTP 401). Check the key in ANTHROPIC_API_KEY." in (
        reply.error or ""
    )
    assert "somebody" not in (reply.error or "")
