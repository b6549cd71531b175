"""The vertex backend when Google Cloud misbehaves: errors of ours, one job, nothing lost."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google import genai
from google.genai import types
from google.genai.types import HttpOptions
from pydantic import JsonValue
from support.impatient import served_vertex
from vendors.vertex.vendor import BUCKET, VertexVendor

from unitune.backends.protocol import Launch, State, Status, Upload
from unitune.errors import BackendError, JobError, NotFoundError, Unreachable, UserError
from unitune.job.job import Data, Job, Lora, Preference, Tuning
from unitune.job.tuning import Reward
from unitune.models import Start, TunedModel
from unitune.testing.loopback import OF_VENDORS, Fault, Server
from unitune.testing.vendor_setup import ServerBehavior
from unitune_providers.vertex import cloud as vertex_cloud
from unitune_providers.vertex.backend import VertexBackend

CREATE = ("POST", r"/tuningJobs$")
READ = ("GET", r"/tuningJobs/\d+$")
LIST = ("GET", r"/tuningJobs$")
WRITE = ("POST", r"/upload/storage/")
ROWS = b'{"contents": []}\n' * 3
NO_ANSWER = (Fault.SILENCE, Fault.CUT, Fault.SHORT)

Submit = Callable[..., str]


@pytest.fixture
def vendor() -> VertexVendor:
    return VertexVendor(ServerBehavior(steps=2))


@pytest.fixture
def server(vendor: VertexVendor, monkeypatch: pytest.MonkeyPatch) -> Generator[Server]:
    with served_vertex(vendor, monkeypatch) as served:
        yield served


@pytest.fixture
def backend(server: Server) -> VertexBackend:
    assert server.requests == []
    return VertexBackend()


@pytest.fixture
def training(tmp_path: Path) -> Path:
    file = tmp_path / "train.jsonl"
    file.write_bytes(ROWS)
    return file


def launch(training: Upload, folder: Path, key: str = "r-1", **changes: Any) -> Launch:
    job = Job(name="job", model="gemini-3.5-flash", backend="vertex", data=Data(train="t.jsonl"))
    return Launch(key, job.model_copy(update=changes), training, None, folder)


def upload(backend: VertexBackend, file: Path) -> Upload:
    return backend.upload(file, hashlib.sha256(file.read_bytes()).hexdigest())


@pytest.fixture
def submit(backend: VertexBackend, training: Path) -> Submit:
    def create(key: str = "r-1", **changes: Any) -> str:
        return backend.submit(launch(upload(backend, training), training.parent, key, **changes))

    return create


def follow(backend: VertexBackend, job_id: str) -> Status:
    status = backend.poll(job_id, "")
    while not status.state.ended:
        status = backend.poll(job_id, status.cursor)
    return status


# Creating


def test_wrong_token_is_refused_by_both_services_and_not_shown(
    vendor: VertexVendor, backend: VertexBackend, training: Path
) -> None:
    vendor.key = "another"
    for ask in (lambda: upload(backend, training), lambda: backend.poll("1", "")):
        with pytest.raises(BackendError, match="gcloud auth application-default login") as raised:
            ask()
        assert raised.value.status == 401
        assert "loopback" not in str(raised.value)


def test_create_call_says_what_the_job_says(server: Server, submit: Submit) -> None:
    options: dict[str, dict[str, JsonValue]] = {
        "vertex": {"learning_rate_multiplier": 0.5, "export_last_checkpoint_only": True}
    }
    submit(tuning=Tuning(epochs=2, lora=Lora(rank=8)), options=options)
    body = server.received(*CREATE)[0].json
    assert body["baseModel"] == "gemini-3.5-flash"
    assert body["labels"] == {"unitune": "r-1"}
    spec = body["supervisedTuningSpec"]
    assert spec["exportLastCheckpointOnly"] is True
    assert spec["hyperParameters"] == {
        "epochCount": 2,
        "adapterSize": "ADAPTER_SIZE_EIGHT",
        "learningRateMultiplier": 0.5,
    }


def test_auto_is_left_to_the_vendor(server: Server, submit: Submit) -> None:
    submit()
    (request,) = server.received(*CREATE)
    assert request.json["supervisedTuningSpec"].keys() == {"trainingDatasetUri"}


def test_preference_tuning_has_a_spec_of_its_own(server: Server, submit: Submit) -> None:
    submit(method="dpo", tuning=Tuning(preference=Preference(beta=0.2)))
    body = server.received(*CREATE)[0].json
    assert "supervisedTuningSpec" not in body
    assert body["preferenceOptimizationSpec"]["hyperParameters"] == {"beta": 0.2}


def test_reinforcement_says_what_answers_earn(
    server: Server, backend: VertexBackend, training: Path, submit: Submit
) -> None:
    training.write_bytes(b'{"contents": [], "references": {"expected": "a"}}\n' * 3)
    check = {
        "type": "string_check",
        "operation": "eq",
        "input": "{{sample.output_text}}",
        "reference": "{{item.expected}}",
    }
    reward = Reward.model_validate(
        {"scorers": {"type": "grader", "grader": check}, "group_size": 4}
    )
    options = {"vertex": {"thinking_level": "minimal"}}
    job_id = submit(method="rft", tuning=Tuning(reward=reward), options=options)
    spec = server.received(*CREATE)[0].json["reinforcementTuningSpec"]
    assert spec["hyperParameters"] == {"samplesPerPrompt": 4, "thinkingLevel": "MINIMAL"}
    types.ReinforcementTuningSpec.model_validate(spec)
    assert State.SUCCEEDED is follow(backend, job_id).state
    taken = backend.import_job(job_id)
    assert (taken.method, taken.tuning) == ("rft", {"reward": {"group_size": 4}})
    options = {"reward": spec["singleRewardConfig"], "thinking_level": "minimal"}
    assert options == taken.options
    with pytest.raises(JobError, match="reward has no effect with method sft"):
        submit("r-2", options={"vertex": taken.options})


def test_tuned_model_is_tuned_on_into_a_model_of_its_own(
    server: Server, vendor: VertexVendor, backend: VertexBackend, submit: Submit
) -> None:
    version, _ = vendor.add_model("projects/my-project/locations/us-central1", None, 1)
    options = {"vertex": {"pre_tuned_model_checkpoint_id": "2"}}
    done = follow(backend, submit(model=version, options=options))
    body = server.received(*CREATE)[0].json
    expected = {"tunedModelName": version, "checkpointId": "2"}
    assert expected == body["preTunedModel"]
    assert "baseModel" not in body
    assert done.model is not None
    assert version == done.model.base
    assert len(vendor.versions) == 2


def test_a_start_is_the_model_behind_its_endpoint(
    server: Server, backend: VertexBackend, training: Path, submit: Submit
) -> None:
    first = follow(backend, submit()).model
    assert first is not None
    assert "/endpoints/" in first.name
    second = launch(upload(backend, training), training.parent, "r-2")
    backend.submit(replace(second, start=Start(run="r", model=first)))
    body = server.received(*CREATE)[-1].json
    assert "baseModel" not in body
    assert re.fullmatch(r"projects/.+/models/.+@1", body["preTunedModel"]["tunedModelName"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"options": {"vertex": {"learning_rate_multiplyer": 1}}},
            "Did you mean 'learning_rate_multiplier'",
        ),
        ({"options": {"vertex": {"learning_rate_multiplier": 0}}}, "learning_rate_multiplier is 0"),
        (
            {"options": {"vertex": {"pre_tuned_model_checkpoint_id": "1"}}},
            "continuing a tuned model",
        ),
        ({"tuning": Tuning(lora=Lora(rank=3))}, "1, 2, 4, 8, 16, 32"),
    ],
)
def test_setting_that_is_not_allowed_creates_nothing(
    server: Server, submit: Submit, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(JobError, match=message):
        submit(**changes)
    assert server.received(*CREATE) == []


# Finding


@pytest.mark.parametrize("filters", ["honoured", "ignored", "refused", "blind"])
def test_job_is_found_whatever_the_vendor_makes_of_filters(
    vendor: VertexVendor, backend: VertexBackend, submit: Submit, filters: Any
) -> None:
    vendor.filters = filters
    wanted, _ = submit("r-1"), submit("r-12")
    assert backend.find("r-1", Path()) == [wanted]
    assert backend.find("r-", Path()) == []


def test_list_that_fails_is_not_taken_for_no_job(server: Server, backend: VertexBackend) -> None:
    server.inject_fault(Fault.SERVER_ERROR, *LIST, times=9)
    with pytest.raises(BackendError) as raised:
        backend.find("r-1", Path())
    assert raised.value.status == 500


# Watching


def test_missing_job_is_a_404(backend: VertexBackend) -> None:
    with pytest.raises(BackendError) as raised:
        backend.poll("projects/my-project/locations/us-central1/tuningJobs/1", "")
    assert raised.value.status == 404


def test_short_id_names_a_job_of_the_location(backend: VertexBackend, submit: Submit) -> None:
    job_id = submit()
    assert State.QUEUED is backend.poll(job_id.rpartition("/")[2], "").state


def test_ended_job_cannot_be_cancelled(backend: VertexBackend, submit: Submit) -> None:
    job_id = submit()
    follow(backend, job_id)
    with pytest.raises(BackendError) as raised:
        backend.cancel(job_id)
    assert raised.value.status == 400


def test_each_checkpoint_can_be_asked_and_the_last_is_the_model(
    backend: VertexBackend, submit: Submit
) -> None:
    job_id = submit(tuning=Tuning(epochs=2))
    done = follow(backend, job_id)
    checkpoints = backend.checkpoints(job_id, "gemini-3.5-flash")
    assert [checkpoint.step for checkpoint in checkpoints] == [1, 2]
    assert done.model == checkpoints[-1].model
    assert checkpoints[0].model != checkpoints[1].model


# Files


def test_upload_is_named_by_its_hash(
    backend: VertexBackend, vendor: VertexVendor, training: Path
) -> None:
    done = upload(backend, training)
    assert done.ref == f"gs://{BUCKET}/unitune-{done.sha256[:32]}.jsonl"
    assert vendor.storage.objects[done.ref].content == ROWS


def test_upload_goes_to_the_folder_in_the_bucket(
    backend: VertexBackend, training: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_VERTEX_BUCKET", f"gs://{BUCKET}/our/files/")
    assert upload(backend, training).ref.startswith(f"gs://{BUCKET}/our/files/unitune-")


@pytest.mark.parametrize(
    "fault",
    sorted(OF_VENDORS - {Fault.EXPIRED_KEY}),
)
def test_upload_gets_through_one_fault_as_one_file(
    server: Server, backend: VertexBackend, vendor: VertexVendor, training: Path, fault: Fault
) -> None:
    server.inject_fault(fault, *WRITE)
    done = upload(backend, training)
    assert list(vendor.storage.objects) == [done.ref]


def test_upload_that_always_fails_keeps_the_status(
    server: Server, backend: VertexBackend, training: Path
) -> None:
    server.inject_fault(Fault.SERVER_ERROR, *WRITE, times=99)
    with pytest.raises(BackendError) as raised:
        upload(backend, training)
    assert raised.value.status == 500


def test_missing_bucket_is_a_404(
    backend: VertexBackend, training: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_VERTEX_BUCKET", "no-such-bucket")
    with pytest.raises(BackendError, match="bucket does not exist") as raised:
        upload(backend, training)
    assert raised.value.status == 404


def test_deleted_file_is_gone_and_deleting_it_again_no_error(
    backend: VertexBackend, vendor: VertexVendor, training: Path
) -> None:
    done = upload(backend, training)
    backend.delete_file(done.ref)
    backend.delete_file(done.ref)
    assert vendor.storage.objects == {}


# Importing


def test_imported_job_has_rows_and_settings(backend: VertexBackend, submit: Submit) -> None:
    job_id = submit(
        tuning=Tuning(epochs=2, lora=Lora(rank=4)),
        options={"vertex": {"learning_rate_multiplier": 2.0}},
    )
    done = follow(backend, job_id)
    imported = backend.import_job(job_id)
    assert (imported.base_model, imported.method) == ("gemini-3.5-flash", "sft")
    assert imported.training == ROWS
    assert imported.tuning == {"epochs": 2, "lora": {"rank": 4}}
    assert imported.options == {"learning_rate_multiplier": 2.0}
    assert done.model == imported.model
    assert imported.notes == ()


def test_training_file_that_is_cut_off_is_not_taken_for_an_empty_one(
    server: Server, backend: VertexBackend, submit: Submit
) -> None:
    job_id = submit()
    server.inject_fault(Fault.SHORT, "GET", "/storage/v1/b/[^/]+/o/.", times=3)
    with pytest.raises(Unreachable):
        backend.import_job(job_id)


def test_imported_job_without_its_file_says_so(
    backend: VertexBackend, vendor: VertexVendor, submit: Submit
) -> None:
    job_id = submit()
    vendor.storage.objects.clear()
    imported = backend.import_job(job_id)
    assert imported.training is None
    assert "is gone" in imported.notes[0]


def test_importing_a_missing_job_is_an_unknown_name(backend: VertexBackend) -> None:
    with pytest.raises(NotFoundError, match="17"):
        backend.import_job("17")


# Deleting models


def test_deleted_model_leaves_neither_endpoint_nor_model(
    backend: VertexBackend, vendor: VertexVendor, submit: Submit
) -> None:
    model = _tuned(backend, submit)
    backend.delete_model(model)
    backend.delete_model(model)
    assert vendor.endpoints == {}
    assert vendor.versions == {}


def test_of_a_model_with_versions_only_one_is_deleted(
    backend: VertexBackend, vendor: VertexVendor, submit: Submit
) -> None:
    model = _tuned(backend, submit)
    (whole,) = vendor.versions
    vendor.add_model(whole.partition("/models/")[0], whole, 1)
    backend.delete_model(model)
    assert vendor.versions == {whole: [2]}
    assert list(vendor.endpoints.values()) == [f"{whole}@2"]


def test_refused_deletion_keeps_its_status(
    server: Server, backend: VertexBackend, submit: Submit
) -> None:
    model = _tuned(backend, submit)
    server.inject_fault(Fault.SERVER_ERROR, "POST", ":undeployModel")
    with pytest.raises(BackendError) as raised:
        backend.delete_model(model)
    assert raised.value.status == 500


def _tuned(backend: VertexBackend, submit: Submit) -> TunedModel:
    model = follow(backend, submit()).model
    assert model is not None
    return model


# Settings


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    "name", ["GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "UNITUNE_VERTEX_BUCKET"]
)
def test_missing_setting_is_named(
    training: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(UserError, match=name):
        upload(VertexBackend(), training)


@pytest.mark.usefixtures("server")
def test_missing_credentials_say_how_to_sign_in(
    training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("UNITUNE_VERTEX_BASE_URL", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(UserError, match="gcloud auth application-default login"):
        upload(VertexBackend(), training)


def test_server_on_this_machine_never_gets_real_credentials(
    server: Server, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_file = tmp_path / "key.json"
    key_file.write_text(json.dumps({"type": "authorized_user", "refresh_token": "real"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
    backend = VertexBackend()
    backend.submit(launch(upload(backend, training), tmp_path))
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer loopback"}


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_models_are_at_the_host_that_the_sdk_asks(location: str, host: str) -> None:
    cloud = vertex_cloud.Cloud("p", location, vertex_cloud.stand_in())
    resource = f"projects/p/locations/{location}/models/1"
    assert cloud.endpoint(resource, "v1").url == f"https://{host}/v1"
    options = HttpOptions(api_version="v1beta1")
    client: Any = genai.Client(
        vertexai=True,
        project="p",
        location=location,
        credentials=vertex_cloud.stand_in(),
        http_options=options,
    )
    assert client._api_client._http_options.base_url == f"https://{host}/"


@pytest.mark.parametrize("place", ["elsewhere.example#", "elsewhere.example:443?x=", "a.b", "@x"])
def test_no_name_of_a_model_leads_the_callers_token_to_another_host(
    server: Server, place: str
) -> None:
    """The host is made of the location: ``https://LOCATION-aiplatform.googleapis.com``."""
    backend = VertexBackend()
    for name in (f"projects/p/locations/{place}/endpoints/1", f"projects/p/locations/{place}/x/1"):
        with pytest.raises(UserError, match="has the location"):
            backend.chat(name)
        with pytest.raises(UserError, match="has the location"):
            backend.chat(TunedModel(backend="vertex", name=name, base="gemini-3.5-flash-lite"))
    assert server.requests == []
