"""The loopback server is held against the SDK's types, and the backend's requests likewise."""

from __future__ import annotations

import hashlib
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
    """A vendor that keeps what was asked with what it answered."""

    def __init__(self, behavior: ServerBehavior) -> None:
        super().__init__(behavior)
        self.said: list[tuple[VendorRequest, VendorResponse]] = []

    def answer(self, asked: VendorRequest) -> VendorResponse:
        answer = super().answer(asked)
        self.said.append((asked, answer))
        return answer

    def kind(self, kind: tuple[str, str]) -> list[tuple[VendorRequest, VendorResponse]]:
        method, path = kind
        return [
            (asked, answer)
            for asked, answer in self.said
            if asked.method == method
            and asked.path.startswith("/v1beta1/")
            and _general(asked.path).endswith(path)
        ]


def _general(path: str) -> str:
    head, found, tail = path.partition("/tuningJobs/")
    return f"{head}{found}ID{':cancel' if tail.endswith(':cancel') else ''}" if found else path


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Generator[Recording]:
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
    second = backend.submit(_launch(backend, folder, "r-2", {"vertex": {"beta": 0.1}}, "dpo"))
    third = backend.submit(_launch(backend, folder, "r-3", {}))
    backend.poll(third, "")
    backend.cancel(third)
    for job_id in (first, second, third):
        _follow(backend, job_id)
    assert [second] == backend.find("r-2", folder)
    assert 3 == len(backend.list_jobs("").states)
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
    said: Recording, kind: tuple[str, str]
) -> None:
    _, answered = BEARING[kind]
    recorded = said.kind(kind)
    assert recorded
    for asked, answer in recorded:
        assert 200 == answer.status, asked
        assert isinstance(answer.content, dict)
        answered.model_validate(answer.content)


def test_every_create_call_is_a_tuning_job(said: Recording) -> None:
    bodies = [asked.json for asked, _ in said.kind(("POST", "/tuningJobs"))]
    assert 3 == len(bodies)
    for body in bodies:
        job = types.TuningJob.model_validate(body)
        assert job.labels
        assert job.base_model == "gemini-3.5-flash"
        spec = job.supervised_tuning_spec or job.preference_optimization_spec
        assert spec is not None
        assert spec.training_dataset_uri == spec.validation_dataset_uri


def test_every_question_is_of_the_sdks_types(said: Recording) -> None:
    parts: dict[str, type[BaseModel]] = {
        "systemInstruction": types.Content,
        "generationConfig": types.GenerationConfig,
    }
    recorded = said.kind(("POST", ":generateContent"))
    assert 2 == len(recorded)
    for asked, _ in recorded:
        assert {"contents", *parts} == asked.json.keys()
        for name, kind in parts.items():
            kind.model_validate(asked.json[name])
        for turn in asked.json["contents"]:
            types.Content.model_validate(turn)


def test_nothing_that_the_backend_asked_was_refused(said: Recording) -> None:
    refused = [(asked.path, answer.content) for asked, answer in said.said if answer.status >= 400]
    assert [] == [one for one in refused if "/storage/" not in one[0]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 3}, 'Unknown name "epochs"'),
        ({"labels": {"unitune": "Not Lower"}}, "Label keys and values"),
        ({"baseModel": None}, "base_model or pre_tuned_model"),
        ({"baseModel": "gpt-5"}, "is not supported"),
        ({"supervisedTuningSpec": {"trainingDatasetUri": "gs://b/missing"}}, "does not exist"),
        ({"supervisedTuningSpec": {"trainingDatasetUri": "train.jsonl"}}, "Cloud Storage path"),
        ({"preferenceOptimizationSpec": {}}, "Exactly one tuning spec"),
    ],
)
def test_malformed_create_call_is_refused(change: dict[str, Any], words: str) -> None:
    body = {
        "baseModel": "gemini-3.5-flash",
        "supervisedTuningSpec": {"trainingDatasetUri": "gs://b/missing"},
        **change,
    }
    answer = _send({name: value for name, value in body.items() if value is not None})
    assert 400 == answer.status
    assert words in str(answer.content)


def _send(body: dict[str, Any]) -> VendorResponse:
    import json  # noqa: PLC0415 - only here

    asked = VendorRequest(
        "POST",
        "/v1beta1/projects/p/locations/l/tuningJobs",
        {},
        {"authorization": "Bearer loopback"},
        json.dumps(body).encode(),
    )
    return VertexVendor().answer(asked)
