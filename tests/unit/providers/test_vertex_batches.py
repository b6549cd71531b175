"""Batches of questions to Gemini through Google's SDKs: created once, found again, read whole."""

from __future__ import annotations

import inspect
import json
import re
import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest
from google.genai import batches as sdk
from google.genai import types
from support.impatient import served_vertex
from vendors.vertex.requests import camel
from vendors.vertex.vendor import BUCKET, VertexVendor

from unitune.backends.capabilities import Batches, BatchStatus
from unitune.data.example import Message
from unitune.errors import BackendError, Unsupported
from unitune.models import Reply, Request, TunedModel
from unitune.testing.contract_base import reply_once
from unitune.testing.loopback import Fault, Server, VendorRequest, VendorResponse
from unitune.testing.vendor_setup import ServerBehavior
from unitune_providers.vertex.backend import VertexBackend

PLACE = "projects/my-project/locations/us-central1"
BASE = "gemini-3.5-flash"
CREATE = ("POST", r"/batchPredictionJobs$")
LIST = ("GET", r"/batchPredictionJobs$")
ROWS = ("POST", r"/upload/storage/")
CALL: dict[str, Any] = {
    "id": "call-1",
    "type": "function",
    "function": {"name": "look_up", "arguments": '{"word": "snow"}'},
}
LOOK_UP: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    },
}
DIALOGUE = Request(
    messages=(
        Message(role="system", content="Say one word."),
        Message(role="user", content="What is snow?"),
        Message(role="assistant", content="", tool_calls=(CALL,)),
        Message(role="tool", tool_call_id="call-1", content="ice"),
        Message(role="user", content="Its colour?"),
    ),
    tools=(LOOK_UP,),
    stop=("\n",),
    max_tokens=2,
    temperature=0.5,
    seed=7,
)


def asking(text: str, role: str = "user") -> Request:
    return Request.model_validate({"messages": [{"role": role, "content": text}]})


ENDLESS = Request(
    messages=(Message(role="user", content="So?"), Message(role="assistant", content="So."))
)
"""Gemini refuses a question whose last turn is its own."""
ASKED = {"k-1-0": DIALOGUE, "k-1-1": ENDLESS, "k-1-2": asking("What is coal?")}


@pytest.fixture
def vendor() -> VertexVendor:
    return VertexVendor(
        ServerBehavior(replies={"Its colour?": "white as ever", "What is coal?": "black"})
    )


@pytest.fixture
def server(vendor: VertexVendor, monkeypatch: pytest.MonkeyPatch) -> Generator[Server]:
    monkeypatch.delenv("UNITUNE_VERTEX_BASE_LOCATION", raising=False)
    with served_vertex(vendor, monkeypatch) as served:
        yield served


@pytest.fixture
def backend(server: Server) -> VertexBackend:
    assert server.requests == []
    return VertexBackend()


@pytest.fixture
def tuned(server: Server, vendor: VertexVendor) -> TunedModel:
    assert server.vendor is vendor
    _, (endpoint,) = vendor.add_model(PLACE, None, 1)
    return TunedModel(backend="vertex", name=endpoint, base=BASE)


def submit(backend: VertexBackend, key: str = "k-1") -> str:
    return backend.submit_batch(key, BASE, {f"{key}-0": asking("What is coal?")})


def follow(backend: VertexBackend, batch_id: str) -> BatchStatus:
    status = backend.poll_batch(batch_id)
    while status.state == "running":
        status = backend.poll_batch(batch_id)
    return status


def chatted(backend: VertexBackend, model: str | TunedModel, request: Request) -> Reply:
    chat = backend.chat(model)
    return reply_once(chat, request)


# Round trips


