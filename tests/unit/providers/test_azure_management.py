"""Both sides of Azure's management API, held against Azure's own client, and deployments by it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from unit.providers.company_stage import azure_identity
from unit.providers.openai_spec import LAUNCH_KEY, Stage
from unit.providers.test_openai_presets import preset
from vendors.openai.azure import ARM_TOKEN, AzureVendor

from unitune.errors import BackendError, JobError, UserError
from unitune.models import TunedModel
from unitune.testing.loopback import Server, VendorRequest, VendorResponse, serve
from unitune.workspace import user_config
from unitune_providers.openai.azure import ARM_URL
from unitune_providers.openai.backend import AzureBackend

VARIABLES = {
    "AZURE_OPENAI_ENDPOINT": "{url}",
    "AZURE_OPENAI_API_KEY": AzureVendor().key,
    "AZURE_OPENAI_ACCOUNT": "resource-1",
    "AZURE_SUBSCRIPTION_ID": "sub-1",
    "AZURE_RESOURCE_GROUP": "group-1",
    "AZURE_RESOURCE_MANAGER_URL": "{url}",
    "AZURE_ACCESS_TOKEN": ARM_TOKEN,
}


@pytest.fixture
def azure(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with preset(tmp_path, monkeypatch, AzureBackend(), AzureVendor(), **VARIABLES) as stage:
        yield stage


def tuned(azure: Stage, job_id: str) -> TunedModel:
    model = azure.backend.poll(job_id, "").model
    assert model is not None
    return model


@pytest.fixture
def model(azure: Stage) -> TunedModel:
    return tuned(azure, azure.succeed())


def client(server: Server) -> Any:
    """Return Azure's own client; its token may pass without TLS on loopback alone."""
    management = pytest.importorskip("azure.mgmt.cognitiveservices", reason="needs the extra dev")
    from azure.core.credentials import AzureKeyCredential  # noqa: PLC0415 - a package of the extra
    from azure.core.pipeline.policies import AzureKeyCredentialPolicy  # noqa: PLC0415 - likewise

    credential = AzureKeyCredential(ARM_TOKEN)
    return management.CognitiveServicesManagementClient(
        credential,
        "sub-1",
        base_url=server.url,
        api_version="2024-10-01",
        authentication_policy=AzureKeyCredentialPolicy(
            credential, "authorization", prefix="Bearer"
        ),
    )


def test_azures_own_client_reads_what_we_deployed_and_takes_it_down(
    azure: Stage, model: TunedModel
) -> None:
    theirs, ours = client(azure.server), azure.backend
    for number in range(3):
        ours.deploy(model, f"unitune-{number}", {"sku": "GlobalStandard", "capacity": 5})
    found = theirs.deployments.get("group-1", "resource-1", "unitune-1")
    assert (found.name, found.sku.name, found.sku.capacity) == ("unitune-1", "GlobalStandard", 5)
    assert found.properties.model.name == model.name
    assert found.properties.provisioning_state == "Succeeded"
    listed = theirs.deployments.list("group-1", "resource-1")
    assert [each.name for each in listed] == [f"unitune-{number}" for number in range(3)]
    theirs.deployments.begin_delete("group-1", "resource-1", "unitune-1").result()
    assert ours.find_deployment("unitune-1") is None


def test_our_deployment_has_the_fields_that_azures_own_client_sends(
    azure: Stage, model: TunedModel
) -> None:
    from azure.mgmt.cognitiveservices import models  # noqa: PLC0415 - skipped without it

    azure.backend.deploy(model, "unitune-1", {})
    theirs = models.Deployment(
        sku=models.Sku(name="Standard", capacity=100),
        properties=models.DeploymentProperties(
            model=models.DeploymentModel(format="OpenAI", name=model.name, version="1")
        ),
    )
    client(azure.server).deployments.begin_create_or_update(
        "group-1", "resource-1", "unitune-2", theirs
    ).result()
    ours, sdk = azure.server.received("PUT", "/subscriptions/")
    assert ours.json == sdk.json
    assert ours.query == sdk.query


