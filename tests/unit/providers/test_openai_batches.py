"""Batches at OpenAI: handed in once, found again, answered as chat answers; and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import openai
import pytest
from openai import OpenAI
from openai.types import Batch
from unit.providers.openai_spec import (
    DESCRIPTION,
    MODEL,
    Stage,
    description,
    on_stage,
    problems,
    problems_of,
)
from vendors.openai.vendor import KEY, OpenAIVendor

from unitune.backends.capabilities import BatchStatus
from unitune.data.example import Message
from unitune.errors import BackendError
from unitune.models import Reply, Request, TunedModel
from unitune.security.json_fields import Fields
from unitune.testing.loopback import Fault, VendorRequest, VendorResponse
from unitune.testing.vendor_setup import ServerBehavior
from unitune_providers.openai import batches as openai_batches

BATCH_KEY = "b0123456789abcdef-1"
CREATE = "/batches$"
WORDS = {
    "Colour of snow?": "white as can be",
    "Colour of grass?": "green\u2028as ever",
    "Colour of money?": "I would rather not say",
}


def asking(question: str, **settings: Any) -> Request:
    return Request(messages=(Message(role="user", content=question),), **settings)


GOOD = asking("Colour of snow?", temperature=0.5, seed=3, stop=("\n",), max_tokens=9)
BAD = asking("Colour of rain?", temperature=3.0)  # the vendor takes 0 to 2
REQUESTS = {
    f"{BATCH_KEY}-1": GOOD,
    f"{BATCH_KEY}-2": asking("Colour of grass?\u2028", max_tokens=1),
    f"{BATCH_KEY}-3": BAD,
    f"{BATCH_KEY}-4": asking("Colour of the sea?"),
}


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr("unitune.backends.kit.api.TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr("unitune.backends.kit.api.UPLOAD_SECONDS", 1.0)
    monkeypatch.setattr("unitune.backends.retry.sleep", lambda _: None)
    behavior = ServerBehavior(steps=4, replies=dict(WORDS))
    with on_stage(tmp_path, monkeypatch, OpenAIVendor(behavior)) as stage:
        yield stage


@pytest.fixture
def tuned(stage: Stage) -> TunedModel:
    model = stage.follow(stage.submit())[-1].model
    assert model is not None
    return model


def submit(stage: Stage, model: str | TunedModel = MODEL, key: str = BATCH_KEY) -> str:
    numbered = enumerate(REQUESTS.values(), 1)
    return stage.backend.submit_batch(
        key, model, {f"{key}-{n}": request for n, request in numbered}
    )


def follow(stage: Stage, batch_id: str) -> list[BatchStatus]:
    """Poll a batch until it has ended."""
    statuses = [stage.backend.poll_batch(batch_id)]
    while statuses[-1].state == "running":
        assert len(statuses) < 20, statuses[-1]
        statuses.append(stage.backend.poll_batch(batch_id))
    return statuses


def find(stage: Stage, key: str = BATCH_KEY, since: float | None = None) -> list[str]:
    return stage.backend.find_batch(key, time.time() if since is None else since)


def sent_lines(stage: Stage) -> list[dict[str, Any]]:
    """Return the lines of the last file of requests."""
    files = [file for file in stage.vendor.files.values() if file.purpose == "batch"]
    return [json.loads(line) for line in files[-1].content.splitlines()]


def sent_files(stage: Stage) -> list[str]:
    stored = stage.vendor.files.values()
    return [file.name for file in stored if file.purpose == "batch"]


def one_by_one(stage: Stage, model: str | TunedModel) -> list[Reply]:
    """Ask all requests over chat."""
    chat = stage.backend.chat(model)

    async def ask() -> list[Reply]:
        async with chat:
            return [await chat.reply(request) for request in REQUESTS.values()]

    # Of a request in a batch neither time nor status nor limit is known.
    untold = {"seconds": None, "status": None, "max_tokens": None}
    return [replace(reply, **untold) for reply in asyncio.run(ask())]


# What is sent, and what comes back


def test_batch_is_handed_in_polled_and_fetched(stage: Stage, tuned: TunedModel) -> None:
    batch_id = submit(stage, tuned)
    assert follow(stage, batch_id) == [
        BatchStatus("running", "validating", 0),
        BatchStatus("running", "in_progress", 0),
        BatchStatus("running", "in_progress", 2),
        BatchStatus("ended", "completed", 4),
    ]
    replies = stage.backend.fetch_batch(batch_id)
    assert [replies[name].text for name in REQUESTS] == [
        "white as can be",
        "I",
        "",
        "I do not know.",
    ]
    assert [name for name in REQUESTS if replies[name].error] == [f"{BATCH_KEY}-3"]
    assert find(stage) == [batch_id]


def test_answers_of_a_batch_are_those_of_chat(stage: Stage, tuned: TunedModel) -> None:
    """Also where they are cut, refused, or not given at all."""
    stage.vendor.finishes = {"Colour of the sea?": "refusal"}
    batch_id = submit(stage, tuned)
    follow(stage, batch_id)
    replies = stage.backend.fetch_batch(batch_id)
    assert one_by_one(stage, tuned) == [replies[name] for name in REQUESTS]
    assert {reply.finish_reason for reply in replies.values()} == {
        "stop",
        "error",
        "refusal",
        "length",
    }


def test_requests_of_a_batch_are_those_of_chat(stage: Stage) -> None:
    submit(stage)
    before = len(stage.server.received("POST", "/chat/completions$"))
    one_by_one(stage, MODEL)
    bodies = [request.json for request in stage.server.received("POST", "/chat/completions$")]
    assert bodies[before:] == [line["body"] for line in sent_lines(stage)]
    assert list(REQUESTS) == [line["custom_id"] for line in sent_lines(stage)]


def test_batch_carries_its_key_and_its_file_does_too(stage: Stage) -> None:
    submit(stage)
    (file,) = [file for file in stage.vendor.files.values() if file.purpose == "batch"]
    assert stage.server.received("POST", CREATE)[-1].json == {
        "input_file_id": file.id,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"unitune": BATCH_KEY},
    }
    assert file.name.startswith(f"unitune-{BATCH_KEY}-")
    assert {line["method"] for line in sent_lines(stage)} == {"POST"}


def test_character_that_some_take_for_a_line_end_is_none(stage: Stage, tuned: TunedModel) -> None:
    """The file that comes back is split at line feeds alone, and ours has none of the others."""
    batch_id = stage.backend.submit_batch(
        BATCH_KEY, tuned, {f"{BATCH_KEY}-1": asking("Colour of grass?")}
    )
    follow(stage, batch_id)
    (reply,) = stage.backend.fetch_batch(batch_id).values()
    assert reply.text == "green\u2028as ever"


# Handed in once


@pytest.mark.parametrize("path", ["/files$", CREATE])
@pytest.mark.parametrize("fault", [Fault.ERROR_AFTER, Fault.CUT])
def test_second_try_sends_no_second_file(stage: Stage, fault: Fault, path: str) -> None:
    stage.server.inject_fault(fault, "POST", path)
    with pytest.raises(BackendError):
        submit(stage)
    submit(stage)
    assert len(sent_files(stage)) == 1


def test_other_requests_under_the_same_key_are_another_file(stage: Stage) -> None:
    submit(stage)
    stage.backend.submit_batch(BATCH_KEY, MODEL, {f"{BATCH_KEY}-1": GOOD})
    assert len(set(sent_files(stage))) == 2


def test_list_is_read_until_it_is_older_than_the_announcement(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitune_providers.openai.wire.Server.page", 2)
    for number in range(12):
        submit(stage, key=f"b0123456789abcdef-{number}")
    for batch in list(stage.vendor.batches.values())[:10]:
        batch.progress.created -= 2 * openai_batches.CLOCK_SECONDS
    assert list(stage.vendor.batches)[-2:-1] == find(stage, "b0123456789abcdef-10")
    assert find(stage, "b0123456789abcdef-0") == []
    assert len(stage.server.received("GET", CREATE)) == 2 * 2  # of six pages two, each time


def test_old_batch_that_a_page_shows_first_hides_none(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitune_providers.openai.wire.Server.page", 2)
    stage.vendor.behavior.lists_repeat = True
    old = submit(stage, key="b0123456789abcdef-0")
    stage.vendor.batches[old].progress.created -= 2 * openai_batches.CLOCK_SECONDS
    wanted = submit(stage)
    for _ in range(2):
        assert find(stage) == [wanted]


def test_vendors_clock_may_be_behind(stage: Stage) -> None:
    batch_id = submit(stage)
    stage.vendor.batches[batch_id].progress.created -= openai_batches.CLOCK_SECONDS / 2
    assert find(stage) == [batch_id]


# How it stands


def test_every_state_of_the_vendor_has_a_word_of_ours() -> None:
    statuses = set(get_args(Batch.model_fields["status"].annotation))
    assert statuses == set(openai_batches.STATES)


@pytest.mark.parametrize("word", ["validating", "in_progress", "finalizing", "brand_new"])
def test_batch_at_work_is_running_whatever_the_word(stage: Stage, word: str) -> None:
    batch_id = submit(stage)
    stage.vendor.behavior.state = word
    status = stage.backend.poll_batch(batch_id)
    assert ("running", word, None) == (status.state, status.raw, status.error)


def test_batch_that_fails_says_why(stage: Stage) -> None:
    batch_id = submit(stage, "gpt-none")
    status = follow(stage, batch_id)[-1]
    assert (status.state, status.raw) == ("failed", "failed")
    assert status.error == "line 1: The model 'gpt-none' was not found. [model_not_found]"


def test_batch_that_fails_without_a_reason_says_that(stage: Stage) -> None:
    stage.vendor.behavior.fails = "it is late"
    batch_id = submit(stage)
    assert follow(stage, batch_id)[-1].error == "it is late [server_error]"
    fields = Fields({"status": "failed", "errors": None})
    assert openai_batches._why(fields) == openai_batches.NO_REASON


def test_reason_of_a_failed_batch_has_no_key(stage: Stage) -> None:
    stage.vendor.behavior.fails = f"Not with {KEY}!"
    assert "Not with ***!" in str(follow(stage, submit(stage))[-1].error)


def test_batch_that_expires_has_answers_and_says_what_to_do(
    stage: Stage, tuned: TunedModel
) -> None:
    stage.vendor.batch_answers = 1
    batch_id = submit(stage, tuned)
    status = follow(stage, batch_id)[-1]
    assert (status.state, status.raw) == ("ended", "expired")
    replies = stage.backend.fetch_batch(batch_id)
    assert replies[f"{BATCH_KEY}-1"].text == "white as can be"
    message = (
        f"openai could not answer as {tuned.name}: This request could not be executed before the "
        "completion window expired [batch_expired]. Send it again, or run without --batch."
    )
    assert [replies[f"{BATCH_KEY}-{number}"].error for number in (2, 3, 4)] == [message] * 3


def test_batch_that_is_cancelled_keeps_what_was_answered(stage: Stage) -> None:
    batch_id = submit(stage)
    assert [stage.backend.poll_batch(batch_id).raw for _ in range(2)] == [
        "validating",
        "in_progress",
    ]
    stage.backend.cancel_batch(batch_id)
    assert stage.vendor.batches[batch_id].status(stage.vendor.behavior) == "cancelling"
    assert BatchStatus("ended", "cancelled", 2) == follow(stage, batch_id)[-1]
    assert set(stage.backend.fetch_batch(batch_id)) == {f"{BATCH_KEY}-1", f"{BATCH_KEY}-2"}


def test_batch_that_is_being_cancelled_is_running(stage: Stage) -> None:
    batch_id = submit(stage)
    stage.vendor.behavior.state = "cancelling"
    assert stage.backend.poll_batch(batch_id).state == "running"
    stage.backend.cancel_batch(batch_id)
    assert stage.server.received("POST", "/cancel$") == []


@dataclass
class Late:
    """A vendor whose first look at a batch shows it at work, whatever it does."""

    vendor: OpenAIVendor
    shown: bool = False

    def answer(self, request: VendorRequest) -> VendorResponse:
        answer = self.vendor.answer(request)
        if request.method == "GET" and not self.shown and isinstance(answer.content, dict):
            self.shown = True
            return VendorResponse({**answer.content, "status": "in_progress"})
        return answer


def test_cancelling_what_ends_meanwhile_is_no_error(stage: Stage) -> None:
    batch_id = submit(stage)
    follow(stage, batch_id)
    stage.server.vendor = Late(stage.vendor)
    stage.backend.cancel_batch(batch_id)
    assert len(stage.server.received("POST", "/cancel$")) >= 1


@pytest.mark.parametrize("path", ["/batches/[^/]+$", "/files/[^/]+/content$"])
@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.SHORT])
def test_fetching_is_repeated(stage: Stage, path: str, fault: Fault) -> None:
    batch_id = submit(stage)
    follow(stage, batch_id)
    stage.server.inject_fault(fault, "GET", path)
    assert len(stage.backend.fetch_batch(batch_id)) == 4


def test_answers_that_the_vendor_has_dropped_are_an_error(stage: Stage) -> None:
    batch_id = submit(stage)
    follow(stage, batch_id)
    for file in [file for file in stage.vendor.files.values() if file.purpose != "batch"]:
        del stage.vendor.files[file.id]
    with pytest.raises(BackendError, match="after 30 days"):
        stage.backend.fetch_batch(batch_id)


@pytest.mark.parametrize("content", [b'{"custom_id": "a"', b"[]", b'{"response": null}'])
def test_answers_that_cannot_be_read_are_an_error(stage: Stage, content: bytes) -> None:
    batch_id = submit(stage)
    follow(stage, batch_id)
    put_answers(stage, batch_id, content)
    with pytest.raises(BackendError, match=r"could not read file|has no request id"):
        stage.backend.fetch_batch(batch_id)


def put_answers(stage: Stage, batch_id: str, content: bytes) -> None:
    """Let a batch that has ended have these answers alone."""
    name = stage.vendor.store_file("answers.jsonl", "batch_output", content)
    stage.vendor.batches[batch_id].files = {"output_file_id": name}


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ({"status_code": 200, "body": {}}, "the answer has no choices"),
        ({"status_code": 200, "body": None}, "the answer has no choices"),
        ({"status_code": 503, "body": "away"}, "no reason given (HTTP 503)."),
        (None, "no reason given."),
    ],
)
def test_answer_that_says_little_is_an_error_of_its_request(
    stage: Stage, response: object, message: str
) -> None:
    batch_id = submit(stage)
    follow(stage, batch_id)
    line = json.dumps({"custom_id": "a", "response": response, "error": None})
    put_answers(stage, batch_id, line.encode())
    reply = stage.backend.fetch_batch(batch_id)["a"]
    assert reply.error is not None
    assert reply.error.endswith(message)


# Limits


def test_as_much_as_one_batch_takes_is_taken(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_batches, "MOST_REQUESTS", len(REQUESTS))
    assert submit(stage) in stage.vendor.batches


@pytest.mark.skipif(not DESCRIPTION.exists(), reason="needs ../shared/specs/openai-openapi.json")
def test_limits_are_those_that_the_description_names() -> None:
    properties = description()["components"]["schemas"]["CreateBatchRequest"]["properties"]
    text = properties["input_file_id"]["description"]
    requests, megabytes = openai_batches.MOST_REQUESTS, openai_batches.MOST_BYTES // 10**6
    assert f"up to {requests:,} requests, and can be up to {megabytes} MB in size" in text


# The published description, and keys


@pytest.mark.skipif(not DESCRIPTION.exists(), reason="needs ../shared/specs/openai-openapi.json")
def test_every_exchange_keeps_to_the_published_description(stage: Stage) -> None:
    for model, answered in ((MODEL, None), ("gpt-none", None), (MODEL, 1)):
        stage.vendor.batch_answers = answered
        batch_id = submit(stage, model)
        follow(stage, batch_id)
        stage.backend.fetch_batch(batch_id)
        find(stage)
    stage.backend.cancel_batch(submit(stage))
    with pytest.raises(BackendError):
        stage.backend.poll_batch("batch_none")
    exchanges = stage.recorder.exchanges
    met = {(request.method, request.path.split("/")[2]) for request, _ in exchanges}
    both = {(method, what) for method in ("GET", "POST") for what in ("batches", "files")}
    assert met == {*both, ("POST", "chat")}
    wrong = {
        f"{request.method} {request.path}: {problem}"
        for request, answer in exchanges
        for problem in problems(request, answer)
    }
    assert set() == wrong


@pytest.mark.skipif(not DESCRIPTION.exists(), reason="needs ../shared/specs/openai-openapi.json")
def test_lines_hold_what_the_description_has_for_chat(stage: Stage) -> None:
    """The description has no schema of the lines themselves; their bodies are chat's."""
    batch_id = submit(stage)
    follow(stage, batch_id)
    stored = stage.vendor.files.values()
    responses = [
        json.loads(line)["response"]
        for file in stored
        if file.purpose == "batch_output"
        for line in file.content.splitlines()
    ]
    kinds = {200: "CreateChatCompletionResponse"}
    bodies = [line["body"] for line in sent_lines(stage) if line["body"]["temperature"] <= 2]
    wrong = [
        problem for body in bodies for problem in problems_of("CreateChatCompletionRequest", body)
    ]
    for response in responses:
        kind = kinds.get(response["status_code"], "ErrorResponse")
        wrong += problems_of(kind, response["body"])
    assert wrong == []
    assert sorted(response["status_code"] for response in responses) == [200, 200, 200, 400]


