"""Batches of questions to Claude through the real SDK: handed in once, found again, read whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("anthropic", reason="needs the extra `anthropic`")

from anthropic.pagination import SyncPage
from anthropic.types import MessageParam, ToolParam
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse
from pydantic import TypeAdapter
from support.impatient import served_anthropic
from unit.providers.test_anthropic import CALL, NEW, OLD, WEATHER
from unit.providers.test_anthropic import DIALOGUE as TURNS
from vendors.anthropic import AnthropicVendor
from vendors.serving import ANTHROPIC

from unitune.backends.capabilities import Batches, BatchStatus
from unitune.backends.exactly_once import batch_key
from unitune.data.example import Message
from unitune.errors import BackendError, Unreachable, Unsupported
from unitune.models import Reply, Request, TunedModel
from unitune.testing.contract import CapabilityContract
from unitune.testing.contract_base import reply_once
from unitune.testing.contract_malformed import MalformedReplyContract
from unitune.testing.loopback import OF_VENDORS, Fault, Server, VendorRequest, VendorResponse
from unitune.testing.vendor_setup import ServerBehavior
from unitune_providers import anthropic as batches
from unitune_providers.anthropic import AnthropicBackend

CREATE = ("POST", r"/v1/messages/batches$")
DIALOGUE = Request(messages=TURNS, tools=(WEATHER,), stop=("END",), max_tokens=9)


def asking(text: str) -> Request:
    return Request(messages=(Message(role="user", content=text),))


ASKED = {"k-1-0": DIALOGUE, "k-1-1": asking("How to harm?"), "k-1-2": asking("Late?")}


@pytest.fixture
def vendor() -> AnthropicVendor:
    return AnthropicVendor(
        ServerBehavior(replies={"So?": "Yes."}),
        refused=frozenset({"How to harm?"}),
        expires=frozenset({"Late?"}),
    )


@pytest.fixture
def server(vendor: AnthropicVendor, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with served_anthropic(vendor, monkeypatch, attempts=2) as server:
        yield server


@pytest.fixture
def backend(server: Server) -> AnthropicBackend:
    assert server.requests == []
    return AnthropicBackend()


def follow(backend: AnthropicBackend, batch_id: str) -> BatchStatus:
    status = backend.poll_batch(batch_id)
    while status.state == "running":
        status = backend.poll_batch(batch_id)
    return status


def chatted(request: Request, model: str = OLD) -> Reply:
    chat = AnthropicBackend().chat(model)
    return reply_once(chat, request)


def submit(backend: AnthropicBackend, key: str = "k-1") -> str:
    return backend.submit_batch(key, OLD, {f"{key}-0": asking("So?")})


# Round trips


def test_requests_come_back_by_their_ids_with_those_that_failed(
    backend: AnthropicBackend, server: Server
) -> None:
    assert isinstance(backend, Batches)
    batch_id = backend.submit_batch("k-1", OLD, ASKED)
    assert BatchStatus("running", "in_progress") == backend.poll_batch(batch_id)
    assert BatchStatus("ended", "ended", done=3) == follow(backend, batch_id)
    replies = backend.fetch_batch(batch_id)

    assert set(ASKED) == set(replies)
    assert (
        replies["k-1-0"].text,
        replies["k-1-0"].finish_reason,
        replies["k-1-0"].error,
    ) == ("Yes.", "stop", None)
    assert (
        replies["k-1-1"].text,
        replies["k-1-1"].finish_reason,
    ) == ("It is against the rules.", "refusal")
    assert replies["k-1-2"].finish_reason == "error"
    assert "within the 24 hours" in (replies["k-1-2"].error or "")
    assert "without --batch" in (replies["k-1-2"].error or "")
    assert len(server.received(*CREATE)) == 1


@pytest.mark.parametrize("model", [OLD, NEW])
def test_a_batch_says_what_chat_says_and_asks_as_chat_asks(
    backend: AnthropicBackend, server: Server, model: str
) -> None:
    requests = {"k-1-0": DIALOGUE, "k-1-1": asking("How to harm?"), "k-1-2": asking("What?")}
    batch_id = backend.submit_batch("k-1", model, requests)
    follow(backend, batch_id)
    batched = backend.fetch_batch(batch_id)

    (created,) = server.received(*CREATE)
    sent = {entry["custom_id"]: entry["params"] for entry in created.json["requests"]}
    for name, request in requests.items():
        reply = chatted(request, model)
        # What a batch was sent without, its results do not show.
        assert replace(reply, seconds=None, left_out=()) == batched[name]
        assert server.received("POST", "/v1/messages$")[-1].json == sent[name]
    assert (model == OLD) is ("temperature" in sent["k-1-0"])


def test_a_failed_request_says_why_and_what_to_do(
    backend: AnthropicBackend, vendor: AnthropicVendor
) -> None:
    batch_id = submit(backend)
    vendor.batches[batch_id].requests.append(
        {"custom_id": "k-1-1", "params": {**vendor.batches[batch_id].requests[0]["params"]}}
    )
    vendor.batches[batch_id].requests[1]["params"]["model"] = "gpt-6"
    follow(backend, batch_id)
    replies = backend.fetch_batch(batch_id)

    assert replies["k-1-0"].text == "Yes."
    expected = "anthropic could not answer: model: gpt-6 [not_found_error] (HTTP 404). Check"
    assert (replies["k-1-1"].error or "").startswith(expected)


def test_a_cancelled_batch_ends_and_says_so_of_each_request(backend: AnthropicBackend) -> None:
    batch_id = submit(backend)
    backend.cancel_batch(batch_id)
    assert BatchStatus("running", "canceling") == backend.poll_batch(batch_id)
    follow(backend, batch_id)
    assert "was cancelled before" in (backend.fetch_batch(batch_id)["k-1-0"].error or "")


# States


def test_a_new_word_for_a_state_is_running_and_kept(
    backend: AnthropicBackend, vendor: AnthropicVendor
) -> None:
    batch_id = submit(backend)
    vendor.behavior.state = "warming_up"
    assert BatchStatus("running", "warming_up") == backend.poll_batch(batch_id)


def test_answers_that_are_gone_are_a_failure_that_says_what_to_do(
    backend: AnthropicBackend, vendor: AnthropicVendor
) -> None:
    batch_id = submit(backend)
    follow(backend, batch_id)
    vendor.batches[batch_id].archived = True
    status = backend.poll_batch(batch_id)
    assert status.state == "failed"
    assert "29 days" in (status.error or "")
    with pytest.raises(BackendError, match="29 days"):
        backend.fetch_batch(batch_id)


def test_a_kind_of_result_that_is_not_known_is_an_error_in_the_reply(
    backend: AnthropicBackend, vendor: AnthropicVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = submit(backend)
    monkeypatch.setattr(vendor, "_result", lambda *_: {"type": "postponed"})
    vendor.batches[batch_id].looks = 9
    assert "'postponed'" in (backend.fetch_batch(batch_id)["k-1-0"].error or "")


# Creating


def test_an_answer_without_an_id_is_no_clear_answer(
    backend: AnthropicBackend, vendor: AnthropicVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor, "create_batch", lambda _: {"type": "message_batch"})
    with pytest.raises(Unreachable, match="without the field"):
        submit(backend)


@pytest.mark.parametrize("fault", sorted(OF_VENDORS - {Fault.RATE_LIMITED}))
def test_a_fault_before_the_create_call_does_not_leave_open_whether_there_is_a_batch(
    backend: AnthropicBackend, server: Server, fault: Fault
) -> None:
    server.inject_fault(fault, "POST", "/v1/messages$", times=2)
    with pytest.raises(BackendError) as raised:
        submit(backend)
    assert not raised.value.is_ambiguous
    assert (fault is Fault.EXPIRED_KEY) is ("No batch was submitted" not in str(raised.value))
    assert server.received(*CREATE) == []


def test_a_model_that_is_not_there_is_told_before_anything_is_handed_in(
    backend: AnthropicBackend, server: Server
) -> None:
    with pytest.raises(BackendError, match="Check the model's name"):
        backend.submit_batch("k-1", "gpt-6", ASKED)
    assert server.received(*CREATE) == []


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ({"a b": asking("So?")}, "'a b' is invalid; use 1 to 64 letters"),
        ({"k" * 65: asking("So?")}, "1 to 64"),
        (
            {
                "k-1-7": Request(
                    messages=(
                        Message(
                            role="assistant",
                            tool_calls=({**CALL, "function": {"name": "a", "arguments": "{"}},),
                        ),
                    )
                )
            },
            "cannot accept request k-1-7",
        ),
    ],
)
def test_a_request_that_cannot_be_asked_is_named_and_nothing_is_sent(
    backend: AnthropicBackend, server: Server, requests: dict[str, Request], message: str
) -> None:
    with pytest.raises(Unsupported, match=message):
        backend.submit_batch("k-1", OLD, requests)
    assert server.requests == []


def test_what_is_measured_is_no_less_than_what_is_sent(
    backend: AnthropicBackend, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.submit_batch("k-1", OLD, ASKED)
    (created,) = server.received(*CREATE)
    monkeypatch.setattr(batches, "BYTES_MOST", len(created.body) - 20)
    with pytest.raises(Unsupported):
        backend.submit_batch("k-1", OLD, ASKED)


def test_a_tuned_model_is_refused(backend: AnthropicBackend, server: Server) -> None:
    tuned = TunedModel(backend="anthropic", name="tuned", base=OLD)
    with pytest.raises(Unsupported, match="no tuning API"):
        backend.submit_batch("k-1", tuned, ASKED)
    assert server.requests == []


# Finding


def test_an_ended_batch_is_told_by_its_requests_from_any_other(
    backend: AnthropicBackend, vendor: AnthropicVendor
) -> None:
    since = time.time()
    vendor.behavior.queued_polls = 0
    mine, other = submit(backend, "k-1"), submit(backend, "k-1-2")
    for batch_id in (mine, other):
        follow(backend, batch_id)
    vendor.behavior.queued_polls = 9
    vendor.batches[mine].looks = vendor.batches[other].looks = 99
    submit(backend, "k-3")
    assert backend.find_batch("k-1", since) == [mine]
    assert backend.find_batch("k-1-2", since) == [other]


def test_batches_that_cannot_be_told_yet_are_all_returned_and_never_none(
    backend: AnthropicBackend, vendor: AnthropicVendor
) -> None:
    vendor.behavior.queued_polls = 9
    since = time.time()
    mine = submit(backend, "k-1")
    assert backend.find_batch("k-1", since) == [mine]
    other = submit(backend, "k-2")
    assert set(backend.find_batch("k-1", since)) == {mine, other}
    vendor.batches[other].looks = 99
    assert backend.find_batch("k-1", since) == [mine]
    vendor.batches[mine].looks = 99
    assert backend.find_batch("k-3", since) == []


def test_an_older_batch_is_not_ours(backend: AnthropicBackend, vendor: AnthropicVendor) -> None:
    old = submit(backend)
    vendor.batches[old].created -= 2 * batches.MARGIN_SECONDS
    assert backend.find_batch("k-1", time.time()) == []
    assert backend.find_batch("k-1", vendor.batches[old].created) == [old]


@pytest.mark.parametrize("ahead", [-3600, 3600])
def test_a_clock_that_is_wrong_by_an_hour_loses_nothing(
    backend: AnthropicBackend,
    vendor: AnthropicVendor,
    monkeypatch: pytest.MonkeyPatch,
    ahead: float,
) -> None:
    old, mine = submit(backend), submit(backend)
    vendor.batches[old].created -= 1800
    ours = SimpleNamespace(time=lambda: time.time() + ahead)
    monkeypatch.setattr("unitune_providers.anthropic.time", ours)
    assert backend.find_batch("k-1", ours.time()) == [mine]


# Watching and reading


def test_a_line_that_is_cut_is_no_answer(
    backend: AnthropicBackend, vendor: AnthropicVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = submit(backend)
    follow(backend, batch_id)
    line = b'{"custom_id": "k-1-0", "resu'
    monkeypatch.setattr(vendor, "batch_results", lambda *_, **__: line)
    with pytest.raises(Unreachable):
        backend.fetch_batch(batch_id)


# What every backend with batches must do


class TestAnthropicKeepsTheContract(CapabilityContract, MalformedReplyContract):
    name = "anthropic"
    setup = ANTHROPIC
    poll_seconds = 0.001
    timeout_seconds = 10.0

    def test_batch_is_found_by_its_key(self, batches: Batches) -> None:
        """Of batches that go on all are named, and once they have ended none but ours."""
        now = time.time()
        keys = [batch_key(now) for _ in range(3)]
        made = [self.submitted(batches, key)[0] for key in keys[:2]]
        assert [set(batches.find_batch(key, now)) for key in keys] == [set(made)] * 3
        for batch_id in made:
            self.followed(batches, batch_id)
        assert [batches.find_batch(key, now) for key in keys] == [[made[0]], [made[1]], []]


# The key, and the vendor's own types


def unknown(model: Any) -> list[str]:
    """Return what an answer holds that the SDK's types do not know, however deep."""
    if isinstance(model, list):
        return [name for item in model for name in unknown(item)]
    if not hasattr(model, "model_fields_set"):
        return []
    inner = [getattr(model, name) for name in type(model).model_fields]
    return [*(model.model_extra or {}), *(name for item in inner for name in unknown(item))]


