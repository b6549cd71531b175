"""The backends that speak OpenAI's wire: OpenAI itself, Azure, Bedrock's Mantle and Nebius.

Each says where its server is, which key it takes, what its create call looks like, how a lost job
is found again, and what it can do beyond the verbs of `unitune_providers.openai.wire`:

    openai   metadata, by which the list is filtered too; resumes; deletes models; batches; at
             another server than OpenAI's the suffix as well
    azure    metadata, which its lists give back but are not filtered by; resumes; answers from
             deployments only (`unitune_providers.openai.azure`)
    mantle   metadata, which its documentation does not promise; no suffix
    nebius   the suffix: its description knows no metadata

Where it is not certain that a list shows the key, the guarantee is the weaker `suffix only`: a
create call without an answer is adopted when a single job carries its key, and is else the user's.

Sources: Azure/azure-rest-api-specs, azure-v1-v1-generated.yaml, commit 31c65e1b; AWS user guide,
fine-tuning-openai-job-create, 2026; docs.tokenfactory.nebius.com, API 20260506.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from pydantic import JsonValue

from unitune.backends.capabilities import DeploymentStatus
from unitune.backends.credentials import environment_address
from unitune.backends.protocol import Guarantee, Launch
from unitune.errors import BackendError, JobError
from unitune.job.job import Job
from unitune.models import TunedModel
from unitune.security.json_fields import Fields
from unitune_providers.openai import azure as arm
from unitune_providers.openai.batches import BatchingWire
from unitune_providers.openai.options import (
    AzureOptions,
    MantleOptions,
    NebiusOptions,
    OpenAIOptions,
    read_options,
)
from unitune_providers.openai.request import (
    CreateCall,
    integrations_part,
    method_part,
    nebius_part,
)
from unitune_providers.openai.server import (
    Server,
    client,
    named_server,
    named_variable,
    required,
    split,
)
from unitune_providers.openai.wire import METADATA_KEY, NOT_FOUND, PausingWire, WireBackend
from unitune_providers.unreadable import reads_answers

OPENAI_URL = "https://api.openai.com/v1"
MANTLE_URL = "https://bedrock-mantle.{region}.api.aws/v1"
NEBIUS_URL = "https://api.tokenfactory.nebius.com/v1"


@reads_answers
class OpenAIBackend(BatchingWire, PausingWire):
    """OpenAI, or what ``OPENAI_BASE_URL`` or a job's own ``base_url`` names.

    Of such another server it is not known whether it keeps metadata. So there the launch key is the
    suffix too, and the guarantee is `suffix only` until the server's own list shows a launch key.
    """

    name: ClassVar[str] = "openai"
    guarantee: ClassVar[Guarantee] = Guarantee.FINDABLE

    def server(self, url: str | None = None) -> Server:
        """Return OpenAI's server, or another that a job named."""
        if url is not None:
            return named_server(self.name, url)
        key = required("OPENAI_API_KEY", "the key for OpenAI")
        own = environment_address("OPENAI_BASE_URL") or OPENAI_URL
        return Server(self.name, own, key, "OPENAI_API_KEY")

    def filters(self, server: Server) -> bool:
        """Whether the list of jobs can be asked for one launch key: at OpenAI's own server."""
        return _is_openai(server)

    def guarantee_of(self, job: Job) -> Guarantee:
        """Return how a launch is found again at the server that this job is sent to.

        Raises:
            BackendError: The server could not list its jobs.
        """
        server = self.server(_address(read_options(job, self.name, OpenAIOptions)))
        keeps = _is_openai(server) or self.shows_launch_keys(server)
        return Guarantee.FINDABLE if keeps else Guarantee.SUFFIX_ONLY

    def validate_options(self, job: Job) -> None:
        """Refuse a job whose options do not go with its method, or whose server gets no key."""
        options = read_options(job, self.name, OpenAIOptions)
        method_part(job, options)
        if options.base_url is not None:
            named_variable(self.name, options.base_url)

    def address_near(self, folder: Path) -> str | None:
        """Return the base_url of the job whose run's folder this is, or lies around it."""
        for place in (folder, folder.parent):
            if (place / "job.yaml").exists():
                return _address(
                    read_options(Job.load(place / "job.yaml"), self.name, OpenAIOptions)
                )
        return None

    def request(self, launch: Launch) -> CreateCall:
        """Return the call, with the launch key in its metadata."""
        options = read_options(launch.job, self.name, OpenAIOptions)
        address, training = _address(options), split(launch.training.ref)
        if address != training.url:
            raise JobError(
                f"options.{self.name}.base_url is {address!r}, but the training file was handed "
                f"to {training.url or 'OpenAI'}. Launch the job anew."
            )
        suffix = launch.job.name if _is_openai(self.server(address)) else launch.key
        return CreateCall(
            {
                **method_part(launch.job, options),
                **integrations_part(options),
                "suffix": suffix,
                "metadata": {METADATA_KEY: launch.key},
            }
        )

    def delete_model(self, model: TunedModel) -> None:
        """Remove a tuned model; one that is gone is no error.

        Raises:
            BackendError: It could not be removed.
        """
        at = split(model.name)
        server = self.server(at.url)
        try:
            with server.errors(f"delete model {at.ref}"):
                client(server).models.delete(at.ref)
        except BackendError as error:
            if error.status != NOT_FOUND:
                raise