def test_requests_come_back_by_their_ids_with_those_that_failed(
    backend: VertexBackend, server: Server, tuned: TunedModel
) -> None:
    assert isinstance(backend, Batches)
    batch_id = backend.submit_batch("k-1", tuned, ASKED)
    assert BatchStatus("running", "JOB_STATE_PENDING") == backend.poll_batch(batch_id)
    assert BatchStatus("running", "JOB_STATE_RUNNING") == backend.poll_batch(batch_id)
    assert BatchStatus("ended", "JOB_STATE_SUCCEEDED", done=3) == follow(backend, batch_id)
    replies = backend.fetch_batch(batch_id)

    assert set(ASKED) == set(replies)
    assert (replies["k-1-0"].text, replies["k-1-0"].finish_reason) == ("white as", "length")
    assert (
        replies["k-1-2"].text,
        replies["k-1-2"].finish_reason,
        replies["k-1-2"].error,
    ) == ("black", "stop", None)
    assert (replies["k-1-1"].text, replies["k-1-1"].finish_reason) == ("", "error")
    assert (
        replies["k-1-1"].error
        == "Gemini could not answer: Bad Request: Please ensure that the last turn of contents is "
        "not "
        "of role model."
    )
    assert len(server.received(*CREATE)) == 1


@pytest.mark.parametrize("kind", ["base", "tuned"])
def test_a_batch_says_what_chat_says_and_asks_as_chat_asks(
    backend: VertexBackend, server: Server, vendor: VertexVendor, tuned: TunedModel, kind: str
) -> None:
    model = tuned if kind == "tuned" else BASE
    requests = {"k-1-0": DIALOGUE, "k-1-1": asking("What is coal?"), "k-1-2": asking("Who?")}
    batch_id = backend.submit_batch("k-1", model, requests)
    follow(backend, batch_id)
    batched = backend.fetch_batch(batch_id)

    (uri,) = server.received(*CREATE)[0].json["inputConfig"]["gcsSource"]["uris"]
    rows = [
        json.loads(line)["request"] for line in vendor.storage.objects[uri].content.splitlines()
    ]
    for row, (name, request) in zip(rows, requests.items(), strict=True):
        reply = chatted(backend, model, request)
        assert reply.error is None
        assert replace(reply, seconds=None) == batched[name]
        sent = server.received("POST", ":generateContent$")[-1].json
        assert row.pop("labels") == {"unitune": name}
        assert camel(sent) == row