# The server that plays OpenAI


@pytest.fixture
def sdk(stage: Stage) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{stage.server.url}/v1", api_key=KEY, max_retries=0) as sdk:
        yield sdk


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"input_file_id": "file-none"}, "No file for batches"),
        ({"endpoint": "/v1/chat"}, "Invalid value: '/v1/chat'"),
        ({"completion_window": "1h"}, "supported is '24h'"),
        ({"metadata": {"k": "v" * 513}}, "Invalid metadata"),
        ({"extra_body": {"model": MODEL}}, "Unknown parameter: 'model'"),
    ],
)
def test_malformed_create_is_refused(
    stage: Stage, sdk: OpenAI, wrong: Mapping[str, Any], message: str
) -> None:
    submit(stage)
    right = stage.server.received("POST", CREATE)[-1].json
    with pytest.raises(openai.BadRequestError, match=message):
        sdk.batches.create(**{**right, **wrong})
    assert len(stage.vendor.batches) == 1


def test_file_of_another_purpose_is_refused(stage: Stage, sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="No file for batches"):
        sdk.batches.create(
            completion_window="24h",
            endpoint="/v1/chat/completions",
            input_file_id=stage.launch().training.ref,
        )
    with pytest.raises(openai.BadRequestError, match=r"must end in \.jsonl"):
        sdk.files.create(file=("requests.txt", b"{}"), purpose="batch")