@reads_answers
class AzureBackend(PausingWire):
    """Azure OpenAI in Microsoft Foundry, by its v1 API."""

    name: ClassVar[str] = "azure"
    guarantee: ClassVar[Guarantee] = Guarantee.FINDABLE

    def server(self, url: str | None = None) -> Server:
        """Return the resource that ``AZURE_OPENAI_ENDPOINT`` names."""
        del url  # only OpenAI's jobs name servers
        endpoint = arm.endpoint()
        address = endpoint if endpoint.endswith("/openai/v1") else f"{endpoint}/openai/v1"
        if os.environ.get("AZURE_OPENAI_AD_TOKEN"):
            token = required("AZURE_OPENAI_AD_TOKEN", "the token for Azure OpenAI")
            return Server(self.name, address, token, "AZURE_OPENAI_AD_TOKEN")
        key = required("AZURE_OPENAI_API_KEY", "the key for Azure OpenAI")
        return Server(self.name, address, key, "AZURE_OPENAI_API_KEY", "api-key")

    def validate_options(self, job: Job) -> None:
        """Refuse a job whose options are not valid, or do not go with its method and base."""
        options = read_options(job, self.name, AzureOptions)
        method_part(job, options)
        kinds = ("globalStandard", "GlobalStandard")
        if arm.maker_of(job.base_model) != arm.OPENAI and options.training_type not in kinds:
            raise JobError(
                f"options.azure.training_type is {options.training_type!r}, and Azure trains open "
                f"models such as {job.base_model} by globalStandard only. Set it to that."
            )

    def request(self, launch: Launch) -> CreateCall:
        """Return the call, with the launch key in its metadata."""
        options = read_options(launch.job, self.name, AzureOptions)
        kind = options.training_type
        return CreateCall(
            {
                **method_part(launch.job, options),
                **integrations_part(options),
                "suffix": launch.job.name,
                "metadata": {METADATA_KEY: launch.key},
            },
            extra=None if kind is None else {"trainingType": kind},
        )

    def deploy(self, model: TunedModel, name: str, options: Mapping[str, JsonValue]) -> str:
        """Bring a tuned model up; see `unitune_providers.openai.azure.deploy`."""
        return arm.deploy(model, name, options)

    def find_deployment(self, name: str) -> str | None:
        """Return the name itself where there is such a deployment."""
        return name if arm.exists(name) else None

    def deployment_status(self, ref: str, model: TunedModel) -> DeploymentStatus:
        """Return how a deployment stands; one that is not there is gone."""
        return arm.deployment_status(ref, model)

    def undeploy(self, ref: str) -> None:
        """Take a deployment down; one that is gone is no error."""
        arm.undeploy(ref)


@reads_answers
class MantleBackend(WireBackend):
    """Bedrock's OpenAI-compatible endpoint: reinforcement of open-weight models."""

    name: ClassVar[str] = "mantle"
    guarantee: ClassVar[Guarantee] = Guarantee.SUFFIX_ONLY
    old_limit: ClassVar[bool] = True

    def server(self, url: str | None = None) -> Server:
        """Return the endpoint of ``AWS_REGION``, or ``AWS_BEDROCK_BASE_URL``."""
        del url  # only OpenAI's jobs name servers
        key = required("AWS_BEARER_TOKEN_BEDROCK", "the Amazon Bedrock API key")
        address = environment_address("AWS_BEDROCK_BASE_URL")
        if not address:
            region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
            region = region or required("AWS_REGION", "the region of Amazon Bedrock")
            address = MANTLE_URL.format(region=region)
        return Server(self.name, address, key, "AWS_BEARER_TOKEN_BEDROCK")

    def validate_options(self, job: Job) -> None:
        """Refuse a job whose options are not valid, or that has no grader."""
        method_part(job, read_options(job, self.name, MantleOptions))

    def request(self, launch: Launch) -> CreateCall:
        """Return the call, with the launch key in its metadata: Bedrock takes no suffix."""
        options = read_options(launch.job, self.name, MantleOptions)
        metadata = {METADATA_KEY: launch.key}
        return CreateCall({**method_part(launch.job, options), "metadata": metadata})


@reads_answers
class NebiusBackend(WireBackend):
    """Nebius Token Factory."""

    name: ClassVar[str] = "nebius"
    guarantee: ClassVar[Guarantee] = Guarantee.SUFFIX_ONLY
    old_limit: ClassVar[bool] = True

    def server(self, url: str | None = None) -> Server:
        """Return Nebius' server, or what ``NEBIUS_BASE_URL`` names."""
        del url  # only OpenAI's jobs name servers
        key = required("NEBIUS_API_KEY", "the key for Nebius Token Factory")
        address = environment_address("NEBIUS_BASE_URL") or NEBIUS_URL
        return Server(self.name, address, key, "NEBIUS_API_KEY")

    def validate_options(self, job: Job) -> None:
        """Refuse a job whose options are not valid, or contradict its tuning."""
        nebius_part(job, read_options(job, self.name, NebiusOptions))

    def request(self, launch: Launch) -> CreateCall:
        """Return the call, with the launch key as its suffix."""
        options = read_options(launch.job, self.name, NebiusOptions)
        return CreateCall({**nebius_part(launch.job, options), "suffix": launch.key})

    def checkpoint_name(self, job_id: str, checkpoint: Fields) -> str | None:
        """Return the name by which Nebius deploys a checkpoint."""
        name = checkpoint.text("id")
        return f"{job_id}:{name}" if name else None


def _is_openai(server: Server) -> bool:
    """Return whether a server is OpenAI's, which has one for each region that data stay in.

    Source: platform.openai.com/docs/guides/your-data, data residency: ``us.api.openai.com``, ….
    """
    if server.url == OPENAI_URL:
        return True
    place = urlsplit(server.url)
    return place.scheme == "https" and (place.hostname or "").endswith(".api.openai.com")


def _address(options: OpenAIOptions) -> str | None:
    return options.base_url.rstrip("/") if options.base_url else None
