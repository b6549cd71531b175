"""What the bedrock backend makes of jobs, states and deployments, and what it refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("boto3", reason="needs the extra `bedrock`")

from pydantic import JsonValue
from vendors.bedrock.storage import S3Storage, s3_storage
from vendors.bedrock.vendor import BUCKET, BedrockVendor, environment

from unitune.backends import registry
from unitune.backends.protocol import Launch, State, Status
from unitune.data.example import Message
from unitune.errors import BackendError, JobError, NotFoundError, Unsupported, UserError
from unitune.job.job import Data, Job, Tuning
from unitune.models import Reply, Request, TunedModel
from unitune.security.json_fields import Fields
from unitune.testing.contract_base import reply_once
from unitune.testing.loopback import Server, serve
from unitune.testing.vendor_setup import ServerBehavior
from unitune_providers.bedrock import chat as bedrock_chat
from unitune_providers.bedrock.backend import BedrockBackend
from unitune_providers.bedrock.jobs import events_of, raw_of

NOVA = "amazon.nova-micro-v1:0:128k"
LLAMA = "meta.llama3-1-8b-instruct-v1:0:128k"
KEY = "r251125-1k3fq7d0x2ab-1"
ROWS = b'{"schemaVersion": "bedrock-conversation-2024", "messages": []}\n'


@pytest.fixture(scope="module")
def storage() -> Iterator[S3Storage]:
    with s3_storage(BUCKET) as storage:
        yield storage


@pytest.fixture
def behavior() -> ServerBehavior:
    return ServerBehavior(replies={"What is the colour of snow?": "white"})


@pytest.fixture
def vendor(storage: S3Storage, behavior: ServerBehavior) -> BedrockVendor:
    return BedrockVendor(storage, behavior)


@pytest.fixture
def server(
    vendor: BedrockVendor, storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    with serve(vendor) as server:
        for name, value in environment(server.url, storage.url).items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def backend(server: Server) -> BedrockBackend:
    assert server.url
    return BedrockBackend()


def launch(
    backend: BedrockBackend,
    folder: Path,
    *,
    key: str = KEY,
    base: str = NOVA,
    tuning: Tuning | None = None,
    options: Mapping[str, JsonValue] | None = None,
) -> Launch:
    path = folder / "rows.jsonl"
    path.write_bytes(ROWS)
    rows = backend.upload(path, hashlib.sha256(ROWS).hexdigest())
    job = Job(
        name="colours",
        model=base,
        backend="bedrock",
        data=Data(train="rows.jsonl"),
        tuning=tuning or Tuning(),
        options={"bedrock": dict(options or {})},
    )
    return Launch(key, job, rows, rows, folder)


def follow(backend: BedrockBackend, job_id: str) -> list[Status]:
    statuses = [backend.poll(job_id, "")]
    while not statuses[-1].state.ended:
        statuses.append(backend.poll(job_id, statuses[-1].cursor))
    return statuses


def trained(backend: BedrockBackend, folder: Path, key: str = KEY) -> TunedModel:
    model = follow(backend, backend.submit(launch(backend, folder, key=key)))[-1].model
    assert model is not None
    return model


def deployed(backend: BedrockBackend, model: TunedModel, name: str = "run-d1") -> TunedModel:
    ref = backend.deploy(model, name, {})
    while backend.deployment_status(ref, model).state == "starting":
        pass
    return backend.deployment_status(ref, model).model


def ask(backend: BedrockBackend, model: str | TunedModel) -> Reply:
    chat = backend.chat(model)
    question = Message(role="user", content="What is the colour of snow?")
    return reply_once(chat, Request(messages=(question,)))


def created(server: Server) -> dict[str, Any]:
    return server.received("POST", "/model-customization-jobs$")[-1].json


def test_a_file_is_named_by_its_hash_in_the_bucket(
    backend: BedrockBackend, storage: S3Storage, tmp_path: Path
) -> None:
    ref = launch(backend, tmp_path).training.ref

    assert ref == f"s3://{BUCKET}/folder/unitune-{hashlib.sha256(ROWS).hexdigest()[:32]}.jsonl"
    assert storage.read(ref) == ROWS


def test_settings_become_strings_and_auto_is_left_out(
    backend: BedrockBackend, server: Server, tmp_path: Path
) -> None:
    tuning = Tuning(epochs=3, learning_rate=1e-5, warmup=0)
    backend.submit(launch(backend, tmp_path, tuning=tuning))

    expected = {"epochCount": "3", "learningRate": "0.00001", "learningRateWarmupSteps": "0"}
    assert expected == created(server)["hyperParameters"]

    backend.submit(launch(backend, tmp_path, key="r251125-1k3fq7d0x2ac-1"))
    assert created(server)["hyperParameters"] == {}


def test_a_batch_size_is_sent_to_models_that_have_one(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")  # where Llama is tuned
    backend = BedrockBackend()
    backend.submit(launch(backend, tmp_path, base=LLAMA, tuning=Tuning(batch_size=1)))

    assert created(server)["hyperParameters"] == {"batchSize": "1"}


def test_an_alias_is_sent_as_the_name_that_bedrock_tunes(
    backend: BedrockBackend, server: Server, tmp_path: Path
) -> None:
    backend.submit(launch(backend, tmp_path, base="amazon.nova-micro-v1:0"))

    assert created(server)["baseModelIdentifier"] == NOVA


def test_the_launch_key_is_name_token_and_tag(
    backend: BedrockBackend, server: Server, tmp_path: Path
) -> None:
    backend.submit(launch(backend, tmp_path))
    sent = created(server)

    names = ("jobName", "customModelName", "clientRequestToken")
    assert {sent[name] for name in names} == {f"unitune-{KEY}"}
    assert {"key": "unitune", "value": KEY} in sent["jobTags"]
    assert sent["customModelTags"] == [{"key": "unitune", "value": KEY}]


def test_role_and_output_can_be_the_jobs_own(
    backend: BedrockBackend, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNITUNE_BEDROCK_ROLE_ARN")
    role = "arn:aws:iam::210987654321:role/tuner"
    options: dict[str, JsonValue] = {"role_arn": role, "output": "s3://elsewhere/metrics"}
    backend.submit(launch(backend, tmp_path, options=options))

    assert role == created(server)["roleArn"]
    assert created(server)["outputDataConfig"] == {"s3Uri": "s3://elsewhere/metrics"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"role_arm": "x"}, "role_arm is not a known key. Did you mean 'role_arn'?"),
        ({"role_arn": "me"}, "role_arn is 'me'"),
        ({"output": "bucket/folder"}, "output is 'bucket/folder'"),
    ],
)
def test_a_wrong_option_creates_nothing(
    backend: BedrockBackend,
    server: Server,
    tmp_path: Path,
    options: dict[str, JsonValue],
    message: str,
) -> None:
    with pytest.raises(JobError, match=r"options\.bedrock\.") as caught:
        backend.submit(launch(backend, tmp_path, options=options))
    assert message in str(caught.value)
    assert server.received("POST", "/model-customization-jobs$") == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("UNITUNE_BEDROCK_BUCKET=", "UNITUNE_BEDROCK_BUCKET is not set"),
        ("UNITUNE_BEDROCK_BUCKET=No_Bucket", "'No_Bucket', which is not a bucket"),
        ("UNITUNE_BEDROCK_ROLE_ARN=", "Set UNITUNE_BEDROCK_ROLE_ARN"),
        ("UNITUNE_BEDROCK_ROLE_ARN=admin", "'admin' is not the ARN of one"),
    ],
)
def test_what_is_missing_is_named(
    backend: BedrockBackend,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    message: str,
) -> None:
    prepared = launch(backend, tmp_path)
    monkeypatch.setenv(*setting.split("="))

    with pytest.raises(UserError) as caught:
        backend.submit(prepared)
    assert message in str(caught.value)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    "missing", ["AWS_DEFAULT_REGION", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"]
)
def test_missing_setup_of_aws_is_the_users_to_mend(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(missing)
    with pytest.raises(UserError, match=missing):
        BedrockBackend().poll("any", "")


@pytest.mark.usefixtures("server")
def test_an_unknown_key_is_aws_saying_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASOMEONEELSE")
    with pytest.raises(BackendError, match="Check AWS_ACCESS_KEY_ID") as caught:
        BedrockBackend().poll("any", "")
    assert caught.value.status == 403
    assert caught.value.request_id


def test_states_go_from_queued_over_validating_to_succeeded(
    backend: BedrockBackend, tmp_path: Path
) -> None:
    statuses = follow(backend, backend.submit(launch(backend, tmp_path)))

    assert [(status.state, status.raw) for status in statuses] == [
        ("queued", "InProgress"),
        ("validating", "InProgress: data processing InProgress"),
        ("running", "InProgress: training InProgress"),
        ("succeeded", "Completed"),
    ]


def test_losses_by_step_come_from_s3_when_the_job_has_completed(
    backend: BedrockBackend, tmp_path: Path
) -> None:
    last = follow(backend, backend.submit(launch(backend, tmp_path)))[-1]

    steps = [event.data for event in last.events if event.kind == "step"]
    assert steps == [
        {"step": 0, "steps": 3, "loss": 1.0, "epoch": 0},
        {"step": 1, "steps": 3, "loss": 0.666667, "epoch": 0},
        {"step": 2, "steps": 3, "loss": 0.5, "epoch": 0},
        {"step": 3, "steps": 3, "loss": 0.4, "epoch": 0},
    ]
    (held_out,) = [event for event in last.events if event.kind == "validation"]
    assert held_out.data == {"step": 3, "loss": 0.4}
    assert "training loss: 0.4000" in [event.data.get("text") for event in last.events]


def test_a_job_whose_metrics_cannot_be_read_has_succeeded_all_the_same(
    backend: BedrockBackend, vendor: BedrockVendor, tmp_path: Path
) -> None:
    job_id = backend.submit(launch(backend, tmp_path))
    follow(backend, job_id)
    vendor.jobs[0].number = "0123456789ab"

    status = backend.poll(vendor.jobs[0].arn, "")
    assert State.SUCCEEDED is status.state
    assert {event.kind for event in status.events} == {"message"}


def test_an_unknown_word_of_a_phase_is_unknown_and_kept() -> None:
    phases = {"trainingDetails": {"status": "Napping"}}
    raw = raw_of(Fields({"status": "InProgress", "statusDetails": phases}))

    assert raw == "InProgress: training Napping"
    assert State.UNKNOWN is BedrockBackend().state_of(raw)


def test_a_table_with_broken_lines_gives_the_others(
    backend: BedrockBackend, tmp_path: Path
) -> None:
    job_id = backend.submit(launch(backend, tmp_path))
    follow(backend, job_id)
    job = backend._job(job_id)
    table = "step_number,epoch_number,training_loss\n0,0,1.5\n1,0,\n1,0,x\n2,1,0.5\n2\n"

    steps = [event for event in events_of(job, table) if event.kind == "step"]
    assert [(event.data["step"], event.data["loss"]) for event in steps] == [(0, 1.5), (2, 0.5)]
    assert "step" not in {event.kind for event in events_of(job, "something else")}


def test_a_file_that_fails_validation_fails_the_job_in_bedrocks_words(
    backend: BedrockBackend, behavior: ServerBehavior, tmp_path: Path
) -> None:
    behavior.rejects_files = "Line 3 has no messages."
    last = follow(backend, backend.submit(launch(backend, tmp_path)))[-1]

    assert (last.state, last.error) == (State.FAILED, "Line 3 has no messages.")
    assert "validation: Failed" in [event.data["text"] for event in last.events]


def test_a_stopped_job_says_stopping_and_stopped(backend: BedrockBackend, tmp_path: Path) -> None:
    job_id = backend.submit(launch(backend, tmp_path))
    backend.cancel(job_id)

    states = [(status.state, status.raw) for status in follow(backend, job_id)]
    assert states == [(State.CANCELLING, "Stopping"), (State.CANCELLED, "Stopped")]


def test_find_gives_the_exact_key_alone_through_lists_that_repeat_and_reorder(
    backend: BedrockBackend, behavior: ServerBehavior, tmp_path: Path
) -> None:
    behavior.lists_repeat = True
    ids = [backend.submit(launch(backend, tmp_path, key=f"{KEY}{n}")) for n in ("", *range(6))]

    assert [backend.find(KEY, tmp_path) for _ in range(7)] == [[ids[0]]] * 7


def test_a_list_that_lags_shows_the_job_later_and_the_token_finds_it_at_once(
    backend: BedrockBackend, behavior: ServerBehavior, vendor: BedrockVendor, tmp_path: Path
) -> None:
    behavior.list_lag_seconds = 600
    prepared = launch(backend, tmp_path)
    job_id = backend.submit(prepared)

    assert backend.find(KEY, tmp_path) == []
    assert job_id == backend.submit(prepared)
    assert len(vendor.jobs) == 1


def test_a_name_that_is_taken_means_the_job_is_there(
    backend: BedrockBackend, vendor: BedrockVendor, tmp_path: Path
) -> None:
    """AWS says nothing of how long it remembers a token."""
    prepared = launch(backend, tmp_path)
    job_id = backend.submit(prepared)
    vendor.jobs[0].request = {**vendor.jobs[0].request, "clientRequestToken": "forgotten"}

    assert job_id == backend.submit(prepared)
    assert len(vendor.jobs) == 1


def test_a_tuned_model_answers_only_from_a_deployment(
    backend: BedrockBackend, tmp_path: Path
) -> None:
    model = trained(backend, tmp_path)
    with pytest.raises(UserError, match="unitune deployments up"):
        backend.chat(model)

    serving = deployed(backend, model)
    assert [ask(backend, name).text for name in (model, serving)] == ["white", "white"]
    prints = {backend.chat(name).fingerprint for name in (model, serving)}
    assert prints == {f"bedrock:{model.name}"}


def test_a_second_deploy_of_a_name_finds_the_first(
    backend: BedrockBackend, vendor: BedrockVendor, tmp_path: Path
) -> None:
    model = trained(backend, tmp_path)

    first = backend.deploy(model, "run-d1", {})
    assert backend.deploy(model, "run-d11", {}) != first
    assert first == backend.deploy(model, "run-d1", {})
    assert len(vendor.deployments) == 2


def test_what_is_taken_down_is_gone_and_stays_so(backend: BedrockBackend, tmp_path: Path) -> None:
    model = trained(backend, tmp_path)
    serving = deployed(backend, model)
    backend.undeploy(serving.name)
    backend.undeploy(serving.name)

    assert backend.deployment_status(serving.name, model).state == "gone"
    with pytest.raises(NotFoundError, match="deployment"):
        backend.chat(serving)


def test_options_of_a_deployment_are_refused(backend: BedrockBackend, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="units cannot be set"):
        backend.deploy(trained(backend, tmp_path), "run-d1", {"units": 2})


def test_deleting_leaves_nothing_and_can_be_repeated(
    backend: BedrockBackend, storage: S3Storage, tmp_path: Path
) -> None:
    prepared = launch(backend, tmp_path)
    model = trained(backend, tmp_path)
    for _ in range(2):
        backend.delete_file(prepared.training.ref)
        backend.delete_model(model)

    assert None is storage.read(prepared.training.ref)
    with pytest.raises(BackendError):
        backend.deploy(model, "run-d1", {})


def test_a_model_with_a_deployment_is_not_deleted(backend: BedrockBackend, tmp_path: Path) -> None:
    model = trained(backend, tmp_path)
    deployed(backend, model)

    with pytest.raises(BackendError, match="ConflictException"):
        backend.delete_model(model)


def test_a_job_of_others_is_imported_with_its_rows(backend: BedrockBackend, tmp_path: Path) -> None:
    tuning = Tuning(epochs=3, learning_rate=1e-5, warmup=7)
    prepared = launch(backend, tmp_path, tuning=tuning)
    job_id = backend.submit(prepared)
    model = follow(backend, job_id)[-1].model
    imported = backend.import_job(job_id)

    assert (
        imported.base_model,
        imported.method,
        imported.training,
        imported.validation,
    ) == (NOVA, "sft", ROWS, ROWS)
    assert imported.tuning == {"epochs": 3, "learning_rate": 1e-5, "warmup": 7}
    assert (model, ()) == (imported.model, imported.notes)

    backend.delete_file(prepared.training.ref)
    assert None is backend.import_job(job_id).training


def test_what_an_import_cannot_carry_is_noted(
    server: Server, vendor: BedrockVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.url
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")  # where Llama is tuned
    backend = BedrockBackend()
    job_id = backend.submit(launch(backend, tmp_path, base=LLAMA, tuning=Tuning(batch_size=1)))
    request = vendor.jobs[0].request
    assert backend.import_job(job_id).notes == ("Bedrock's batchSize = 1 is not imported",)

    vendor.jobs[0].request = {**request, "customizationType": "DISTILLATION"}
    with pytest.raises(Unsupported, match="DISTILLATION"):
        backend.import_job(job_id)
    with pytest.raises(NotFoundError, match="no-such-job"):
        backend.import_job("no-such-job")


@pytest.mark.parametrize(
    ("base", "profile", "answering"),
    [
        (NOVA, None, "amazon.nova-micro-v1:0"),
        ("amazon.nova-2-lite-v1:0:256k", None, "us.amazon.nova-2-lite-v1:0"),
        ("amazon.nova-2-lite-v1:0:256k", "global", "global.amazon.nova-2-lite-v1:0"),
        ("amazon.nova-2-lite-v1:0", None, "us.amazon.nova-2-lite-v1:0"),
        ("us.amazon.nova-2-lite-v1:0", None, "us.amazon.nova-2-lite-v1:0"),
        (LLAMA, "us", "us.meta.llama3-1-8b-instruct-v1:0"),
        ("meta-llama/Llama-3.3-70B-Instruct", None, "us.meta.llama3-3-70b-instruct-v1:0"),
        ("arn:aws:bedrock:us-east-1::foundation-model/x.y", None, None),
    ],
)
def test_a_base_is_asked_by_the_name_that_answers(
    base: str, profile: str | None, answering: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if profile:
        monkeypatch.setenv("UNITUNE_BEDROCK_PROFILE", profile)
    assert (answering or base) == bedrock_chat.answering_id(base)


def test_every_base_of_the_offer_can_be_asked(backend: BedrockBackend) -> None:
    for model in registry.offer("bedrock").models:
        assert None is ask(backend, model.name).error
