"""The loopback server is held against the SDK's types, and the backend's requests likewise."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from google.genai import types
from pydantic import BaseModel
from vendors.vertex.vendor import VertexVendor, environment

from unitune.backends.protocol import Launch
from unitune.data.example import Message
from unitune.job.job import Data, Job, Lora, Tuning
from unitune.models import Request
from unitune.testing.contract_base import reply_once
from unitune.testing.loopback import VendorRequest, VendorResponse, serve
from unitune.testing.vendor_setup import ServerBehavior
from unitune_providers.vertex.backend import VertexBackend

BEARING = {
    ("POST", "/tuningJobs"): (types.TuningJob, types.TuningJob),
    ("GET", "/tuningJobs"): (None, types.ListTuningJobsResponse),
    ("GET", "/tuningJobs/ID"): (None, types.TuningJob),
    ("POST", "/tuningJobs/ID:cancel"): (None, types.CancelTuningJobResponse),
    ("POST", ":generateContent"): (None, types.GenerateContentResponse),
}
"""By kind of request: the SDK's type of its body and of its answer; both refuse unknown fields."""


class Recording(VertexVendor):
    """A vendor that keeps each request with its answer."""

    def __init__(self, behavior: ServerBehavior) -> None:
        super().__init__(behavior)
        self.exchanges: list[tuple[VendorRequest, VendorResponse]] = []

    def answer(self, request: VendorRequest) -> VendorResponse:
        answer = super().answer(request)
        self.exchanges.append((request, answer))
        return answer

    def kind(self, kind: tuple[str, str]) -> list[tuple[VendorRequest, VendorResponse]]:
        method, path = kind
        return [
            (request, answer)
            for request, answer in self.exchanges
            if request.method == method
            and request.path.startswith("/v1beta1/")
            and _general(request.path).endswith(path)
        ]


def _general(path: str) -> str:
    return re.sub(r"/tuningJobs/[^:]+", "/tuningJobs/ID", path)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Generator[Recording]:
    """Everything that the backend does, with the full set of settings, through the real SDK."""
    vendor = Recording(ServerBehavior(steps=4))
    with serve(vendor) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(server.url).items():
            patch.setenv(name, value)
        _use(VertexBackend(), tmp_path_factory.mktemp("run"))
        vendor.behavior.fails = "out of luck"
        _follow(VertexBackend(), "4000001")
        yield vendor


def _use(backend: VertexBackend, folder: Path) -> None:
    supervised = {"learning_rate_multiplier": 2.0, "export_last_checkpoint_only": True}
    first = backend.submit(_launch(backend, folder, "r-1", {"vertex": supervised}))
    second = backend.submit(_launch(backend, folder, "r-2", {}, "dpo"))
    third = backend.submit(_launch(backend, folder, "r-3", {}))
    backend.poll(third, "")
    backend.cancel(third)
    for job_id in (first, second, third):
        _follow(backend, job_id)
    assert backend.find("r-2", folder) == [second]
    assert len(backend.list_jobs("").states) == 3
    for model in ("gemini-3.5-flash", backend.poll(first, "").model):
        assert model is not None
        chat = backend.chat(model)
        turns = (
            Message(role="system", content="Be brief."),
            Message(role="user", content="Colour of snow?"),
        )
        reply = reply_once(chat, Request(messages=turns, stop=("\n",)))
        assert reply.error is None


def _launch(
    backend: VertexBackend, folder: Path, key: str, options: dict[str, Any], method: str = "sft"
) -> Launch:
    file = folder / "train.jsonl"
    file.write_text('{"contents": []}\n')
    uploaded = backend.upload(file, hashlib.sha256(file.read_bytes()).hexdigest())
    job = Job(
        name="job",
        model="gemini-3.5-flash",
        backend="vertex",
        data=Data(train="train.jsonl"),
        tuning=Tuning(epochs=2, lora=Lora(rank=4)),
        options=options,
    )
    changed = job.model_copy(update={"method": method})
    return Launch(key, changed, uploaded, uploaded, folder)


def _follow(backend: VertexBackend, job_id: str) -> None:
    while not backend.poll(job_id, "").state.ended:
        pass


@pytest.mark.parametrize("kind", BEARING, ids=" ".join)
def test_answers_are_of_the_types_that_the_sdk_declares(
    recording: Recording, kind: tuple[str, str]
) -> None:
    _, answered = BEARING[kind]
    recorded = recording.kind(kind)
    assert recorded
    for request, answer in recorded:
        assert answer.status == 200, request
        assert isinstance(answer.content, dict)
        answered.model_validate(answer.content)


def test_every_create_call_is_a_tuning_job(recording: Recording) -> None:
    bodies = [request.json for request, _ in recording.kind(("POST", "/tuningJobs"))]
    assert len(bodies) == 3
    for body in bodies:
        job = types.TuningJob.model_validate(body)
        assert job.labels
        assert job.base_model == "gemini-3.5-flash"
        spec = job.supervised_tuning_spec or job.preference_optimization_spec
        assert spec is not None
        assert spec.training_dataset_uri == spec.validation_dataset_uri


def test_every_question_is_of_the_sdks_types(recording: Recording) -> None:
    parts: dict[str, type[BaseModel]] = {
        "systemInstruction": types.Content,
        "generationConfig": types.GenerationConfig,
    }
    recorded = recording.kind(("POST", ":generateContent"))
    assert len(recorded) == 2
    for request, _ in recorded:
        assert request.json.keys() == {"contents", *parts}
        for name, kind in parts.items():
            kind.model_validate(request.json[name])
        for turn in request.json["contents"]:
            types.Content.model_validate(turn)


def test_nothing_that_the_backend_asked_was_refused(recording: Recording) -> None:
    refused = [
        (request.path, answer.content)
        for request, answer in recording.exchanges
        if answer.status >= 400
    ]
    assert [(path, content) for path, content in refused if "/storage/" not in path] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 3}, 'Unknown name "epochs"'),
        ({"labels": {"unitune": "Not Lower"}}, "Label keys and values"),
        ({"baseModel": None}, "base_model or pre_tuned_model"),
        ({"supervisedTuningSpec": {"trainingDatasetUri": "train.jsonl"}}, "Cloud Storage path"),
        ({"preferenceOptimizationSpec": {}}, "Exactly one tuning spec"),
    ],
)
def test_malformed_create_call_is_refused(change: dict[str, Any], message: str) -> None:
    body = {
        "baseModel": "gemini-3.5-flash",
        "supervisedTuningSpec": {"trainingDatasetUri": "gs://b/missing"},
        **change,
    }
    answer = _send({name: value for name, value in body.items() if value is not None})
    assert answer.status == 400
    assert message in str(answer.content)


def _send(body: dict[str, Any]) -> VendorResponse:
    request = VendorRequest(
        "POST",
        "/v1beta1/projects/p/locations/l/tuningJobs",
        {},
        {"authorization": "Bearer loopback"},
        json.dumps(body).encode(),
    )
    return VertexVendor().answer(request)
