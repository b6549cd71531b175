"""Train at vendors that sell training steps: what their backends share, and the backends.

The loop runs in a worker process on this machine (`unitune_local.steps.worker`); the vendor's SDK
is only needed there. Tuned models answer through the vendor's OpenAI-compatible API.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, ClassVar, TypeVar

from unitune.backends import registry
from unitune.backends.credentials import check_allowed, environment_address, key_in
from unitune.backends.kit.api import Api
from unitune.backends.kit.chat_completions import Dialect
from unitune.backends.kit.entra import ENTRA_ADVICE, entra_token
from unitune.backends.kit.errors import Endpoint
from unitune.backends.kit.hosted import HostedBackend, required
from unitune.backends.protocol import Launch
from unitune.errors import BackendError, JobError, MissingExtra, NotFoundError
from unitune.job.job import Job
from unitune.models import ChatModel, TunedModel
from unitune.security.json_fields import Fields
from unitune.workspace import user_settings
from unitune.workspace.install import install_command
from unitune_local.job_folder import JobFolder
from unitune_local.options import refuse_judges
from unitune_local.steps.vendor import (
    AzureSessionsOptions,
    Contract,
    StepOptions,
    StepSpec,
    refuse_old_sdk,
)
from unitune_local.training.worker_backend import WorkerBackend

Options = TypeVar("Options", bound=StepOptions)
WORKER = "unitune_local.steps.worker"


class StepsBackend(WorkerBackend, HostedBackend[Options]):
    """Backend of a vendor that sells training steps."""

    adapter: ClassVar[str]  # ``module:Class`` of its `StepVendor`
    sdk: ClassVar[str]  # package of the vendor
    options: ClassVar[type[Any]] = StepOptions
    sign_in_variables: ClassVar[tuple[str, ...]] = ()  # with secrets that the worker signs in with

    def validate_options(self, job: Job) -> None:
        """Raise `JobError` for invalid options, or if a judge rewards."""
        super().validate_options(job)
        refuse_judges(job)

    def specify(self, launch: Launch) -> str:
        """Ask the vendor for the model, and return the specification of the training."""
        if missing := registry.missing_packages(self.name):
            raise MissingExtra(
                f"training with {self.name} needs {', '.join(missing)}, which is not installed. "
                f"Install it with: {install_command(self.name)}"
            )
        job, options = launch.job, self.job_options(launch.job)
        longest = self.longest(job, self.vendor_api(options.base_url))
        from unitune_local.steps.run import prepare  # noqa: PLC0415 - imports torch

        about = StepSpec(
            backend=self.name,
            adapter=self.adapter,
            sdk=self.sdk,
            key_variable=self.key_variable,
            contract=Contract(
                key=launch.key,
                base=job.base_model,
                url=options.base_url,
                tier=self.tier(options),
            ),
            options=StepOptions.model_validate(
                options.model_dump(include=set(StepOptions.model_fields))
            ),
        )
        return prepare(launch, about, longest).model_dump_json(indent=2)

    def start(self, folder: JobFolder) -> None:
        from unitune_local.training import worker  # noqa: PLC0415 - only where a worker is started

        key = key_in(self.key_variable) if self.sign_in() else self.required_key()
        secrets = {name: user_settings.variable(name) for name in self.sign_in_variables}
        variables = {**worker.environment(1), **secrets, self.key_variable: key or ""}
        worker.start_process(folder, WORKER, variables)

    def required_key(self) -> str:
        """Return the key; raise `UserError` without one."""
        return required(self.key_variable, f"the key of {self.name}", self.sign_in_advice)

    def tier(self, options: Options) -> str | None:
        """Return the vendor's name of the tier that a job chooses."""
        del options

    def longest(self, job: Job, api: Api) -> int | None:
        """Return the longest sequence that the vendor trains a model on; None if unknown.

        Raises:
            BackendError: The vendor refuses the key.
            NotFoundError: The vendor does not train the model.
        """
        raise NotImplementedError

    def vendor_api(self, url: str | None) -> Api:
        """Return the vendor's API at an address, or at its own."""
        return Api(self.server(url))

    def server(self, url: str | None, path: str = "") -> Endpoint:
        """Return an address; raise `UserError` unless the user has allowed the key for it."""
        if url is None or url.rstrip("/") == self.base_url().rstrip("/"):
            return self.endpoint(path)
        check_allowed(self.key_variable, url, f"options.{self.name}.base_url")
        return self.endpoint_at(f"{url.rstrip('/')}{path}", self.key_variable)

    def chat(self, model: str | TunedModel) -> ChatModel:
        from unitune.backends.kit.chat import ChatCompletions  # noqa: PLC0415 - loads aiohttp

        name = model if isinstance(model, str) else model.name
        name, _, url = name.partition("@")
        endpoint = self.server(url or None, self.chat_path)
        fingerprint = f"{self.name}:{name}"
        return ChatCompletions(endpoint, name, fingerprint=fingerprint, dialect=Dialect())


