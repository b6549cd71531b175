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

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import JsonValue

from unitune.backends.capabilities import DeploymentStatus, ImportedJob
from unitune.backends.credentials import environment_address
from unitune.backends.exactly_once import launch_key_in
from unitune.backends.kit.api import Api
from unitune.backends.kit.chat_completions import LimitName
from unitune.backends.kit.errors import Endpoint
from unitune.backends.kit.hosted import NoOptions, required
from unitune.backends.options import validated
from unitune.backends.protocol import Guarantee, Launch
from unitune.errors import BackendError, JobError, Unreachable, UserError
from unitune.job.job import Job
from unitune.models import TunedModel
from unitune.security.json_fields import Fields
from unitune.workspace.user_settings import variable
from unitune_providers.openai.azure import (
    LIMITS_ADVICE,
    OPENAI,
    AzureResource,
    maker_of,
    resource_address,
)
from unitune_providers.openai.batches import BatchingBackend
from unitune_providers.openai.jobs import METADATA_KEY, launch_keys
from unitune_providers.openai.options import (
    OPEN_MODELS_TYPES,
    TRAINING_TYPES,
    AzureOptions,
    Body,
    MantleOptions,
    NebiusOptions,
    OpenAIOptions,
    nebius_form,
    openai_form,
)
from unitune_providers.openai.wire import PausingBackend, Server, WireBackend

# States of a deployment by Nebius' words; any other is starting
NEBIUS_STATES: dict[str, Literal["ready", "failed"]] = {"active": "ready", "error": "failed"}
OPENAI_URL = "https://api.openai.com/v1"
# Headers by environment variable; not sent to a server named in a job
ACCOUNT_HEADERS = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}


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
    advice: ClassVar[Mapping[int, str]] = {429: LIMITS_ADVICE}

    def base_url(self) -> str:
        address = resource_address()
        return address if address.endswith("/openai/v1") else f"{address}/openai/v1"

    def settings(self, job: Job) -> Body:
        options = self.job_options(job)
        is_open = maker_of(job.base_model) != OPENAI
        given = options.training_type
        words = OPEN_MODELS_TYPES if is_open else TRAINING_TYPES
        if is_open and given not in {*words, *words.values(), "GlobalStandard"}:
            raise JobError(
                f"options.azure.training_type is {given!r}, but Azure trains open models such as "
                f"{job.base_model} only with globalStandard, which may copy rows to any region. "
                "Set it to global."
            )
        if options.residency and given not in (None, "standard", "Standard"):
            raise JobError(
                f"options.azure.residency is {options.residency}, but a training of type {given} "
                "may move data to any region."
            )
        body = openai_form(job, options)
        return {**body, "trainingType": words.get(given, given)} if given else body

    def checkpoint_name(self, job_id: str, checkpoint: Fields) -> str | None:
        """Return the id that Azure deploys a checkpoint by.

        Source: MicrosoftDocs/azure-ai-docs, fine-tuning-deploy.md, 2026-02-11.
        """
        del job_id
        return checkpoint.text("id")

    def import_job(self, job_id: str) -> ImportedJob:
        """Return a job; its model answers by the name of a deployment, if one serves it."""
        old = super().import_job(job_id)
        if old.model is None:
            return old
        missing = f"no deployment serves {old.model.name}"
        try:
            deployment = self.deployment_of(old.model.name)
        except (BackendError, UserError) as error:
            deployment, missing = None, f"its deployments could not be listed ({error})"
        if deployment is None:
            note = f"{missing}, so its answers cannot be recorded (--answers) until one does"
            return replace(old, notes=(*old.notes, note))
        return replace(old, model=old.model.model_copy(update={"name": deployment}))


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
    """Nebius Token Factory, which serves tuned adapters as custom models with names of their own.

    It appends letters to the requested name (``BASE-LoRa:NAME-AbCd``), so a deployment is found by
    the part that was requested. It charges by tokens; no hourly price was found. Deployments were
    not tested at Nebius.

    Source, by a third party: arindam200/nebius-skills, nebius-deploy-lora, 2026-03-09, who cites
    docs.tokenfactory.nebius.com/post-training/deploy-custom-model.
    """

    name: ClassVar[str] = "nebius"
    capabilities = ("Deploys",)
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

    def deploy(self, model: TunedModel, name: str, options: Mapping[str, JsonValue]) -> str:
        """Deploy a tuned adapter, unless a custom model of this name exists."""
        validated(NoOptions, options, "deploy option")
        if (ref := self.find_deployment(name)) is not None:
            return ref
        body = {"source": model.name, "base_model": model.base, "name": name}
        created = self._models().post(action=f"deploy {model.name}", body=body)
        if (ref := created.text("name")) is None:
            raise Unreachable(f"nebius deployed {model.name} and did not return its name.")
        return ref

    def find_deployment(self, name: str) -> str | None:
        mark = f"-lora:{name}-".lower()
        names = (each.text("name") or "" for each in self._listed(f"look for deployment {name}"))
        return next((each for each in names if mark in each.lower()), None)

    def deployment_status(self, ref: str, model: TunedModel) -> DeploymentStatus:
        served = model.model_copy(update={"name": ref})
        listed = self._listed(f"show deployment {ref}")
        found = next((each for each in listed if each.text("name") == ref), None)
        if found is None:
            return DeploymentStatus("gone", served, "not found")
        raw = found.text("status") or ""
        return DeploymentStatus(NEBIUS_STATES.get(raw, "starting"), served, raw)

    def undeploy(self, ref: str) -> None:
        self._models().delete(*ref.split("/"), action=f"delete deployment {ref}")

    def _listed(self, action: str) -> list[Fields]:
        return list(self._models().get(action=action).items("data"))

    def _models(self) -> Api:
        root = self.base_url().rstrip("/").removesuffix("/v1")
        return Api(replace(self.endpoint(), url=f"{root}/v0/models"))


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