def test_rows_and_answers_are_in_the_bucket_under_the_key(
    backend: VertexBackend, vendor: VertexVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_VERTEX_BUCKET", f"gs://{BUCKET}/mine/")
    batch_id = submit(backend)
    follow(backend, batch_id)
    backend.fetch_batch(batch_id)
    rows, answers = sorted(vendor.storage.objects, key=len)
    assert re.fullmatch(rf"gs://{BUCKET}/mine/unitune-batch-k-1-[0-9a-f]{{16}}\.jsonl", rows)
    assert answers.startswith(f"{rows.removesuffix('.jsonl')}/")


def test_answers_in_several_files_are_one_and_what_was_answered_counts(
    backend: VertexBackend, vendor: VertexVendor
) -> None:
    batch_id = backend.submit_batch("k-1", BASE, ASKED)
    follow(backend, batch_id)
    job = vendor.batches[batch_id]
    (place,) = [uri for uri in vendor.storage.objects if str(job.written) in uri]
    content = vendor.storage.objects.pop(place).content
    lines = content.splitlines(keepends=True)
    failed = json.dumps({**json.loads(lines[0]), "status": "Internal", "response": {}}).encode()
    vendor.storage.put(f"{job.written}/part-1.jsonl", failed + b"\n" + lines[1])
    vendor.storage.put(f"{job.written}/part-2.jsonl", lines[0] + lines[2] + failed)
    vendor.storage.put(f"{job.written}/notes.txt", b"no rows")
    vendor.storage.put(f"{job.written}-of-others/part-1.jsonl", b"no rows")
    replies = backend.fetch_batch(batch_id)
    assert set(ASKED) == set(replies)
    assert [replies[name].error for name in ("k-1-0", "k-1-2")] == [None, None]


def test_a_cancelled_job_ends_with_what_it_had_answered(
    backend: VertexBackend, vendor: VertexVendor
) -> None:
    vendor.behavior.queued_polls, vendor.behavior.steps = 0, 8
    batch_id = backend.submit_batch("k-1", BASE, {f"k-1-{n}": asking(str(n)) for n in range(4)})
    backend.poll_batch(batch_id)
    backend.cancel_batch(batch_id)
    assert BatchStatus("running", "JOB_STATE_CANCELLING") == backend.poll_batch(batch_id)
    status = follow(backend, batch_id)
    assert (status.state, status.raw) == ("ended", "JOB_STATE_CANCELLED")
    replies = backend.fetch_batch(batch_id)
    assert status.done == len(replies)
    assert set(replies) == {"k-1-0", "k-1-1"}


def test_a_job_that_is_cancelled_before_it_began_has_no_answers(
    backend: VertexBackend, vendor: VertexVendor
) -> None:
    vendor.behavior.queued_polls = 9
    batch_id = submit(backend)
    backend.cancel_batch(batch_id)
    assert BatchStatus("ended", "JOB_STATE_CANCELLED") == follow(backend, batch_id)
    assert backend.fetch_batch(batch_id) == {}


# States


@pytest.mark.parametrize("word", [*types.JobState, "JOB_STATE_BRAND_NEW"])
def test_every_state_has_one_of_ours_and_a_new_one_is_running(
    backend: VertexBackend, vendor: VertexVendor, word: str
) -> None:
    batch_id = submit(backend)
    vendor.behavior.state = str(getattr(word, "value", word))
    ended = {"JOB_STATE_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED", "JOB_STATE_CANCELLED"}
    failed = {"JOB_STATE_FAILED", "JOB_STATE_EXPIRED"}
    status = backend.poll_batch(batch_id)
    expected = "ended" if status.raw in ended else "failed" if status.raw in failed else "running"
    assert (expected, vendor.behavior.state) == (status.state, status.raw)
    assert (expected == "failed") is (status.error is not None)


def test_a_job_that_expired_has_the_answers_that_it_wrote(
    backend: VertexBackend, vendor: VertexVendor
) -> None:
    batch_id = submit(backend)
    vendor.behavior.state = "JOB_STATE_EXPIRED"
    assert "lack of capacity" in (backend.poll_batch(batch_id).error or "")
    with pytest.raises(BackendError, match="JOB_STATE_EXPIRED"):
        backend.fetch_batch(batch_id)
    vendor.write_answers(vendor.batches[batch_id], 1)
    assert BatchStatus("ended", "JOB_STATE_EXPIRED", 1) == backend.poll_batch(batch_id)
    assert set(backend.fetch_batch(batch_id)) == {"k-1-0"}


def test_a_failed_job_says_why_and_has_no_answers(
    backend: VertexBackend, vendor: VertexVendor
) -> None:
    vendor.behavior.fails = "out of luck with ya29.a-secret-token"
    batch_id = submit(backend)
    expected = BatchStatus("failed", "JOB_STATE_FAILED", None, "out of luck with ***")
    assert expected == follow(backend, batch_id)
    with pytest.raises(BackendError, match=r"out of luck with \*\*\*"):
        backend.fetch_batch(batch_id)


# Creating


@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.ERROR_AFTER, Fault.SHORT])
def test_writing_rows_is_tried_again(
    backend: VertexBackend, server: Server, vendor: VertexVendor, fault: Fault
) -> None:
    server.inject_fault(fault, *ROWS)
    batch_id = submit(backend)
    assert len(vendor.storage.objects) == 1
    follow(backend, batch_id)
    assert set(backend.fetch_batch(batch_id)) == {"k-1-0"}


