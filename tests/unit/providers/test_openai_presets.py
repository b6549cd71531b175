"""Azure, Mantle, Nebius and servers that a job names: what differs on the same wire."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from unit.providers.company_stage import azure_identity
from unit.providers.openai_spec import (
    CHAT_ROW,
    GRADED_ROW,
    LAUNCH_KEY,
    MODEL,
    TRIPLE_ROW,
    Stage,
    on_stage,
)
from vendors.openai.azure import AzureVendor
from vendors.openai.nebius import NebiusVendor
from vendors.openai.vendor import KEY, MantleVendor, OpenAIVendor

from unitune.backends import registry
from unitune.backends.credentials import Parameters
from unitune.backends.protocol import Launch, State
from unitune.data.example import Message
from unitune.errors import JobError, Unsupported, UserError
from unitune.job.job import Lora, Tuning
from unitune.models import Request, TunedModel
from unitune.testing.contract_base import reply_once
from unitune.testing.loopback import serve
from unitune_providers.openai.backend import AzureBackend, MantleBackend, NebiusBackend
from unitune_providers.openai.wire import WireBackend

Patch = pytest.MonkeyPatch
NEBIUS = "meta-llama/Llama-3.3-70B-Instruct"
LAMBDA = {"type": "lambda", "lambda": {"function": "arn:aws:lambda:us-west-2:1:function:grade"}}


@contextmanager
def preset(
    folder: Path, patch: Patch, backend: WireBackend[Any], vendor: OpenAIVendor, **variables: str
) -> Iterator[Stage]:
    with on_stage(folder, patch, vendor, backend) as stage:
        for variable in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
            patch.delenv(variable)
        for variable, value in variables.items():
            patch.setenv(variable, value.format(url=stage.server.url))
        patch.setenv("OPENAI_ORG_ID", "org-not-for-others")
        yield stage


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: Patch) -> Iterator[Stage]:
    variables = {"AZURE_OPENAI_ENDPOINT": "{url}/", "AZURE_OPENAI_API_KEY": KEY}
    with preset(tmp_path, monkeypatch, AzureBackend(), AzureVendor(), **variables) as stage:
        yield stage


@pytest.fixture
def mantle(tmp_path: Path, monkeypatch: Patch) -> Iterator[Stage]:
    vendor = MantleVendor(bases=("openai.gpt-oss-20b",))
    variables = {"AWS_BEDROCK_BASE_URL": "{url}/v1", "AWS_BEARER_TOKEN_BEDROCK": KEY}
    with preset(tmp_path, monkeypatch, MantleBackend(), vendor, **variables) as stage:
        yield stage


@pytest.fixture
def nebius(tmp_path: Path, monkeypatch: Patch) -> Iterator[Stage]:
    vendor = NebiusVendor(bases=(NEBIUS,))
    variables = {"NEBIUS_BASE_URL": "{url}/v1/", "NEBIUS_API_KEY": KEY}
    with preset(tmp_path, monkeypatch, NebiusBackend(), vendor, **variables) as stage:
        yield stage


def created(stage: Stage) -> dict[str, object]:
    """Return the body of the last create call, without model and files."""
    body = stage.server.received("POST", "/fine_tuning/jobs$")[-1].json
    return {
        name: body[name] for name in body.keys() - {"model", "training_file", "validation_file"}
    }


def test_azure_trains_with_its_own_header_and_training_type(azure: Stage) -> None:
    job_id = azure.succeed({"training_type": "globalStandard"})
    assert azure.backend.find(LAUNCH_KEY, azure.folder) == [job_id]
    assert created(azure) == {
        "method": {"type": "supervised"},
        "suffix": "colours",
        "metadata": {"unitune": LAUNCH_KEY},
        "trainingType": "globalStandard",
    }
    for asked in azure.server.requests:
        assert asked.path.startswith("/openai/v1/")
        assert asked.headers["api-key"] == KEY
        assert "openai-organization" not in asked.headers
        assert not any(name.startswith("metadata") for name in asked.query)


def test_azure_token_wins_over_the_key(azure: Stage, monkeypatch: Patch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "a-token")
    sent = azure.backend.endpoint().request_headers(Parameters())
    assert sent == {"authorization": "Bearer a-token"}


def test_azure_takes_an_l2_multiplier_for_preferences(azure: Stage) -> None:
    job = {"method": "dpo"}
    azure.submit({"l2_multiplier": 0.25}, rows=TRIPLE_ROW * 20, job=job)
    method: Any = created(azure)["method"]
    assert method["dpo"]["hyperparameters"] == {"l2_multiplier": 0.25}


def test_azure_signs_in_by_entra_id_with_a_fresh_token_for_each_request(
    azure: Stage, monkeypatch: Patch
) -> None:
    """`azure_ad_token_provider` of OpenAI's SDK; a token lives for about an hour."""
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    scopes = list[str]()

    def token_for(scope: str) -> str:
        scopes.append(scope)
        azure.vendor.tokens = {f"token-{len(scopes)}"}
        return f"token-{len(scopes)}"

    azure_identity(monkeypatch, token_for)
    job_id = azure.succeed({})
    assert azure.backend.poll(job_id, "").state.name == "SUCCEEDED"
    chat = azure.backend.chat(MODEL)
    assert [reply_once(chat).error for _ in range(3)] == [None] * 3
    assert set(scopes) == {"https://cognitiveservices.azure.com/.default"}
    assert len(azure.server.requests) == len(
        {r.headers["authorization"] for r in azure.server.requests}
    )


