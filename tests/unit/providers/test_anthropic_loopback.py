"""The server that plays Anthropic cuts, and refuses, as Anthropic does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("anthropic", reason="needs the extra `anthropic`")

from anthropic import Anthropic, BadRequestError, NotFoundError
from vendors.anthropic import KEY, AnthropicVendor

from unitune.testing.loopback import serve
from unitune.testing.vendor_setup import ServerBehavior

MODEL = "claude-haiku-4-5"
TOOL = {"name": "weather", "input_schema": {"type": "object"}}


@pytest.fixture
def client() -> Iterator[Anthropic]:
    vendor = AnthropicVendor(ServerBehavior(otherwise="one two three four"))
    with serve(vendor) as server, Anthropic(api_key=KEY, base_url=server.url) as client:
        yield client


def ask(client: Anthropic, **settings: Any) -> Any:
    asked = {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "Why?"}]}
    return client.messages.create(**asked | settings)


def test_an_answer_is_cut_at_its_limit(client: Anthropic) -> None:
    cut, whole = ask(client, max_tokens=2), ask(client, tools=[TOOL])
    assert (
        cut.content[0].text,
        cut.stop_reason,
        cut.usage.output_tokens,
    ) == ("one two", "max_tokens", 2)
    assert (whole.content[0].text, whole.stop_reason) == ("one two three four", "end_turn")


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"extra_body": {"temperature": 2}},
        {"extra_body": {"temperature": -1}},
        {"tools": [{"name": "weather"}]},
        {"tools": [{**TOOL, "name": "two words"}]},
        {"tools": [{**TOOL, "input_schema": {"type": "string"}}]},
    ],
    ids=str,
)
def test_what_anthropic_refuses_is_refused(client: Anthropic, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match="invalid_request_error"):
        ask(client, **wrong)


def test_a_model_of_no_known_name_is_not_found(client: Anthropic) -> None:
    with pytest.raises(NotFoundError):
        ask(client, model="claude-of-nobody")