def test_rows_of_an_attempt_before_are_taken(
    backend: VertexBackend, server: Server, vendor: VertexVendor
) -> None:
    server.inject_fault(Fault.CUT, *ROWS)
    submit(backend)
    assert len(server.received(*ROWS)) == 2
    assert len(vendor.storage.objects) == 1
    assert len(server.received(*CREATE)) == 1


def test_rows_that_cannot_be_written_create_nothing(backend: VertexBackend, server: Server) -> None:
    server.inject_fault(Fault.EXPIRED_KEY, *ROWS)
    with pytest.raises(BackendError, match="write gs://"):
        submit(backend)
    assert server.received(*CREATE) == []


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ({"K-1": asking("So?")}, "'K-1' is invalid; Vertex AI needs 1 to 63"),
        ({"k" * 64: asking("So?")}, "1 to 63"),
        (
            {"k-1-7": Request(messages=(Message(role="user", name="anna", content="Hello?"),))},
            "cannot accept request k-1-7: .*anna",
        ),
    ],
)
def test_a_request_that_cannot_be_asked_is_named_and_nothing_is_sent(
    backend: VertexBackend, server: Server, requests: dict[str, Request], message: str
) -> None:
    with pytest.raises(Unsupported, match=message):
        backend.submit_batch("k-1", BASE, requests)
    assert server.requests == []


def test_a_model_that_is_not_there_is_a_404(backend: VertexBackend) -> None:
    with pytest.raises(BackendError) as raised:
        backend.submit_batch("k-1", "no-such-model", ASKED)
    assert raised.value.status == 404


# Which model


def test_a_tuned_model_is_asked_by_the_version_behind_its_endpoint(
    backend: VertexBackend, server: Server, vendor: VertexVendor, tuned: TunedModel
) -> None:
    backend.submit_batch("k-1", tuned, ASKED)
    assert vendor.endpoints[tuned.name] == server.received(*CREATE)[0].json["model"]
    backend.submit_batch("k-2", tuned.name, ASKED)
    assert vendor.endpoints[tuned.name] == server.received(*CREATE)[1].json["model"]


def test_of_several_checkpoints_only_the_default_can_be_asked(
    backend: VertexBackend, server: Server, vendor: VertexVendor
) -> None:
    version, (first, last) = vendor.add_model(PLACE, None, 2)
    with pytest.raises(Unsupported, match=r"serves checkpoint 1 of .* default checkpoint, 2"):
        backend.submit_batch("k-1", TunedModel(backend="vertex", name=first, base=BASE), ASKED)
    assert server.received(*CREATE) == []
    backend.submit_batch("k-1", TunedModel(backend="vertex", name=last, base=BASE), ASKED)
    assert version == server.received(*CREATE)[0].json["model"]


