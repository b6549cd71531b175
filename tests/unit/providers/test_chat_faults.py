"""Requests to models at every hosted vendor: a failure is a reply, and many run at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

pytest.importorskip("google.auth", reason="needs the vendors' extras")
pytest.importorskip("boto3", reason="needs the vendors' extras")

from vendors.serving import ANTHROPIC, VENDORS

from unitune.backends import registry
from unitune.models import Reply
from unitune.testing.contract_base import QUESTION, reply_once
from unitune.testing.loopback import OF_VENDORS, Fault, Server
from unitune.testing.vendor_setup import serve_vendor

SETUPS = {**VENDORS, "anthropic": ANTHROPIC}
# Path of a request to a model, if it is not that of chat completions
PATHS = {"anthropic": "/v1/messages$", "bedrock": "/converse$", "vertex": ":generateContent$"}
STATUSES = {
    Fault.RATE_LIMITED: 429,
    Fault.SERVER_ERROR: 500,
    Fault.ERROR_AFTER: 500,
    Fault.EXPIRED_KEY: 401,
}
Served = tuple[str, Server, str]


@pytest.fixture(params=sorted(SETUPS))
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    """A vendor by name, its server, and the name of a model there."""
    with serve_vendor(SETUPS[request.param]) as vendor:
        yield request.param, vendor.server, vendor.setup.model


@pytest.mark.parametrize("fault", sorted(OF_VENDORS))
def test_a_request_that_fails_is_an_error_in_its_reply(
    served: Served, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """It is sent once, as callers retry it, and the next one is answered in another event loop."""
    monkeypatch.setattr("unitune.backends.kit.chat.ANSWER_SECONDS", 0.6)
    monkeypatch.setattr("unitune_providers.bedrock.clients.ANSWER_SECONDS", 0.6)
    name, server, model = served
    chat = registry.backend(name).chat(model)
    path = PATHS.get(name, "/chat/completions$")
    server.inject_fault(fault, "POST", path)
    failed, answered = reply_once(chat), reply_once(chat)

    assert (failed.text, failed.finish_reason) == ("", "error")
    status = STATUSES.get(fault)
    assert (f"HTTP {status}" if status else "no complete answer") in (failed.error or "")
    assert (failed.status, failed.retryable) == (status, fault is not Fault.EXPIRED_KEY)
    assert failed.retry_after_seconds == (1.0 if fault is Fault.RATE_LIMITED else None)
    assert (answered.error, bool(answered.text)) == (None, True)
    assert len(server.received("POST", path)) == 2


def test_many_requests_run_at_once(served: Served) -> None:
    name, _, model = served
    chat = registry.backend(name).chat(model)

    async def all_at_once() -> list[Reply]:
        async with chat:
            return await asyncio.gather(*(chat.reply(QUESTION) for _ in range(40)))

    assert [reply.error for reply in asyncio.run(all_at_once())] == [None] * 40
