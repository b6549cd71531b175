"""What client and loopback say to each other is what Together publishes.

A whole life of a training, from upload to deletion, is recorded. Requests and answers under ``/v1``
are held against togethercomputer/openapi (2026-04-28), those under ``/v2`` and ``/v3``, which it
does not have, against the types of the SDK.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("together", reason="needs the extra `together`")

import jsonschema
from pydantic import TypeAdapter
from together.types import Endpoint, EndpointDeployment, FinetuneModelLimits, Model
from together.types.fine_tuning_list_response import FineTuningListResponse
from together.types.finetune_response import FinetuneResponse
from together.types.models.config import Config
from together.types.whoami_response import WhoamiResponse
from unit.providers.together_spec import DESCRIPTION, check, description, operation, unknown_keys
from vendors.together.vendor import KEY, TogetherVendor

from unitune.backends.protocol import Launch
from unitune.job.job import Data, Job, Lora, Tuning
from unitune.models import TunedModel
from unitune.testing.contract_base import ROWS, reply_once
from unitune.testing.loopback import VendorRequest, VendorResponse, serve
from unitune.testing.vendor_setup import ServerBehavior
from unitune_providers.together import backend as together
from unitune_providers.together.backend import TogetherBackend

SDK_TYPES: dict[str, Any] = {
    "GET /v3/whoami": WhoamiResponse,
    "GET /v2/projects/[^/]+/models/[^/]+": Model,
    "(GET|PATCH) /v2/projects/[^/]+/endpoints/[^/]+": Endpoint,
    "POST /v2/projects/[^/]+/endpoints": Endpoint,
    "(POST|PATCH) .*/deployments(/[^/]+)?": EndpointDeployment,
    "GET /v1/fine-tunes": FineTuningListResponse,
    "GET /v1/fine-tunes/ft-[0-9a-f]+": FinetuneResponse,
    "GET /v1/fine-tunes/models/limits": FinetuneModelLimits,
}
NOT_DESCRIBED = ("POST /v1/files", "POST /v1/files/.*/preprocess", "PUT /storage/.*")
"""The SDK sends a file in three steps; the description has a form at ``/files/upload``."""

NEWER = {
    "adapter_object_id",
    "adapter_object_name",
    "data.object_id",
    "data.object_name",
    "default_gradient_accumulation_steps",
    "estimation_available",
    "lora_training.default_rank",
    "max_num_checkpoints",
    "max_seq_length_dpo",
    "max_seq_length_sft",
    "min_max_seq_length",
    "model_object_id",
    "model_object_name",
    "owner_address",
    "packing",
    "processing_status",
    "random_seed",
    "suffix",
    "supports_full_training",
    "user_id",
    "validation_report",
}
"""Keys of answers that the SDK 3.1.1 reads, and the description of April has not there."""


@dataclass
class Recording:
    """A vendor whose answers are kept."""

    vendor: TogetherVendor
    said: list[tuple[VendorRequest, VendorResponse]] = field(default_factory=list)

    def answer(self, asked: VendorRequest) -> VendorResponse:
        answer = self.vendor.answer(asked)
        self.said.append((asked, answer))
        return answer


@pytest.fixture(scope="module")
def said(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[tuple[VendorRequest, VendorResponse]]]:
    """All that was said in two trainings, one of them cancelled."""
    recording = Recording(TogetherVendor(ServerBehavior()))
    with serve(recording) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOGETHER_BASE_URL", server.url)
        patch.setenv("TOGETHER_API_KEY", KEY)
        patch.setattr("unitune.backends.kit.hosted.FILE_POLL_SECONDS", 0.001)
        patch.setattr(together, "POLL_SECONDS", 0.001)
        live_and_die(TogetherBackend(), tmp_path_factory.mktemp("run"))
        yield recording.said


def live_and_die(backend: TogetherBackend, folder: Path) -> None:
    launch = make_launch(backend, folder)
    backend.quote(launch)
    model = train(backend, launch)
    backend.find(launch.key, folder)
    other = backend.submit(launch)
    backend.cancel(other)
    backend.import_job(other)
    backend.download(model, folder)
    (checkpoint,) = backend.checkpoints(backend.find(launch.key, folder)[0], model.base)
    ref = backend.deploy(checkpoint.model, "tone", {"config": "cr_one"})
    while (seen := backend.deployment_status(ref, model)).state != "ready":
        pass
    assert None is reply_once(backend.chat(seen.model)).error
    backend.undeploy(ref)
    backend.delete_model(model)
    backend.delete_file(launch.training.ref)


def make_launch(backend: TogetherBackend, folder: Path) -> Launch:
    file = folder / "train.jsonl"
    file.write_text("".join(ROWS))
    upload = backend.upload(file, hashlib.sha256(file.read_bytes()).hexdigest())
    job = Job(
        name="tone",
        model="Qwen/Qwen3-8B",
        backend="together",
        data=Data(train="train.jsonl"),
        tuning=Tuning(
            epochs=2,
            learning_rate=1e-4,
            warmup=0.1,
            schedule="cosine",
            weight_decay=0.01,
            lora=Lora(rank=8, dropout=0.1),
            seed=3,
        ),
        options={"together": {"n_evals": 1}},
    )
    return Launch("r251125-abc-1", job, upload, upload, folder)


def train(backend: TogetherBackend, launch: Launch) -> TunedModel:
    job_id = backend.submit(launch)
    while (status := backend.poll(job_id, "")).model is None:
        assert not status.error
    return status.model


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    if not DESCRIPTION.exists():
        pytest.skip("needs ../shared/specs/together-openapi.yaml")
    return description()


def name_of(asked: VendorRequest) -> str:
    return f"{asked.method} {asked.path}"


def is_not_described(asked: VendorRequest) -> bool:
    return asked.path.startswith(("/v2/", "/v3/")) or any(
        re.fullmatch(pattern, name_of(asked)) for pattern in NOT_DESCRIBED
    )


def test_the_life_asks_for_everything_once(
    said: list[tuple[VendorRequest, VendorResponse]],
) -> None:
    paths = {
        re.sub(r"(file|ft|ep|dep|ml)[-_][0-9a-f]+(-\w+)?", "ID", name_of(one)) for one, _ in said
    }
    assert len(paths) == 29, sorted(paths)
    assert all(answer.status < 400 for _, answer in said)


def test_every_path_is_described(
    described: dict[str, Any], said: list[tuple[VendorRequest, VendorResponse]]
) -> None:
    missing = {
        name_of(asked)
        for asked, _ in said
        if not is_not_described(asked) and operation(described, asked) is None
    }
    assert set() == missing


def test_every_request_is_as_described(
    described: dict[str, Any], said: list[tuple[VendorRequest, VendorResponse]]
) -> None:
    checked = 0
    for asked, _ in said:
        found = None if is_not_described(asked) else operation(described, asked)
        if found and asked.body and "requestBody" in found:
            schema = found["requestBody"]["content"]["application/json"]["schema"]
            check(described, schema, asked.json)
            assert unknown_keys(described, schema, asked.json) == [], name_of(asked)
            checked += 1
    assert checked


def test_every_answer_is_as_described(
    described: dict[str, Any], said: list[tuple[VendorRequest, VendorResponse]]
) -> None:
    unknown = set[str]()
    for asked, answer in said:
        found = None if is_not_described(asked) else operation(described, asked)
        content = found and found["responses"][str(answer.status)].get("content", {})
        if content and "application/json" in content:
            schema, told = content["application/json"]["schema"], json.loads(answer.body)
            check(described, schema, told)
            unknown.update(unknown_keys(described, schema, told))
    assert unknown == NEWER


def test_every_answer_is_of_the_type_that_the_sdk_has_for_it(
    said: list[tuple[VendorRequest, VendorResponse]],
) -> None:
    met = set[str]()
    for asked, answer in said:
        for pattern, kind in SDK_TYPES.items():
            if re.fullmatch(pattern, name_of(asked)):
                TypeAdapter(kind).validate_json(answer.body)
                met.add(pattern)
        if re.fullmatch("GET .*/configs", name_of(asked)):
            for one in json.loads(answer.body)["data"]:
                Config.model_validate(one)
    assert set(SDK_TYPES) == met


def test_a_misspelt_or_missing_key_is_noticed(
    described: dict[str, Any], said: list[tuple[VendorRequest, VendorResponse]]
) -> None:
    asked, answer = next(one for one in said if name_of(one[0]) == "POST /v1/fine-tunes")
    found = operation(described, asked)
    assert found
    schema = found["requestBody"]["content"]["application/json"]["schema"]
    nested = {**asked.json, "training_type": {"type": "Lora", "lora_rang": 8}, "sufix": "x"}
    assert unknown_keys(described, schema, nested) == ["sufix", "training_type.lora_rang"]
    told = json.loads(answer.body)
    shown = found["responses"]["200"]["content"]["application/json"]["schema"]
    check(described, shown, told)
    with pytest.raises(jsonschema.ValidationError, match="'status' is a required property"):
        check(described, shown, {key: one for key, one in told.items() if key != "status"})


def test_an_error_is_as_described(described: dict[str, Any]) -> None:
    asked = VendorRequest("GET", "/v1/files", {}, {}, b"")
    answer = TogetherVendor().answer(asked)
    assert answer.status == 401
    check(described, {"$ref": "#/components/schemas/ErrorData"}, json.loads(answer.body))
