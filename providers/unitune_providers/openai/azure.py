"""Deployments on Azure: a tuned model answers from one only, and it costs by the hour.

They are made through Azure's management API (ARM), which has an address and a token of its own. The
request's form is that of Microsoft's reference for api-version 2024-10-01; it was never sent to
Azure from here. A deployment may be called ready by ARM some minutes before it answers.

Source: learn.microsoft.com/rest/api/aiservices/accountmanagement/deployments/create-or-update.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from typing import Literal, Protocol, cast
from urllib.parse import urlsplit

import httpx2
from pydantic import JsonValue

from unitune.backends.capabilities import DeploymentStatus
from unitune.backends.credentials import environment_address
from unitune.backends.kit.bodies import GZIP_ONLY, BodyError, hooks
from unitune.backends.options import validated
from unitune.backends.rate_limits import parse_retry_after
from unitune.errors import BackendError, Unreachable, UserError
from unitune.models import TunedModel
from unitune.security.addresses import is_redirect, redirected
from unitune.security.redaction import redacted
from unitune_providers.openai.options import AzureDeployOptions
from unitune_providers.openai.server import required

ARM_URL = "https://management.azure.com"
API_VERSION = "2024-10-01"
SECONDS = 60.0
"""Longest wait for an answer of the management API."""
FORMATS = {
    r"gpt-oss": "Microsoft",
    r"ministral": "Mistral AI",
    r"llama": "Meta",
    r"qwen": "Alibaba",
}
"""Azure's word for a model's maker, by name of the base; any other is OpenAI's.

Source: microsoft/azure-skills, finetuning/references/deployment.md, a copy; not verified.
"""
OPENAI = "OpenAI"
STATES: dict[str, Literal["starting", "ready", "failed", "gone"]] = {
    "Succeeded": "ready",
    "Failed": "failed",
    "Canceled": "failed",
    "Deleting": "gone",
}
"""Our words by ARM's provisioningState; any other is at work."""
GONE = (204, 404)


def maker_of(base: str) -> str:
    """Return Azure's word for the maker of a base model, by its name."""
    return next((maker for mark, maker in FORMATS.items() if re.search(mark, base.lower())), OPENAI)


class Token(Protocol):
    """What azure-identity returns."""

    token: str


class Credential(Protocol):
    """What azure-identity offers."""

    def get_token(self, scope: str) -> Token:
        """Return a token for a scope."""
        ...


def deploy(model: TunedModel, name: str, options: Mapping[str, JsonValue]) -> str:
    """Bring a tuned model up; a deployment of this name that stands is left as it is.

    Args:
        model: What a run left behind.
        name: Of the deployment.
        options: As `AzureDeployOptions` has them.

    Raises:
        JobError: An option is not known.
        BackendError: Azure refused, or failed.
    """
    wanted = validated(AzureDeployOptions, options, "deploy option")
    if _send("GET", name, f"show deployment {name}").status_code not in GONE:
        return name
    maker = maker_of(model.base)
    sku = wanted.sku or ("Standard" if maker == OPENAI else "GlobalStandard")
    body = {
        "sku": {"name": sku, "capacity": wanted.capacity},
        "properties": {"model": {"format": maker, "name": model.name, "version": wanted.version}},
    }
    _send("PUT", name, f"deploy {model.name}", body)
    return name


def exists(name: str) -> bool:
    """Return whether there is a deployment of this name.

    Raises:
        BackendError: Azure failed.
    """
    return _send("GET", name, f"show deployment {name}").status_code not in GONE


def deployment_status(name: str, model: TunedModel) -> DeploymentStatus:
    """Return how a deployment stands; its model is asked by the deployment's name.

    Args:
        name: Of the deployment.
        model: What was deployed.

    Raises:
        BackendError: Azure failed.
    """
    asked = model.model_copy(update={"name": name})
    answer = _send("GET", name, f"show deployment {name}")
    if answer.status_code in GONE:
        return DeploymentStatus("gone", asked, "not found")
    told = _json(answer, name)
    raw = str(told.get("properties", {}).get("provisioningState", ""))
    return DeploymentStatus(STATES.get(raw, "starting"), asked, raw)


def undeploy(name: str) -> None:
    """Take a deployment down; one that is gone is no error.

    Args:
        name: Of the deployment.

    Raises:
        BackendError: Azure failed.
    """
    _send("DELETE", name, f"delete deployment {name}")


def _send(
    method: str, name: str, doing: str, body: Mapping[str, object] | None = None
) -> httpx2.Response:
    """Send a request to ARM, and return an answer that says yes or "not there"."""
    token = _token()
    headers = {"Authorization": f"Bearer {token}"}
    address = _address(name)
    try:
        with httpx2.Client(event_hooks=hooks(), timeout=SECONDS, follow_redirects=False) as client:
            answer = client.request(
                method,
                address,
                params={"api-version": API_VERSION},
                json=body,
                headers=headers | GZIP_ONLY,
            )
    except (httpx2.TransportError, BodyError) as error:
        raise Unreachable(f"azure could not {doing}: no whole answer from {address}.") from error
    if answer.is_success or (answer.status_code in GONE and method != "PUT"):
        return answer
    moved = is_redirect(answer.status_code)
    said = redirected(answer.headers.get("location")) if moved else _said(answer)
    words = redacted(said, [token])
    raise BackendError(
        f"azure could not {doing}: {words} (HTTP {answer.status_code}).",
        status=answer.status_code,
        request_id=answer.headers.get("x-ms-request-id"),
        retry_after=parse_retry_after(answer.headers),
    )


def _json(answer: httpx2.Response, name: str) -> dict[str, dict[str, JsonValue]]:
    try:
        return cast("dict[str, dict[str, JsonValue]]", answer.json())
    except ValueError as error:
        raise Unreachable(
            f"azure's answer on deployment {name} cannot be read: {error}."
        ) from error


def _said(answer: httpx2.Response) -> str:
    try:
        told = cast("dict[str, dict[str, str]]", answer.json())
        return told["error"]["message"].rstrip(".")
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase


def endpoint() -> str:
    """Return the address of the Azure resource.

    Raises:
        UserError: The environment does not name it, or it is no address.
    """
    required("AZURE_OPENAI_ENDPOINT", "the address of the Azure resource")
    return environment_address("AZURE_OPENAI_ENDPOINT") or ""


def _address(name: str) -> str:
    subscription = required("AZURE_SUBSCRIPTION_ID", "the Azure subscription")
    group = required("AZURE_RESOURCE_GROUP", "the resource group of the Azure resource")
    host = urlsplit(endpoint()).hostname or ""
    account = os.environ.get("AZURE_OPENAI_ACCOUNT") or host.partition(".")[0]
    root = environment_address("AZURE_RESOURCE_MANAGER_URL") or ARM_URL
    return (
        f"{root}/subscriptions/{subscription}/resourceGroups/{group}/providers/"
        f"Microsoft.CognitiveServices/accounts/{account}/deployments/{name}"
    )


def _token() -> str:
    given = os.environ.get("AZURE_ACCESS_TOKEN")
    if given:
        return given
    try:
        identity = importlib.import_module("azure.identity")
    except ModuleNotFoundError as error:
        raise UserError(
            "a deployment on Azure needs a token for its management API. Set the environment "
            "variable AZURE_ACCESS_TOKEN (az account get-access-token prints one), or install "
            "azure-identity."
        ) from error
    credential = cast("Credential", identity.DefaultAzureCredential())
    return credential.get_token(f"{ARM_URL}/.default").token