def test_an_endpoint_that_does_not_name_its_checkpoint_is_not_taken_for_the_default(
    backend: VertexBackend, vendor: VertexVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (_, last) = vendor.add_model(PLACE, None, 2)
    answer = vendor.answer

    def unnamed(request: VendorRequest) -> VendorResponse:
        given = answer(request)
        content: Any = given.content
        if "/endpoints/" in request.path:
            content["deployedModels"][0].pop("checkpointId")
        return given

    monkeypatch.setattr(vendor, "answer", unnamed)
    with pytest.raises(Unsupported, match="checkpoint unknown"):
        backend.submit_batch("k-1", TunedModel(backend="vertex", name=last, base=BASE), ASKED)


def test_an_endpoint_without_a_model_is_unsupported(
    backend: VertexBackend, vendor: VertexVendor, tuned: TunedModel
) -> None:
    vendor.endpoints[tuned.name] = None
    with pytest.raises(Unsupported, match="serves 0 models"):
        backend.submit_batch("k-1", tuned, ASKED)


def test_untuned_models_are_asked_and_found_in_another_location(
    backend: VertexBackend, server: Server, tuned: TunedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_VERTEX_BASE_LOCATION", "global")
    batch_id = submit(backend)
    other = backend.submit_batch("k-2", tuned, {"k-2-0": asking("What is coal?")})
    assert "/locations/global/" in batch_id
    assert "/locations/us-central1/" in other
    assert backend.find_batch("k-1", 0) == [batch_id]
    assert backend.find_batch("k-2", 0) == [other]
    assert backend.poll_batch(batch_id).state == "running"
    assert server.received("GET", "/locations/global/batchPredictionJobs/")


def test_a_model_elsewhere_is_refused_since_its_batch_would_not_be_found(
    backend: VertexBackend, server: Server
) -> None:
    name = PLACE.replace("us-central1", "europe-west4") + "/models/1"
    with pytest.raises(Unsupported, match="Set it to europe-west4"):
        backend.submit_batch("k-1", TunedModel(backend="vertex", name=name, base=BASE), ASKED)
    assert server.requests == []


# Finding


@pytest.mark.parametrize("filters", ["honoured", "ignored", "refused", "blind"])
def test_a_job_is_found_whatever_the_vendor_makes_of_filters(
    backend: VertexBackend, vendor: VertexVendor, filters: Any
) -> None:
    vendor.filters = filters
    wanted, _ = submit(backend, "k-1"), submit(backend, "k-12")
    assert backend.find_batch("k-1", time.time()) == [wanted]
    assert backend.find_batch("k-", time.time()) == []


def test_a_filter_that_is_honoured_spares_the_whole_list(
    backend: VertexBackend, server: Server
) -> None:
    submit(backend)
    backend.find_batch("k-1", time.time())
    (request,) = server.received(*LIST)
    assert request.first("filter") == 'display_name="k-1"'


# Reading


def rewrite(vendor: VertexVendor, batch_id: str, content: bytes) -> None:
    vendor.storage.put(f"{vendor.batches[batch_id].written}/predictions.jsonl", content)


@pytest.mark.parametrize("content", [b'{"request": {}, "response": {}}', b'{"requ', b"[]"])
def test_a_row_that_does_not_say_what_it_answers_is_an_error(
    backend: VertexBackend, vendor: VertexVendor, content: bytes
) -> None:
    batch_id = submit(backend)
    follow(backend, batch_id)
    rewrite(vendor, batch_id, content)
    with pytest.raises(BackendError, match="does not identify its request"):
        backend.fetch_batch(batch_id)


def test_a_blocked_question_is_an_empty_answer(
    backend: VertexBackend, vendor: VertexVendor
) -> None:
    batch_id = submit(backend)
    follow(backend, batch_id)
    response = {"promptFeedback": {"blockReason": "SAFETY"}}
    row = {"status": "", "request": {"labels": {"unitune": "k-1-0"}}, "response": response}
    rewrite(vendor, batch_id, json.dumps(row).encode())
    reply = backend.fetch_batch(batch_id)["k-1-0"]
    assert (reply.finish_reason, reply.error) == ("content_filter", None)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"status": "Internal"}, "Gemini could not answer: Internal."),
        ({"status": "Error: {no JSON"}, "Gemini could not answer: Error: {no JSON."),
        ({"response": {"modelVersion": "gemini"}}, "gave no reason"),
        ({"response": {"candidates": 1}}, "not a response of a model"),
    ],
)
def test_a_row_without_an_answer_says_why(
    backend: VertexBackend, vendor: VertexVendor, changes: dict[str, Any], error: str
) -> None:
    batch_id = submit(backend)
    follow(backend, batch_id)
    row = {"status": "", "request": {"labels": {"unitune": "k-1-0"}}, "response": {}, **changes}
    rewrite(vendor, batch_id, json.dumps(row).encode())
    reply = backend.fetch_batch(batch_id)["k-1-0"]
    assert reply.finish_reason == "error"
    assert error in (reply.error or "")