def test_a_missing_quota_says_what_to_do(azure: Stage, model: TunedModel) -> None:
    with pytest.raises(BackendError, match=r"InsufficientQuota.*Lower --option capacity") as caught:
        azure.backend.deploy(model, "unitune-1", {"capacity": 2000})
    assert caught.value.status == 400
    azure.backend.deploy(model, "unitune-1", {"capacity": 1000})


def test_too_many_trainings_say_how_many_azure_takes(azure: Stage) -> None:
    azure.vendor.trainings = 3
    for number in range(3):
        azure.submit(key=f"r{number:016d}-1")
    with pytest.raises(BackendError, match="runs 3 trainings at a time") as caught:
        azure.submit(key=LAUNCH_KEY)
    assert caught.value.status == 429


def test_a_checkpoint_is_deployed_by_its_id(azure: Stage) -> None:
    job_id = azure.succeed()
    first, last = azure.backend.checkpoints(job_id, "gpt-4.1-2025-04-14")
    assert first.step < last.step
    assert first.model.name.startswith("ftchkpt-")
    azure.backend.deploy(first.model, "unitune-1", {})
    (sent,) = azure.server.received("PUT", "/subscriptions/")
    assert sent.json["properties"]["model"]["name"] == first.model.name
    assert azure.backend.deployment_status("unitune-1", first.model).state == "ready"


def test_a_job_is_imported_with_its_tier_and_answers_from_its_deployment(azure: Stage) -> None:
    job_id = azure.succeed({"training_type": "developer"})
    model = azure.backend.poll(job_id, "").model
    assert model is not None
    imported = azure.backend.import_job(job_id)
    assert imported.options["training_type"] == "developerTier"
    assert imported.model == model
    assert any("no deployment serves" in note for note in imported.notes)
    azure.backend.deploy(model, "unitune-1", {})
    served = azure.backend.import_job(job_id).model
    assert served is not None
    assert served.name == "unitune-1"


