"""Both sides of Azure's management API, held against Azure's own client, and deployments by it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from unit.providers.openai_spec import LAUNCH_KEY, Stage
from unit.providers.test_openai_presets import preset
from vendors.openai.azure import ARM_TOKEN, AzureVendor

from unitune.errors import BackendError
from unitune.testing.loopback import Server, VendorRequest, VendorResponse, serve
from unitune.workspace import user_config
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


def test_azures_own_client_reads_what_we_deployed_and_takes_it_down(azure: Stage) -> None:
    theirs, ours = client(azure.server), azure.backend
    model = azure.backend.poll(azure.succeed(), "").model
    assert model is not None
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


def test_our_deployment_has_the_fields_that_azures_own_client_sends(azure: Stage) -> None:
    from azure.mgmt.cognitiveservices import models  # noqa: PLC0415 - skipped without it

    model = azure.backend.poll(azure.succeed(), "").model
    assert model is not None
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


def test_a_missing_quota_says_what_to_do(azure: Stage) -> None:
    model = azure.backend.poll(azure.succeed(), "").model
    assert model is not None
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
        model = azure.backend.poll(azure.succeed(), "").model
        assert model is not None
        azure.backend.deploy(model, "unitune-1", {})
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
    model = azure.backend.poll(azure.succeed(), "").model
    assert model is not None
    azure.backend.deploy(model, "unitune-1", {})
    tokens = {request.headers["authorization"] for request in azure.server.requests}
    assert tokens == {"Bearer entra-token", f"Bearer {ARM_TOKEN}"}