def test_what_is_sent_and_answered_fits_the_sdks_own_types(
    backend: AnthropicBackend, server: Server, vendor: AnthropicVendor
) -> None:
    answers: list[tuple[VendorRequest, VendorResponse]] = []
    original = vendor.answer

    def record(request: VendorRequest) -> VendorResponse:
        answers.append((request, original(request)))
        return answers[-1][1]

    vendor.answer = record  # type: ignore[method-assign]
    batch_id = backend.submit_batch("k-1", NEW, ASKED)
    backend.find_batch("k-1", 0)
    backend.cancel_batch(submit(backend, "k-2"))
    follow(backend, batch_id)
    backend.fetch_batch(batch_id)

    (created, _) = server.received(*CREATE)
    for entry in created.json["requests"]:
        assert entry.keys() == {"custom_id", "params"}
        assert set() == entry["params"].keys() - set(
            MessageCreateParamsNonStreaming.__annotations__
        )
        for message in entry["params"]["messages"]:
            TypeAdapter(MessageParam).validate_python(message)
        for tool in entry["params"].get("tools", []):
            TypeAdapter(ToolParam).validate_python(tool)
    kinds = {"list": 0, "results": 0, "batch": 0}
    for request, answer in answers:
        if request.path.endswith("/results"):
            kinds["results"] += 1
            for line in answer.body.splitlines():
                response = TypeAdapter(MessageBatchIndividualResponse).validate_json(line)
                assert unknown(response) == []
        elif request.path.endswith("/batches") and request.method == "GET":
            kinds["list"] += 1
            page = TypeAdapter(SyncPage[MessageBatch]).validate_json(answer.body)
            assert [name for batch in page.data for name in unknown(batch)] == []
        elif "/batches" in request.path:
            kinds["batch"] += 1
            assert unknown(TypeAdapter(MessageBatch).validate_json(answer.body)) == []
    assert all(kinds.values()), kinds