def test_a_job_is_imported_without_access_to_the_management_api(
    azure: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = azure.succeed()
    monkeypatch.delenv("AZURE_SUBSCRIPTION_ID")
    imported = azure.backend.import_job(job_id)
    assert imported.model is not None
    (note,) = (note for note in imported.notes if "deployments" in note)
    assert "AZURE_SUBSCRIPTION_ID" in note


def test_azures_own_package_signs_in_with_a_managed_identity(
    azure: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """azure-identity asks App Service's endpoint for a token of the scope, here on loopback."""
    identity = pytest.importorskip("azure.identity", reason="needs the extra `azure`")

    class Identities:
        def answer(self, asked: VendorRequest) -> VendorResponse:
            assert asked.headers["x-identity-header"] == "identity-secret"
            resource = asked.first("resource")
            token = (
                "entra-token" if resource == "https://cognitiveservices.azure.com" else ARM_TOKEN
            )
            return VendorResponse(
                {
                    "access_token": token,
                    "expires_on": "4102444800",
                    "resource": resource,
                    "token_type": "Bearer",
                }
            )

    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    monkeypatch.delenv("AZURE_ACCESS_TOKEN")
    with serve(Identities()) as server:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{server.url}/token")
        monkeypatch.setenv("IDENTITY_HEADER", "identity-secret")
        credential = Mock(return_value=identity.ManagedIdentityCredential())
        monkeypatch.setattr("unitune.backends.kit.entra._entra_credential", credential)
        azure.backend.deploy(tuned(azure, azure.succeed()), "unitune-1", {})
        assert azure.backend.find_deployment("unitune-1") == "unitune-1"
        assert {request.path for request in server.requests} == {"/token"}


def test_a_token_command_signs_in_to_both_apis(
    azure: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    monkeypatch.delenv("AZURE_ACCESS_TOKEN")
    commands = {
        "AZURE_OPENAI_AD_TOKEN": (sys.executable, "-c", "print('entra-token')"),
        "AZURE_ACCESS_TOKEN": (sys.executable, "-c", f"print({ARM_TOKEN!r})"),
    }
    config = user_config.read().model_copy(update={"key_commands": commands})
    monkeypatch.setattr(user_config, "read", Mock(return_value=config))
    monkeypatch.setattr("unitune.backends.credentials._printed", {})
    azure.backend.deploy(tuned(azure, azure.succeed()), "unitune-1", {})
    tokens = {request.headers["authorization"] for request in azure.server.requests}
    assert tokens == {"Bearer entra-token", f"Bearer {ARM_TOKEN}"}


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("Creating", "starting"),
        ("Succeeded", "ready"),
        ("Failed", "failed"),
        ("Canceled", "failed"),
        ("Deleting", "gone"),
    ],
)
def test_a_deployment_has_the_state_that_azure_reports(
    azure: Stage, model: TunedModel, word: str, state: str
) -> None:
    ref = azure.backend.deploy(model, "unitune-1", {"capacity": 7})
    azure.vendor.provisioning = word
    status = azure.backend.deployment_status(ref, model)
    assert (status.state, status.raw, status.model.name) == (state, word, "unitune-1")


def test_a_second_deploy_of_a_name_leaves_the_first_as_it_is(
    azure: Stage, model: TunedModel
) -> None:
    for options in ({"capacity": 7}, {}):
        assert azure.backend.deploy(model, "unitune-1", options) == "unitune-1"
    assert len(azure.server.received("PUT", "/subscriptions/")) == 1


@pytest.mark.parametrize(
    ("base", "maker", "sku"),
    [
        ("gpt-4.1-2025-04-14", "OpenAI", "Standard"),
        ("gpt-oss-20b", "Microsoft", "GlobalStandard"),
        ("Llama-3.3-70B-Instruct", "Meta", "GlobalStandard"),
        ("Qwen-32B", "Alibaba", "GlobalStandard"),
    ],
)
def test_open_models_have_their_makers_format(
    azure: Stage, model: TunedModel, base: str, maker: str, sku: str
) -> None:
    azure.backend.deploy(model.model_copy(update={"base": base}), "unitune-1", {})
    body = azure.server.received("PUT", "/subscriptions/")[0].json
    assert (maker, sku) == (body["properties"]["model"]["format"], body["sku"]["name"])


def test_an_unknown_option_is_named(azure: Stage, model: TunedModel) -> None:
    with pytest.raises(JobError, match="capacitee"):
        azure.backend.deploy(model, "unitune-1", {"capacitee": 1})
    assert azure.server.received("PUT", "") == []


def test_a_refusal_shows_azures_words_and_request_id_but_no_token(
    azure: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = {"error": {"code": "TooManyRequests", "message": f"Too often by {ARM_TOKEN}."}}
    headers = {"Retry-After": "7", "x-ms-request-id": "request-1"}
    monkeypatch.setattr(
        azure.server.vendor, "answer", lambda _: VendorResponse(error, 429, headers)
    )
    message = r"Too often by \*\*\* \[TooManyRequests\] \(HTTP 429\)"
    with pytest.raises(BackendError, match=message) as caught:
        azure.backend.undeploy("unitune-1")
    assert (caught.value.retry_after, caught.value.request_id) == (7.0, "request-1")


def test_a_missing_token_says_where_one_comes_from(
    azure: Stage, model: TunedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_ACCESS_TOKEN")
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(UserError, match=r"AZURE_ACCESS_TOKEN.*unitune's extra `azure`"):
        azure.backend.deployment_status("unitune-1", model)
    azure_identity(monkeypatch, {f"{ARM_URL}/.default": ARM_TOKEN}.__getitem__)
    assert azure.backend.deployment_status("unitune-1", model).state == "gone"
