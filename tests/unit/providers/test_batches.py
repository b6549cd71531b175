"""What holds for batches at every vendor: handed in once, found again, read whole, cancelled."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("anthropic", reason="needs the vendors' extras")

from pydantic import JsonValue
from vendors.serving import ANTHROPIC, VENDORS

from unitune.backends import registry
from unitune.backends.capabilities import Batches
from unitune.data.example import Message
from unitune.errors import BackendError, Unreachable, Unsupported
from unitune.models import Request
from unitune.testing.loopback import (
    OF_VENDORS,
    TOOK_EFFECT,
    Fault,
    Server,
    VendorRequest,
    VendorResponse,
)
from unitune.testing.vendor_setup import VendorSetup, serve_vendor
from unitune_providers import anthropic
from unitune_providers.openai import batches as openai
from unitune_providers.vertex import batches as vertex
from unitune_providers.vertex import cloud as vertex_cloud

SECRET = "sk-planted-0123456789-abcdefghijklmno"  # noqa: S105 - planted
LOST = (Fault.SILENCE, Fault.CUT, Fault.SHORT)


@dataclass(frozen=True)
class Case:
    """How a vendor is served, and where its batches, their list and their results are."""

    setup: VendorSetup
    limits: ModuleType
    most: tuple[str, str]  # names of the limits of requests and bytes
    path: str
    results: str
    failed: Callable[[str], JsonValue]  # row of results of a request that failed with an error
    missing: tuple[str, ...]


def failed_at_anthropic(error: str) -> JsonValue:
    why: JsonValue = {"error": {"type": "authentication_error", "message": error}}
    return {"custom_id": "k-1-0", "result": {"type": "errored", "error": why}}


def failed_at_openai(error: str) -> JsonValue:
    body: JsonValue = {"error": {"message": error, "code": error}}
    return {"custom_id": "k-1-0", "response": {"status_code": 401, "body": body}}


def failed_at_vertex(error: str) -> JsonValue:
    status = f"Denied: {json.dumps({'error': {'message': error}})}"
    return {"status": status, "request": {"labels": {"unitune": "k-1-0"}}}


CASES = {
    "anthropic": Case(
        ANTHROPIC,
        anthropic,
        ("REQUESTS_MOST", "BYTES_MOST"),
        "/v1/messages/batches",
        "/results$",
        failed_at_anthropic,
        ("msgbatch_none",),
    ),
    "openai": Case(
        VENDORS["openai"],
        openai,
        ("MOST_REQUESTS", "MOST_BYTES"),
        "/batches",
        "/content$",
        failed_at_openai,
        ("batch_none",),
    ),
    "vertex": Case(
        VENDORS["vertex"],
        vertex,
        ("REQUESTS_MOST", "BYTES_MOST"),
        "/batchPredictionJobs",
        r"/storage/v1/b/[^/]+/o/.+",
        failed_at_vertex,
        ("projects/my-project/locations/us-central1/batchPredictionJobs/1", "batch-1"),
    ),
}


@dataclass(frozen=True)
class Stage:
    """A backend with the server that it calls."""

    case: Case
    server: Server
    vendor: Any
    backend: Any

    def submit(self, count: int = 1) -> str:
        return self.backend.submit_batch("k-1", self.case.setup.model, asked(count))

    def find(self) -> list[str]:
        return self.backend.find_batch("k-1", time.time())

    def ended(self) -> str:
        batch_id = self.submit()
        while self.backend.poll_batch(batch_id).state == "running":
            pass
        return batch_id

    def fail(self, fault: Fault, method: str, path: str = "$", times: int = 1) -> None:
        self.server.inject_fault(fault, method, f"{self.case.path}{path}", times=times)

    @property
    def created(self) -> int:
        return len(self.server.received("POST", f"{self.case.path}$"))


def asked(count: int) -> dict[str, Request]:
    question = Request(messages=(Message(role="user", content="What is coal?"),))
    return {f"k-1-{number}": question for number in range(count)}


@pytest.fixture(params=CASES)
def stage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    case = CASES[request.param]
    for name in ("kit.api.TIMEOUT_SECONDS", "kit.api.UPLOAD_SECONDS", "kit.chat.ANSWER_SECONDS"):
        monkeypatch.setattr(f"unitune.backends.{name}", 0.6)
    monkeypatch.setattr("unitune.backends.retry.sleep", lambda _: None)
    with serve_vendor(case.setup) as served:
        server = served.server
        yield Stage(case, server, server.vendor, registry.backend(request.param))


# Creating


@pytest.mark.parametrize("fault", sorted(OF_VENDORS - {Fault.EXPIRED_KEY, Fault.RATE_LIMITED}))
def test_a_create_call_of_open_outcome_is_sent_once_and_its_batch_found(
    stage: Stage, fault: Fault
) -> None:
    assert isinstance(stage.backend, Batches)
    stage.fail(fault, "POST")
    with pytest.raises(BackendError) as raised:
        stage.submit()
    assert isinstance(raised.value, Unreachable) is (fault in LOST)
    assert raised.value.status == (None if fault in LOST else 500)
    assert stage.created == 1
    assert len(stage.find()) == (1 if fault in TOOK_EFFECT else 0)


@pytest.mark.parametrize(("fault", "status"), [(Fault.RATE_LIMITED, 429), (Fault.EXPIRED_KEY, 401)])
def test_a_refused_create_call_keeps_its_status_and_is_sent_once(
    stage: Stage, fault: Fault, status: int
) -> None:
    stage.fail(fault, "POST")
    with pytest.raises(BackendError) as raised:
        stage.submit()
    assert raised.value.status == status
    assert stage.created == 1
    assert stage.find() == []


@pytest.mark.parametrize(("limit", "most", "count"), [(0, 2, 3), (0, 2, 0), (1, 40, 3)])
def test_too_much_or_nothing_for_a_batch_is_refused_before_anything_is_sent(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, limit: int, most: int, count: int
) -> None:
    monkeypatch.setattr(stage.case.limits, stage.case.most[limit], most)
    with pytest.raises(Unsupported, match=f"this one has {count} with .* run without --batch"):
        stage.submit(count)
    assert stage.server.requests == []


# Finding


def test_long_repeating_and_reordered_lists_give_each_batch_once(stage: Stage) -> None:
    stage.vendor.behavior.lists_repeat = True
    stage.vendor.filters = "ignored"  # read by Vertex AI alone
    made = [stage.submit() for _ in range(5)]
    assert sorted(stage.find()) == sorted(made)


def test_a_late_list_shows_the_batch_later(stage: Stage) -> None:
    stage.vendor.behavior.list_lag_seconds = 60
    batch_id = stage.submit()
    assert stage.find() == []
    stage.vendor.behavior.list_lag_seconds = 0
    assert stage.find() == [batch_id]


def test_a_list_that_fails_is_not_taken_for_no_batch(stage: Stage) -> None:
    stage.fail(Fault.SERVER_ERROR, "GET", times=9)
    with pytest.raises(BackendError) as raised:
        stage.find()
    assert raised.value.status == 500


# Watching and reading


@pytest.mark.parametrize("fault", sorted(OF_VENDORS - {Fault.EXPIRED_KEY}))
def test_reading_a_batch_is_tried_again(stage: Stage, fault: Fault) -> None:
    stage.vendor.behavior.queued_polls = 9
    batch_id = stage.submit()
    stage.fail(fault, "GET", "/[^/]+$")
    assert stage.backend.poll_batch(batch_id).state == "running"


@pytest.mark.parametrize("stage", ["anthropic", "vertex"], indirect=True)
def test_answers_of_a_batch_that_goes_on_are_refused(stage: Stage) -> None:
    stage.vendor.behavior.queued_polls = 9
    with pytest.raises(BackendError, match=r"in_progress|JOB_STATE_PENDING"):
        stage.backend.fetch_batch(stage.submit())


@pytest.mark.parametrize("fault", LOST)
def test_answers_that_do_not_come_whole_are_no_answers(stage: Stage, fault: Fault) -> None:
    batch_id = stage.ended()
    stage.server.inject_fault(fault, "GET", stage.case.results, times=99)
    with pytest.raises(Unreachable):
        stage.backend.fetch_batch(batch_id)


def test_a_missing_batch_is_a_404(stage: Stage) -> None:
    backend = stage.backend
    for act in (backend.poll_batch, backend.fetch_batch, backend.cancel_batch):
        for name in stage.case.missing:
            with pytest.raises(BackendError) as raised:
                act(name)
            assert raised.value.status == 404


# Cancelling


def test_cancelling_what_has_ended_is_no_error(stage: Stage) -> None:
    batch_id = stage.ended()
    stage.backend.cancel_batch(batch_id)
    assert set(stage.backend.fetch_batch(batch_id)) == {"k-1-0"}


def test_cancelling_that_is_refused_is_an_error(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.vendor.behavior.queued_polls = 9
    batch_id, answer = stage.submit(), stage.vendor.answer

    def refuse(request: VendorRequest) -> VendorResponse:
        is_cancel = request.path.endswith("cancel")
        return VendorResponse({"error": {"message": "no"}}, 400) if is_cancel else answer(request)

    monkeypatch.setattr(stage.vendor, "answer", refuse)
    with pytest.raises(BackendError, match="no"):
        stage.backend.cancel_batch(batch_id)


# Secrets


def test_the_key_is_nowhere_even_if_the_vendor_repeats_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(variable, SECRET)
    monkeypatch.setattr(vertex_cloud, "STAND_IN_TOKEN", SECRET)
    stage.vendor.key = SECRET
    batch_id, error = stage.ended(), f"no {SECRET} here"

    def failed(request: VendorRequest, answer: VendorResponse) -> VendorResponse:
        row = json.dumps(stage.case.failed(error)).encode()
        is_result = re.search(stage.case.results, request.path)
        return replace(answer, content=row) if is_result else answer

    stage.server.change = failed
    texts = [repr(stage.backend.fetch_batch(batch_id)), repr(stage.backend.poll_batch(batch_id))]
    stage.server.change = lambda *_: VendorResponse({"error": {"message": error}}, 403)
    for act in (
        stage.submit,
        stage.find,
        lambda: stage.backend.poll_batch(batch_id),
        lambda: stage.backend.fetch_batch(batch_id),
        lambda: stage.backend.cancel_batch(batch_id),
    ):
        with pytest.raises(BackendError) as raised:
            act()
        texts.append(str(raised.value))
    assert sum("no *** here" in text for text in texts) == 6
    assert SECRET not in "".join(texts)
    assert SECRET.encode() not in b"".join(request.body for request in stage.server.requests)