def test_what_the_sdk_does_not_know_yet_spoils_no_answer(
    backend: VertexBackend, vendor: VertexVendor
) -> None:
    batch_id = submit(backend)
    follow(backend, batch_id)
    part = {"text": "black", "colour": "of coal"}
    answer = {"candidates": [{"content": {"parts": [part]}, "mood": "dark"}], "weather": "dull"}
    row = {"status": "", "request": {"labels": {"unitune": "k-1-0"}}, "response": answer}
    rewrite(vendor, batch_id, json.dumps(row).encode())
    assert backend.fetch_batch(batch_id)["k-1-0"].text == "black"


# The token, and the vendor's own types


def wire_names(convert: object) -> set[str]:
    """Return the names that the SDK reads from a part of an answer, or writes to one."""
    return set(re.findall(r"'([a-z]+(?:[A-Z][a-z]+)*)'", inspect.getsource(convert)))  # type: ignore[arg-type]


def test_what_is_sent_and_answered_fits_the_sdks_own_types(
    backend: VertexBackend, server: Server, vendor: VertexVendor, tuned: TunedModel
) -> None:
    answers: list[Any] = []
    original = vendor.answer

    def record(request: VendorRequest) -> VendorResponse:
        answer = original(request)
        if "/batchPredictionJobs" in request.path and not request.path.endswith(":cancel"):
            answers.append(answer.content)
        return answer

    vendor.answer = record  # type: ignore[method-assign]
    batch_id = backend.submit_batch("k-1", tuned, ASKED)
    backend.cancel_batch(submit(backend, "k-2"))
    backend.find_batch("k-1", 0)
    follow(backend, batch_id)

    lists = [answer for answer in answers if "batchPredictionJobs" in answer]
    jobs = [answer for answer in answers if "name" in answer]
    assert (1, len(answers) - 1) == (len(lists), len(jobs))
    for job in (*jobs, *lists[0]["batchPredictionJobs"]):
        assert set() == job.keys() - wire_names(sdk._BatchJob_from_vertex)
        assert set() == job["inputConfig"].keys() - wire_names(sdk._BatchJobSource_from_vertex)
        named = wire_names(sdk._BatchJobDestination_from_vertex)
        assert set() == job["outputConfig"].keys() - named
        types.BatchJob.model_validate(sdk._BatchJob_from_vertex(job))
    types.ListBatchJobsResponse.model_validate(sdk._ListBatchJobsResponse_from_vertex(lists[0]))
    assert {request.json["displayName"] for request in server.received(*CREATE)} == {"k-1", "k-2"}
    rows = [
        stored.content for uri, stored in vendor.storage.objects.items() if "/prediction" not in uri
    ]
    for line in b"".join(rows).splitlines():
        request = json.loads(line)["request"]
        types.GenerationConfig.model_validate(request["generationConfig"])
        for turn in (*request["contents"], request.get("systemInstruction", {})):
            types.Content.model_validate(turn)
        for tool in request.get("tools", []):
            types.Tool.model_validate(tool)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, 'Unknown name "colour"'),
        ({"displayName": ""}, "displayName is not set"),
        ({"inputConfig": {"instancesFormat": "csv"}}, "must be jsonl"),
        ({"inputConfig": {"instancesFormat": "jsonl"}}, "Cloud Storage paths"),
        ({}, "does not exist"),
    ],
)
def test_a_malformed_create_call_is_refused(change: dict[str, Any], message: str) -> None:
    body = {
        "displayName": "k-1",
        "model": "publishers/google/models/gemini-3.5-flash",
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://b/missing"]}},
        "outputConfig": {
            "predictionsFormat": "jsonl",
            "gcsDestination": {"outputUriPrefix": "gs://b/answers"},
        },
        **change,
    }
    path = f"/v1beta1/{PLACE}/batchPredictionJobs"
    headers = {"authorization": "Bearer loopback"}
    answer = VertexVendor().answer(
        VendorRequest("POST", path, {}, headers, json.dumps(body).encode())
    )
    assert answer.status == 400
    assert message in str(answer.content)