class TinkerBackend(StepsBackend[StepOptions]):
    """Backend that trains with Tinker, or with a server that has its API."""

    name: ClassVar[str] = "tinker"
    adapter = "unitune_local.steps.tinker:Tinker"
    sdk = "tinker"
    address = "https://tinker.thinkingmachines.dev/services/tinker-prod"
    address_variable = "TINKER_BASE_URL"
    key_variable = "TINKER_API_KEY"
    chat_path = "/oai/api/v1"
    advice: ClassVar = {402: "Add credit at Tinker."}

    def vendor_api(self, url: str | None) -> Api:
        endpoint = self.server(url, "/api/v1")
        return Api(
            Endpoint(endpoint.vendor, endpoint.url, endpoint.headers, endpoint.token, "X-API-Key")
        )

    def longest(self, job: Job, api: Api) -> int | None:
        try:
            api.post(
                "client",
                "config",
                action="check the key",
                body={"sdk_version": version("tinker")},
            )
        except BackendError as error:
            refuse_old_sdk(error, self.name)
            raise
        try:
            answer = api.get("get_server_capabilities", action="list the models")
        except BackendError as error:
            # The SDK exchanges its key for a token; a server may want that one.
            if error.status in (
                HTTPStatus.UNAUTHORIZED,
                HTTPStatus.FORBIDDEN,
                HTTPStatus.NOT_FOUND,
            ):
                return None
            raise
        return _longest(job.base_model, answer)


# Azure's names of `training_type`. Source: azure-ai-finetuningsessions 1.0.0b1, TrainingType.
TIERS = {
    "global": "GlobalStandard",
    "data-zone": "DatazoneStandard",
    "developer": "DeveloperTier",
}


class AzureSessionsBackend(StepsBackend[AzureSessionsOptions]):
    """Backend that trains in sessions of Microsoft Foundry's interactive training (preview)."""

    name: ClassVar[str] = "azure-sessions"
    adapter = "unitune_local.steps.azure:AzureSessions"
    sdk = "unitune_local.steps.foundry"
    options: ClassVar[type[Any]] = AzureSessionsOptions
    address_variable = "AZURE_AI_PROJECT_ENDPOINT"
    key_variable = "AZURE_AI_API_KEY"
    key_header = "api-key"
    headers: ClassVar = {"Foundry-Features": "FineTuningSessions=V1Preview"}
    sign_in_advice = ENTRA_ADVICE
    sign_in_variables = ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PASSWORD")
    advice: ClassVar = {
        403: "Interactive training is a preview; your project needs Microsoft's approval.",
        404: "If the session has ended, run `unitune runs resume`, which begins another.",
    }

    def base_url(self) -> str:
        required(self.address_variable, "the address of the Foundry project")
        return environment_address(self.address_variable) or ""

    def sign_in(self) -> Callable[[], str] | None:
        return entra_token("https://ai.azure.com/.default")

    def validate_options(self, job: Job) -> None:
        super().validate_options(job)
        if (loss := self.job_options(job).policy_loss) not in (None, "importance_sampling"):
            raise JobError(
                f"options.{self.name}.policy_loss is {loss!r}, but Azure does not publish how it "
                "averages that loss, so it could differ from the local trainer's. Remove the "
                "option; the default is importance_sampling."
            )

    def tier(self, options: AzureSessionsOptions) -> str | None:
        return TIERS.get(options.training_type or "")

    def longest(self, job: Job, api: Api) -> int | None:
        del job  # Azure does not list the models that it trains
        query = {"api-version": "v1", "limit": 1}
        api.get("fine_tuning", "sessions", action="check the access", query=query)
        return None

    def chat(self, model: str | TunedModel) -> ChatModel:
        from unitune_local.steps.answers import SessionChat  # noqa: PLC0415 - imports torch

        base = model if isinstance(model, str) else model.base
        name = None if isinstance(model, str) else model.name
        return SessionChat(self.name, self.adapter, base, name)


def _longest(base: str, answer: Fields) -> int | None:
    trained = {
        str(model.text("model_name")): model.whole("max_context_length")
        for model in answer.items("supported_models")
        if model.all.get("trainable") is not False
    }
    if base not in trained:
        raise NotFoundError("model at tinker", base, trained)
    return trained[base]
