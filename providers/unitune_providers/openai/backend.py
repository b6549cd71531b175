"""Define the backends with OpenAI's API: OpenAI itself, Azure, Bedrock's Mantle and Nebius.

Each defines its address, its key, the settings of its create call, and how a lost job is found:

    openai   metadata, by which its list is filtered too; at another server also the suffix
    azure    metadata, which its lists return but do not filter by
    mantle   metadata, which its documentation does not guarantee; no suffix
    nebius   the suffix, as its API has no metadata

If a list may not show the key, the guarantee is `suffix only`: after an unanswered create call, a
single job with the key is adopted; otherwise the user decides.

Sources: Azure/azure-rest-api-specs, azure-v1-v1-generated.yaml, commit 31c65e1b; AWS user guide,
fine-tuning-openai-job-create, 2026; docs.tokenfactory.nebius.com, API 20260506.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import JsonValue

from unitune.backends.capabilities import DeploymentStatus
from unitune.backends.credentials import environment_address, key_in
from unitune.backends.kit.api import Api
from unitune.backends.kit.chat_completions import LimitName
from unitune.backends.kit.connection import certificate_advice, certificate_file
from unitune.backends.kit.errors import Endpoint, Vendor
from unitune.backends.kit.hosted import required
from unitune.backends.launch_keys import launch_key_in
from unitune.backends.options import validated
from unitune.backends.protocol import Guarantee, Launch
from unitune.errors import JobError, UserError
from unitune.job.job import Job
from unitune.models import TunedModel
from unitune.security.json_fields import Fields
from unitune.workspace.settings import variable
from unitune_providers.openai.batches import BatchingBackend
from unitune_providers.openai.jobs import METADATA_KEY, launch_keys
from unitune_providers.openai.options import (
    AzureDeployOptions,
    AzureOptions,
    Body,
    MantleOptions,
    NebiusOptions,
    OpenAIOptions,
    nebius_form,
    openai_form,
)
from unitune_providers.openai.wire import PausingBackend, Server, WireBackend

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
ENTRA_ADVICE = "Or install azure-identity and sign in with `az login` or a managed identity."
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
            _arm().request("PUT", name, action=f"deploy {model.name}", json=body, params=VERSION)
        return name

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


def entra_token(scope: str) -> Callable[[], str] | None:
    """Return a function that returns a valid token for a scope; None without azure-identity."""
    try:
        identity = importlib.import_module("azure.identity")
    except ModuleNotFoundError:
        return None

    def token() -> str:
        try:
            return _entra_credential(identity).get_token(scope).token
        except Exception as error:  # its ways to sign in raise many kinds
            reason = Vendor("Entra ID").safe(str(error))
            words = f"Entra ID did not return a token: {reason}. Sign in with `az login`, or set "
            words += "variables of azure-identity such as AZURE_CLIENT_ID and AZURE_TENANT_ID. "
            raise UserError(f"{words}{certificate_advice(reason)}".rstrip()) from error

    return token


@cache
def _entra_credential(identity: Any) -> Any:
    trusted = certificate_file("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    return identity.DefaultAzureCredential(**({"connection_verify": trusted} if trusted else {}))


OPENAI_URL = "https://api.openai.com/v1"
# Headers by environment variable; not sent to a server named in a job
ACCOUNT_HEADERS = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}
GLOBAL_STANDARD = ("globalStandard", "GlobalStandard")


class OpenAIBackend(BatchingBackend[OpenAIOptions], PausingBackend[OpenAIOptions]):
    """OpenAI, or the server in ``OPENAI_BASE_URL`` or in a job's ``base_url``.

    Another server may not keep metadata, so the launch key is also the suffix there.
    """

    name: ClassVar[str] = "openai"
    capabilities = ("GuaranteesByServer",)
    guarantee: ClassVar[Guarantee] = Guarantee.FINDABLE
    address = OPENAI_URL
    address_variable = "OPENAI_BASE_URL"
    key_variable = "OPENAI_API_KEY"
    options = OpenAIOptions

    def endpoint(self, path: str = "") -> Endpoint:
        """Return OpenAI's address with the key and the organisation in the environment."""
        endpoint = super().endpoint(path)
        named = {header: variable(name) for name, header in ACCOUNT_HEADERS.items()}
        account = {header: value for header, value in named.items() if value}
        return replace(endpoint, headers={**endpoint.headers, **account})

    def filters(self, server: Server) -> bool:
        """Return whether the list of jobs can be filtered by launch key, as at OpenAI itself."""
        return _is_openai(server)

    def guarantee_of(self, job: Job) -> Guarantee:
        server = self.server(self._address(job))
        shown = (key for listed in server.jobs() for key in launch_keys(listed))
        if _is_openai(server) or any(launch_key_in(key) for key in shown):
            return Guarantee.FINDABLE
        return Guarantee.SUFFIX_ONLY

    def validate_options(self, job: Job) -> None:
        """Refuse a job with options of another method or a server without an allowed key."""
        super().validate_options(job)
        if address := self._address(job):
            self.variable_for(address)

    def address_near(self, folder: Path) -> str | None:
        """Return the base_url of the job in a run's folder or its parent."""
        files = (around / "job.yaml" for around in (folder, folder.parent))
        file = next((file for file in files if file.exists()), None)
        return self._address(Job.load(file)) if file else None

    def submit(self, launch: Launch) -> str:
        """Create the job, with one call, at the server that has its files."""
        server, _ = self._at(launch.training.ref)
        address, url = self._address(launch.job), server.endpoint.url
        if address != (url if server.named else None):
            raise JobError(
                f"options.{self.name}.base_url is {address!r}, but the training file was uploaded "
                f"to {url}. Launch the job again."
            )
        return super().submit(launch)

    def settings(self, job: Job) -> Body:
        return openai_form(job, self.job_options(job))

    def key_fields(self, launch: Launch, server: Server) -> Body:
        """Return the launch key as metadata, and at another server also as suffix."""
        fields = super().key_fields(launch, server)
        return fields if _is_openai(server) else {**fields, "suffix": launch.key}

    def delete_model(self, model: TunedModel) -> None:
        server, name = self._at(model.name)
        server.delete("models", name, action=f"delete model {name}")

    def _address(self, job: Job) -> str | None:
        address = self.job_options(job).base_url
        return address.rstrip("/") if address else None


