"""Sign in to an Azure resource, and deploy its tuned models with Azure's management API (ARM).

Deployments alone serve tuned models. Both APIs take tokens of Entra ID, each of its own scope.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import JsonValue

from unitune.backends.capabilities import DeploymentStatus
from unitune.backends.credentials import environment_address, key_in
from unitune.backends.kit.api import Api, Query
from unitune.backends.kit.entra import ENTRA_ADVICE, entra_token
from unitune.backends.kit.errors import Endpoint, Vendor
from unitune.backends.kit.hosted import required
from unitune.backends.options import validated
from unitune.errors import BackendError
from unitune.models import TunedModel
from unitune.security.json_fields import Fields
from unitune.workspace.user_settings import variable
from unitune_providers.openai.options import AzureDeployOptions

ARM_URL = "https://management.azure.com"
TOKEN = "AZURE_ACCESS_TOKEN"  # noqa: S105 - the name of a variable
VERSION = {"api-version": "2024-10-01"}
# Azure's name of a model's maker, by a part of the base's name; default OpenAI. Source:
# microsoft/azure-skills, finetuning/references/deployment.md, a copy; not verified.
MAKERS = {
    "gpt-oss": "Microsoft",
    "ministral": "Mistral AI",
    "llama": "Meta",
    "qwen": "Alibaba",
}
OPENAI = "OpenAI"
ENTRA_SCOPE = "https://cognitiveservices.azure.com/.default"
# Source: MicrosoftDocs/azure-ai-docs, openai/quotas-limits.md, 2026-02-17
LIMITS_ADVICE = (
    "Wait, or raise the deployment's capacity or your quota. A resource runs 3 trainings at a time "
    "(5 of type developer), queues 20 and keeps 100."
)
QUOTA_CODE = "InsufficientQuota"
QUOTA_ADVICE = (
    "Lower --option capacity=N, delete other deployments of this model and type, deploy with "
    "another sku, or request quota at https://aka.ms/oai/stuquotarequest."
)
# States by ARM's provisioningState; any other is starting
STATES: dict[str, Literal["starting", "ready", "failed", "gone"]] = {
    "Succeeded": "ready",
    "Failed": "failed",
    "Canceled": "failed",
    "Deleting": "gone",
}


class AzureResource:
    """Sign-in to a resource, and its deployments, which alone serve tuned models.

    They are made with Azure's management API (ARM), which has its own address and token. It may
    report a deployment as ready some minutes before it answers. This was not tested at Azure.

    Source: learn.microsoft.com/rest/api/aiservices/accountmanagement/deployments/create-or-update
    (api-version 2024-10-01).
    """

    capabilities = ("Deploys",)
    sign_in_advice = ENTRA_ADVICE

    def sign_in(self) -> Callable[[], str] | None:
        """Return a function that returns a token of Entra ID for each request."""
        return entra_token(ENTRA_SCOPE)

    def deploy(self, model: TunedModel, name: str, options: Mapping[str, JsonValue]) -> str:
        """Deploy a tuned model, unless a deployment of this name exists."""
        chosen = validated(AzureDeployOptions, options, "deploy option")
        if self.find_deployment(name) is None:
            maker = maker_of(model.base)
            sku = chosen.sku or ("Standard" if maker == OPENAI else "GlobalStandard")
            body: dict[str, JsonValue] = {
                "sku": {"name": sku, "capacity": chosen.capacity},
                "properties": {
                    "model": {"format": maker, "name": model.name, "version": chosen.version}
                },
            }
            try:
                action = f"deploy {model.name}"
                _arm().request("PUT", name, action=action, json=body, params=VERSION)
            except BackendError as error:
                if QUOTA_CODE not in str(error):
                    raise
                raise BackendError(
                    f"{error} {QUOTA_ADVICE}", status=error.status, request_id=error.request_id
                ) from error
        return name

    def deployment_of(self, model: str) -> str | None:
        """Return the name of a deployment that serves a model, or None."""
        listed = _arm().pages(
            action="list deployments", next_page=_next_link, items="value", query=VERSION
        )
        served = (
            each.text("name")
            for each in listed
            if each.fields("properties").fields("model").text("name") == model
        )
        return next((name for name in served if name), None)

    def find_deployment(self, name: str) -> str | None:
        return name if _arm().find(name, action=f"show deployment {name}", query=VERSION) else None

    def deployment_status(self, ref: str, model: TunedModel) -> DeploymentStatus:
        served = model.model_copy(update={"name": ref})
        deployment = _arm().find(ref, action=f"show deployment {ref}", query=VERSION)
        if deployment is None:
            return DeploymentStatus("gone", served, "not found")
        raw = deployment.fields("properties").text("provisioningState") or ""
        return DeploymentStatus(STATES.get(raw, "starting"), served, raw)

    def undeploy(self, ref: str) -> None:
        _arm().delete(ref, action=f"delete deployment {ref}", query=VERSION)


def resource_address() -> str:
    """Return the address of the Azure resource from the environment."""
    required("AZURE_OPENAI_ENDPOINT", "the address of the Azure resource")
    return environment_address("AZURE_OPENAI_ENDPOINT") or ""


def maker_of(base: str) -> str:
    """Return Azure's name of the maker of a base model."""
    return next((maker for mark, maker in MAKERS.items() if mark in base.lower()), OPENAI)


def _arm() -> Api:
    subscription = required("AZURE_SUBSCRIPTION_ID", "the Azure subscription")
    group = required("AZURE_RESOURCE_GROUP", "the resource group of the Azure resource")
    host = urlsplit(resource_address()).hostname or ""
    account = variable("AZURE_OPENAI_ACCOUNT") or host.partition(".")[0]
    root = environment_address("AZURE_RESOURCE_MANAGER_URL") or ARM_URL
    url = (
        f"{root}/subscriptions/{subscription}/resourceGroups/{group}/providers/"
        f"Microsoft.CognitiveServices/accounts/{account}/deployments"
    )
    token = None if key_in(TOKEN) else entra_token(f"{ARM_URL}/.default")
    what = "the token for Azure's management API, which a deployment needs,"
    how = f"`az account get-access-token` prints one. {ENTRA_ADVICE}"
    given = token or partial(required, TOKEN, what, how)
    vendor = Vendor("azure", None if token else TOKEN, root, secrets=(given(),))
    return Api(Endpoint(vendor, url, token=given))


def _next_link(page: Fields) -> Query | None:
    """Return the parameters of the next page; only those, so that no other host is asked."""
    return dict(parse_qsl(urlsplit(page.text("nextLink") or "").query)) or None
