"""Anthropic's count of tokens through the real SDK: what is sent, and how it fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("anthropic", reason="needs the extra `anthropic`")

from anthropic.types import MessageCountTokensParams, MessageTokensCount
from pydantic import TypeAdapter
from support.impatient import served_anthropic
from vendors.anthropic import AnthropicVendor

from unitune.data.example import Message
from unitune.errors import BackendError, Unreachable, Unsupported
from unitune.models import Request, TunedModel
from unitune.testing.contract import LONG, SHORT
from unitune.testing.loopback import Fault, Server
from unitune.testing.vendor_setup import ServerBehavior
from unitune.workspace.user_settings import current
from unitune_providers.anthropic import AnthropicBackend

MODEL = "claude-sonnet-5-5"
COUNT = ("POST", r"/v1/messages/count_tokens$")
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with served_anthropic(AnthropicVendor(ServerBehavior()), monkeypatch) as server:
        current().backends.clear()
        yield server
        current().backends.clear()


def test_system_prompt_turns_and_tools_are_sent_in_the_sdks_own_types(server: Server) -> None:
    AnthropicBackend().count_tokens(MODEL, LONG.model_copy(update={"tools": (WEATHER,)}))

    (asked,) = server.received(*COUNT)
    TypeAdapter(MessageCountTokensParams).validate_python(asked.json)
    assert set(asked.json) == {"model", "system", "messages", "tools"}
    assert asked.json["system"] == "Say one word."


def test_answer_has_the_sdks_own_type(server: Server) -> None:
    AnthropicBackend().count_tokens(MODEL, SHORT)
    (asked,) = server.received(*COUNT)

    told = TypeAdapter(MessageTokensCount).validate_json(server.vendor.answer(asked).body)
    assert not told.model_extra


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Fault.RATE_LIMITED, BackendError, "rate limit reached (HTTP 429)"),
        (Fault.SERVER_ERROR, BackendError, "internal error (HTTP 500)"),
        (Fault.EXPIRED_KEY, BackendError, "Check the key in ANTHROPIC_API_KEY"),
        (Fault.SILENCE, Unreachable, "no complete answer"),
        (Fault.CUT, Unreachable, "no complete answer"),
    ],
)
def test_failure_is_an_error_of_ours_and_the_next_count_is_right(
    server: Server, fault: Fault, kind: type[Exception], words: str
) -> None:
    server.inject_fault(fault, *COUNT)
    with pytest.raises(kind) as caught:
        AnthropicBackend().count_tokens(MODEL, SHORT)

    assert words in str(caught.value)
    assert f"count tokens for {MODEL}" in str(caught.value)
    assert AnthropicBackend().count_tokens(MODEL, SHORT) > 0


def test_what_cannot_be_asked_is_not_counted(server: Server) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{"}}
    broken = Request(messages=(Message(role="assistant", tool_calls=(call,)),))
    tuned = TunedModel(backend="anthropic", name="tuned", base=MODEL)

    with pytest.raises(Unsupported, match="cannot accept this request"):
        AnthropicBackend().count_tokens(MODEL, broken)
    with pytest.raises(Unsupported, match="no tuning API"):
        AnthropicBackend().count_tokens(tuned, SHORT)
    assert server.requests == []
