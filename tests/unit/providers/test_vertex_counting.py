"""Google's count of tokens through the real SDK: what is sent, and how it fails."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from support.impatient import served_vertex
from vendors.vertex.vendor import VertexVendor

from unitune.cost.tokens.counter import SAMPLE_ROWS
from unitune.data.example import Message
from unitune.errors import BackendError, Unreachable, Unsupported
from unitune.job.job import Data, Job
from unitune.models import Request, TunedModel
from unitune.planning.plan import plan
from unitune.testing.contract import LONG, SHORT
from unitune.testing.loopback import Fault, Server, VendorResponse
from unitune_providers.vertex.backend import VertexBackend

PLACE = "projects/my-project/locations/us-central1"
MODEL = "gemini-3.5-flash"
COUNT = ("POST", ":countTokens$")
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture
def vendor() -> VertexVendor:
    return VertexVendor()


@pytest.fixture(autouse=True)
def server(vendor: VertexVendor, monkeypatch: pytest.MonkeyPatch) -> Generator[Server]:
    with served_vertex(vendor, monkeypatch) as served:
        yield served


def test_system_prompt_turns_and_tools_are_counted(server: Server) -> None:
    count = VertexBackend().count_tokens(MODEL, LONG.model_copy(update={"tools": (WEATHER,)}))

    (request,) = server.received(*COUNT)
    assert request.path == f"/v1beta1/{PLACE}/publishers/google/models/{MODEL}:countTokens"
    assert set(request.json) == {"contents", "systemInstruction", "tools"}
    assert count > 0


def test_tuned_model_counts_at_its_endpoint(server: Server, vendor: VertexVendor) -> None:
    _, (endpoint,) = vendor.add_model(PLACE, None, 1)
    tuned = TunedModel(backend="vertex", name=endpoint, base=MODEL)

    assert VertexBackend().count_tokens(tuned, SHORT) > 0
    (request,) = server.received(*COUNT)
    assert request.path.endswith(f"{endpoint}:countTokens")


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (Fault.RATE_LIMITED, BackendError, "HTTP 429"),
        (Fault.SERVER_ERROR, BackendError, "HTTP 500"),
        (Fault.EXPIRED_KEY, BackendError, "HTTP 401"),
        (Fault.SILENCE, Unreachable, "no complete answer"),
    ],
)
def test_failure_is_an_error_of_ours_and_the_next_count_is_right(
    server: Server, fault: Fault, kind: type[Exception], message: str
) -> None:
    server.inject_fault(fault, *COUNT, times=1 if fault is Fault.EXPIRED_KEY else 3)
    with pytest.raises(kind, match=message) as caught:
        VertexBackend().count_tokens(MODEL, SHORT)

    assert f"count tokens for {MODEL}" in str(caught.value)
    assert VertexBackend().count_tokens(MODEL, SHORT) > 0


def test_answer_without_a_count_is_none(
    vendor: VertexVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor, "answer", lambda _: VendorResponse({}))
    with pytest.raises(Unreachable, match="has no count"):
        VertexBackend().count_tokens(MODEL, SHORT)


def test_what_gemini_has_no_place_for_is_not_counted(server: Server) -> None:
    named = Request(messages=(Message(role="user", name="ada", content="Hello"),))
    with pytest.raises(Unsupported, match="cannot accept this request"):
        VertexBackend().count_tokens(MODEL, named)
    assert server.received(*COUNT) == []


def planned(folder: Path, rows: int) -> Job:
    line = '{{"prompt": "How many are {0}?", "completion": "{0}"}}\n'
    text = "".join(line.format(number) for number in range(rows))
    (folder / "train.jsonl").write_text(text, encoding="utf-8")
    data = Data(train="train.jsonl")
    return Job(name="triage", model=MODEL, backend="vertex", data=data, folder=folder)


def test_a_plan_asks_for_a_sample_when_it_is_told_to(tmp_path: Path, server: Server) -> None:
    job = planned(tmp_path, rows=500)
    ours = plan(job)
    assert server.received(*COUNT) == []
    theirs = plan(job, vendor_counts=True)

    counted = {
        request.json["contents"][0]["parts"][0]["text"] for request in server.received(*COUNT)
    }
    assert SAMPLE_ROWS / 2 <= len(counted) <= SAMPLE_ROWS
    assert ours.estimate is not None
    assert theirs.estimate is not None
    (assumption,) = (text for text in theirs.estimate.assumptions if "the vendor counted" in text)
    assert "times our expected tokens" in assumption
    assert ours.estimate.trained_tokens != theirs.estimate.trained_tokens


def test_a_plan_whose_vendor_cannot_be_asked_says_so(tmp_path: Path) -> None:
    job = planned(tmp_path, rows=100).with_backend("together")
    job = job.model_copy(update={"model": "meta-llama/Llama-3.2-1B-Instruct"})
    with pytest.raises(Unsupported, match="together does not count tokens"):
        plan(job, vendor_counts=True)