LINE = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": MODEL, "messages": [{"role": "user", "content": "Why?"}]},
}


@pytest.mark.parametrize(
    ("lines", "code", "number"),
    [
        ([], "empty_file", None),
        ([LINE, "{"], "invalid_json_line", 2),
        ([LINE, []], "invalid_json_line", 2),
        ([LINE, LINE], "duplicate_custom_id", 2),
        ([{**LINE, "custom_id": 1}], "invalid_request", 1),
        ([{**LINE, "method": "GET"}], "invalid_request", 1),
        ([{**LINE, "url": "/v1/embeddings"}], "url_mismatch", 1),
        ([{**LINE, "body": {"model": "gpt-none"}}], "model_not_found", 1),
        (
            [LINE, {**LINE, "custom_id": "b", "body": {"model": "o4-mini-2025-04-16"}}],
            "model_mismatch",
            2,
        ),
    ],
)
def test_malformed_file_fails_the_batch(
    sdk: OpenAI, lines: list[Any], code: str, number: int | None
) -> None:
    content = "".join(
        (line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines
    )
    file = sdk.files.create(file=("a.jsonl", content.encode()), purpose="batch")
    batch = sdk.batches.create(
        completion_window="24h", endpoint="/v1/chat/completions", input_file_id=file.id
    )
    assert batch.status == "validating"
    batch = sdk.batches.retrieve(batch.id)
    assert batch.errors is not None
    assert [(batch.status, error.code, error.line) for error in batch.errors.data or []] == [
        ("failed", code, number)
    ]


def test_missing_part_of_a_line_fails_the_batch(stage: Stage, sdk: OpenAI) -> None:
    for name in LINE:
        line = {part: value for part, value in LINE.items() if part != name}
        file = sdk.files.create(file=("a.jsonl", json.dumps(line).encode()), purpose="batch")
        batch = sdk.batches.create(
            completion_window="24h", endpoint="/v1/chat/completions", input_file_id=file.id
        )
        error = follow(stage, batch.id)[-1].error
        assert error == f"line 1: Missing required parameter: '{name}'. [invalid_request]"


def test_batch_that_has_ended_cannot_be_cancelled_there(stage: Stage, sdk: OpenAI) -> None:
    batch_id = submit(stage)
    follow(stage, batch_id)
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
        sdk.batches.cancel(batch_id)