def test_azure_without_a_token_says_why_and_how_to_sign_in(
    azure: Stage, monkeypatch: Patch
) -> None:
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(UserError, match=r"AZURE_OPENAI_API_KEY.*Or install azure-identity"):
        azure.backend.poll("ftjob-1", "")

    def refuse(scope: str) -> str:
        raise LookupError(f"no credential for {scope}")

    azure_identity(monkeypatch, refuse)
    with pytest.raises(
        UserError, match=r"Entra ID did not return a token: no credential.*`az login`"
    ):
        azure.backend.poll("ftjob-1", "")


def test_mantles_short_lived_key_is_the_one_that_awss_library_makes(
    monkeypatch: Patch,
) -> None:
    """By aws-bedrock-token-generator 1.1.0 with botocore 1.44.8, at that time with these keys."""
    monkeypatch.setattr(
        "botocore.auth.get_current_datetime", lambda: datetime(2026, 11, 30, 12, tzinfo=UTC)
    )
    keys = {"KEY_ID": "AKIDEXAMPLE", "SECRET_ACCESS_KEY": "secret-example"}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["KEY_ID"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["SECRET_ACCESS_KEY"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session-example")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    token = MantleBackend().endpoint().token
    assert token is not None
    call = base64.b64decode(token().removeprefix("bedrock-api-key-")).decode()
    assert call == (
        "bedrock.amazonaws.com/?Action=CallWithBearerToken&X-Amz-Algorithm=AWS4-HMAC-SHA256&"
        "X-Amz-Credential=AKIDEXAMPLE%2F20261130%2Fus-west-2%2Fbedrock%2Faws4_request&"
        "X-Amz-Date=20261130T120000Z&X-Amz-Expires=43200&X-Amz-SignedHeaders=host&"
        "X-Amz-Security-Token=session-example&"
        "X-Amz-Signature=34821ca0c2c5498a8c3bb527e04a04296eba2dc54a834e192d3db57a4dc0d14d&Version=1"
    )


def test_azure_cannot_delete_models(azure: Stage) -> None:
    with pytest.raises(Unsupported, match="console"):
        azure.backend.delete_model(TunedModel(backend="azure", name="ft:x", base=MODEL))


def test_mantle_reinforces_with_a_lambda_and_without_a_suffix(mantle: Stage) -> None:
    job_id = mantle.succeed(
        {"grader": LAMBDA, "learning_rate_multiplier": 1.0},
        rows=GRADED_ROW * 100,
        job={"method": "rft", "tuning": Tuning(epochs=1, batch_size=4)},
    )
    assert mantle.backend.find(LAUNCH_KEY, mantle.folder) == [job_id]
    assert created(mantle) == {
        "method": {
            "type": "reinforcement",
            "reinforcement": {
                "grader": LAMBDA,
                "hyperparameters": {
                    "n_epochs": 1,
                    "batch_size": 4,
                    "learning_rate_multiplier": 1.0,
                },
            },
        },
        "metadata": {"unitune": LAUNCH_KEY},
    }


def test_mantle_is_in_its_region(monkeypatch: Patch) -> None:
    monkeypatch.delenv("AWS_BEDROCK_BASE_URL", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", KEY)
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert MantleBackend().endpoint().url == "https://bedrock-mantle.us-west-2.api.aws/v1"
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(UserError, match="AWS_REGION"):
        MantleBackend().endpoint()


def test_nebius_takes_hyperparameters_of_its_own(nebius: Stage) -> None:
    tuning = Tuning(
        epochs=2,
        batch_size=8,
        learning_rate=1e-4,
        warmup=0.1,
        weight_decay=0.01,
        seed=7,
        lora=Lora(rank=16, alpha=32.0),
    )
    job_id = nebius.succeed({"packing": False}, job={"tuning": tuning})
    assert created(nebius) == {
        "hyperparameters": {
            "n_epochs": 2,
            "batch_size": 8,
            "learning_rate": 1e-4,
            "lora": True,
            "lora_r": 16,
            "lora_alpha": 32.0,
            "warmup_ratio": 0.1,
            "weight_decay": 0.01,
            "packing": False,
        },
        "seed": 7,
        "suffix": LAUNCH_KEY,
    }
    found = nebius.backend.import_job(job_id)
    assert found.tuning == {
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 1e-4,
        "warmup": 0.1,
        "weight_decay": 0.01,
        "lora": {"rank": 16, "alpha": 32.0},
        "seed": 7,
    }


def test_nebius_is_found_by_its_suffix(nebius: Stage) -> None:
    job_id = nebius.submit()
    nebius.submit(key=LAUNCH_KEY + "0")
    assert nebius.backend.find(LAUNCH_KEY, nebius.folder) == [job_id]


def test_nebius_names_the_last_checkpoint_as_its_model(nebius: Stage) -> None:
    job_id = nebius.submit()
    model = nebius.follow(job_id)[-1].model
    assert model is not None
    assert model.name == f"{job_id}:ftckpt_0001_4"


def test_job_without_any_model_yet_is_polled_on(nebius: Stage, monkeypatch: Patch) -> None:
    monkeypatch.setattr(NebiusVendor, "_saved", lambda _self, _job: [])
    job_id = nebius.submit()
    statuses = [nebius.backend.poll(job_id, "") for _ in range(9)]
    assert (statuses[-1].state, statuses[-1].raw) == (State.UNKNOWN, "succeeded")


def test_nebius_adapters_cannot_be_both_set_and_off(nebius: Stage) -> None:
    with pytest.raises(JobError, match=r"tuning\.lora\.rank"):
        nebius.submit({"lora": False}, job={"tuning": Tuning(lora=Lora(rank=8))})
    nebius.submit({"lora": False})
    assert created(nebius)["hyperparameters"] == {"lora": False}


@pytest.mark.parametrize(
    ("backend", "variable"),
    [
        (AzureBackend(), "AZURE_OPENAI_ENDPOINT"),
        (MantleBackend(), "AWS_BEARER_TOKEN_BEDROCK"),
        (NebiusBackend(), "NEBIUS_API_KEY"),
    ],
)
def test_missing_environment_is_named(
    backend: WireBackend[Any], variable: str, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match=variable):
        backend.poll("ftjob-1", "")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: Patch) -> Iterator[Stage]:
    """A stage where the job names a server beside OpenAI's own, which must not be asked."""
    with on_stage(tmp_path, monkeypatch) as stage, serve(OpenAIVendor(key="sk-other")) as other:
        monkeypatch.setenv("OTHER_KEY", "sk-other")
        monkeypatch.setenv("UNITUNE_ALLOW_KEYS", f"OTHER_KEY@{other.url}")
        stage.server = other
        yield stage


def launch_at(stage: Stage) -> Launch:
    """Hand files over as the core does: with the job in the run's folder."""
    job = stage.job({"base_url": f"{stage.server.url}/v1/"})
    job.save(stage.folder / "job.yaml")
    return Launch(LAUNCH_KEY, job, stage.upload("train.jsonl", CHAT_ROW * 10), None, stage.folder)


def test_server_that_a_job_names_is_asked_alone_and_found_again(elsewhere: Stage) -> None:
    backend = elsewhere.backend
    job_id = backend.submit(launch_at(elsewhere))
    assert job_id.endswith(f"@{elsewhere.server.url}/v1")
    assert backend.find(LAUNCH_KEY, elsewhere.folder) == [job_id]
    model = elsewhere.follow(job_id)[-1].model
    assert model is not None
    chat = backend.chat(model)
    request = Request(messages=(Message(role="user", content="Colour of snow?"),), max_tokens=5)
    assert reply_once(chat, request).error is None
    assert elsewhere.server.url in chat.fingerprint
    assert elsewhere.server.received("POST", "/chat")[-1].json["max_tokens"] == 5
    assert model.name == backend.checkpoints(job_id, MODEL)[-1].model.name.replace(
        ":ckpt-step-4", ""
    )
    assert backend.import_job(job_id).training is not None
    backend.delete_model(model)
    assert elsewhere.recorder.exchanges == []


def test_server_that_a_job_names_gets_the_launch_key_as_suffix_too(elsewhere: Stage) -> None:
    elsewhere.backend.submit(launch_at(elsewhere))
    assert elsewhere.server.received("POST", "/jobs$")[-1].json["suffix"] == LAUNCH_KEY


def test_server_that_a_job_names_gets_no_batches(elsewhere: Stage) -> None:
    model = elsewhere.follow(elsewhere.backend.submit(launch_at(elsewhere)))[-1].model
    assert model is not None
    sent = len(elsewhere.server.requests)
    request = Request(messages=(Message(role="user", content="Colour of snow?"),))
    with pytest.raises(Unsupported, match="Run without --batch"):
        elsewhere.backend.submit_batch(LAUNCH_KEY, model, {f"{LAUNCH_KEY}-1": request})
    assert sent == len(elsewhere.server.requests)
    assert elsewhere.recorder.exchanges == []


@pytest.mark.parametrize("name", ["azure", "mantle", "nebius"])
def test_offer_of_a_preset_says_why_it_has_no_batches(name: str) -> None:
    assert any("--batch" in lacked for lacked in registry.offer(name).lacks)


def test_key_of_openai_is_never_sent_to_a_server_that_a_job_names(
    elsewhere: Stage, monkeypatch: Patch
) -> None:
    monkeypatch.delenv("UNITUNE_ALLOW_KEYS")
    with pytest.raises(UserError, match=f"unitune keys allow {elsewhere.server.url} VARIABLE"):
        launch_at(elsewhere)
    assert elsewhere.server.requests == []