class AzureBackend(AzureResource, PausingBackend[AzureOptions]):
    """Azure OpenAI in Microsoft Foundry, with its v1 API."""

    name: ClassVar[str] = "azure"
    guarantee: ClassVar[Guarantee] = Guarantee.FINDABLE
    options = AzureOptions

    key_variable = "AZURE_OPENAI_API_KEY"
    key_header = "api-key"
    token_variable = "AZURE_OPENAI_AD_TOKEN"  # noqa: S105 - the name of a variable

    def base_url(self) -> str:
        address = resource_address()
        return address if address.endswith("/openai/v1") else f"{address}/openai/v1"

    def settings(self, job: Job) -> Body:
        options = self.job_options(job)
        kind = options.training_type
        if maker_of(job.base_model) != OPENAI and kind not in GLOBAL_STANDARD:
            raise JobError(
                f"options.azure.training_type is {kind!r}, but Azure trains open models such as "
                f"{job.base_model} only with globalStandard. Set it to globalStandard."
            )
        return {**openai_form(job, options), **({"trainingType": kind} if kind else {})}


class MantleBackend(WireBackend[MantleOptions]):
    """Bedrock's OpenAI-compatible endpoint, for reinforcement of open-weight models."""

    name: ClassVar[str] = "mantle"
    key_variable = "AWS_BEARER_TOKEN_BEDROCK"
    sign_in_advice = (
        "Or sign in to AWS and install unitune's extra `bedrock`, which makes short-lived keys "
        "from your profile, role or SSO session."
    )
    options = MantleOptions
    limit_name: ClassVar[LimitName] = "max_tokens"

    def base_url(self) -> str:
        """Return ``AWS_BEDROCK_BASE_URL``, or the endpoint of ``AWS_REGION``."""
        if url := environment_address("AWS_BEDROCK_BASE_URL"):
            return url
        return f"https://bedrock-mantle.{_aws_region()}.api.aws/v1"

    def sign_in(self) -> Callable[[], str] | None:
        """Return a function that makes a short-lived key from AWS's credentials."""
        try:
            from unitune_providers.bedrock.clients import short_lived_key  # noqa: PLC0415 - an extra
        except ModuleNotFoundError:
            return None
        return short_lived_key(_aws_region())

    def settings(self, job: Job) -> Body:
        return openai_form(job, self.job_options(job))

    def key_fields(self, launch: Launch, server: Server) -> Body:
        """Return the launch key as metadata, as Bedrock has no suffix."""
        del server
        return {"metadata": {METADATA_KEY: launch.key}}


class NebiusBackend(WireBackend[NebiusOptions]):
    """Nebius Token Factory."""

    name: ClassVar[str] = "nebius"
    address = "https://api.tokenfactory.nebius.com/v1"
    address_variable = "NEBIUS_BASE_URL"
    key_variable = "NEBIUS_API_KEY"
    options = NebiusOptions
    limit_name: ClassVar[LimitName] = "max_tokens"

    def settings(self, job: Job) -> Body:
        return nebius_form(job, self.job_options(job))

    def key_fields(self, launch: Launch, server: Server) -> Body:
        del server
        return {"suffix": launch.key}

    def checkpoint_name(self, job_id: str, checkpoint: Fields) -> str | None:
        """Return Nebius' name of a checkpoint for deployments."""
        name = checkpoint.text("id")
        return f"{job_id}:{name}" if name else None


def _aws_region() -> str:
    region = variable("AWS_REGION") or variable("AWS_DEFAULT_REGION")
    return region or required("AWS_REGION", "the region of Amazon Bedrock")


def _is_openai(server: Server) -> bool:
    """Return whether a server is OpenAI's, which has one per data residency region.

    Source: platform.openai.com/docs/guides/your-data, data residency: ``us.api.openai.com``, ….
    """
    address = urlsplit(server.endpoint.url)
    is_regional = address.scheme == "https" and (address.hostname or "").endswith(".api.openai.com")
    return server.endpoint.url == OPENAI_URL or is_regional
