"""Define a protocol for each capability that only some backends have.

A caller checks ``isinstance(backend, Deploys)``. Like those of `Backend`, the methods are
synchronous and stateless: whatever must outlive the process is in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from pydantic import JsonValue

from unitune.backends.protocol import Guarantee, Launch, State
from unitune.data.example import Example
from unitune.documents import Frozen
from unitune.job.job import Job
from unitune.models import Reply, Request, TunedModel


@runtime_checkable
class Pauses(Protocol):
    """A backend that can pause and resume jobs."""

    def pause(self, job_id: str) -> None:
        """Pause a job; `poll` then shows paused."""

    def resume(self, job_id: str) -> None:
        """Resume a paused job from its last checkpoint."""


@runtime_checkable
class TrainsInRanks(Protocol):
    """A backend that can train in processes started by torchrun or Slurm."""

    def join(self) -> None:
        """Join the training that the first process launches; never return."""


@runtime_checkable
class GuaranteesByServer(Protocol):
    """A backend that can use other servers; some do not store launch keys."""

    def guarantee_of(self, job: Job) -> Guarantee:
        """Return how a launch is found again at the server of this job."""
        ...


@dataclass(frozen=True, slots=True)
class JobDescription:
    """Description of a job by its backend; None where unknown."""

    key: str | None = None  # text that contains the launch key: a label, a suffix or the job's name
    base_model: str | None = None
    training: str | None = None  # the backend's name of the training file, as in `Upload.ref`


@runtime_checkable
class DescribesJobs(Protocol):
    """A backend that can describe a job before a run adopts it."""

    def describe_job(self, job_id: str) -> JobDescription:
        """Return the description of a job; raise `BackendError` for an unknown job."""
        ...


@dataclass(frozen=True, slots=True)
class MaskedToken:
    """A token of a training row, or a text that replaces several."""

    text: str
    trained: bool  # whether it is trained on
    heading: bool = False  # whether it begins a turn and is not a token


@runtime_checkable
class ShowsLossMask(Protocol):
    """A local backend that can show which tokens of a row it trains on."""

    def loss_mask(self, job: Job, example: Example) -> tuple[MaskedToken, ...]:
        """Return the tokens of a row as the training sees them, or raise `DataError`."""
        ...


class StoredModel(Frozen):
    """A base model on this machine."""

    name: str
    path: Path
    bytes: int


@runtime_checkable
class Stores(Protocol):
    """A backend that keeps base models on this machine."""

    def pull(self, name: str) -> StoredModel:
        """Download a base model, unless it is already stored."""
        ...

    def stored(self) -> list[StoredModel]:
        """Return the stored base models."""
        ...


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of a model server."""

    name: str  # model name in requests
    host: str
    port: int  # 0: any free port
    # Key that requests must carry; None: every program on this machine may send requests
    key: str | None = field(default=None, repr=False)
    # Variables of the chat template, for requests that do not set them
    chat_template_kwargs: dict[str, JsonValue] = field(default_factory=dict[str, JsonValue])


@runtime_checkable
class Serves(Protocol):
    """A backend that can serve a model on this machine with OpenAI's API."""

    def serve(
        self, model: str | TunedModel, settings: ServerSettings, announce: Callable[[str], None]
    ) -> None:
        """Answer requests until SIGINT or SIGTERM; announce the base URL once the model is loaded.

        Raise a `UserError` if the address cannot be used.
        """


@runtime_checkable
class ReportsEnvironment(Protocol):
    """A backend that can report its environment on this machine."""

    def report_environment(self) -> dict[str, str]:
        """Return facts by name for `unitune doctor`, e.g. device, threads, memory."""
        ...


@dataclass(frozen=True, slots=True)
class JobPage:
    """States by job id, and the cursor of the next page, which is empty after the last."""

    states: Mapping[str, State]
    cursor: str = ""


@runtime_checkable
class ListsJobs(Protocol):
    """A backend that lists many jobs in one request, so one process can watch thousands."""

    def list_jobs(self, cursor: str) -> JobPage:
        """Return the page of jobs after a cursor (empty: the first page), newest first."""
        ...


@runtime_checkable
class Deletes(Protocol):
    """A backend that can delete a run's files and model."""

    def delete_file(self, ref: str) -> None:
        """Delete an uploaded file; do nothing if it does not exist."""

    def delete_model(self, model: TunedModel) -> None:
        """Delete a tuned model, if it exists, or raise `Unsupported`."""


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """State of a deployment as defined by unitune and, in `raw`, by the backend."""

    # empty: started, but `SwapsModel.swap_model` must load its model; swapping: loading another one
    state: Literal["starting", "empty", "ready", "swapping", "failed", "gone"]
    model: TunedModel  # model to send requests to once ready; its name is the endpoint's
    raw: str = ""
    # Name of the tuned model that is served; None if the backend does not report it
    tuned: str | None = None


@runtime_checkable
class Deploys(Protocol):
    """A backend that serves tuned models only from a deployment, charged by the hour."""

    def deploy(self, model: TunedModel, name: str, options: Mapping[str, JsonValue]) -> str:
        """Deploy a tuned model and return the backend's id of the deployment.

        Args:
            model: The tuned model of a run.
            name: Name of the deployment, at most 26 characters of ``[a-z0-9-]``. A second call with
                the same name returns the first deployment, so it can be repeated after a crash.
            options: Backend-specific options: hardware, capacity, …
        """
        ...

    def find_deployment(self, name: str) -> str | None:
        """Return the backend's id of the deployment with this name, or None."""
        ...

    def deployment_status(self, ref: str, model: TunedModel) -> DeploymentStatus:
        """Return the status of a deployment; a missing one is gone. Changes nothing at the vendor.

        Args:
            ref: Id returned by `deploy`.
            model: The tuned model, or the `DeploymentStatus.model` of an earlier call, unchanged.
        """
        ...

    def undeploy(self, ref: str) -> None:
        """Take a deployment down; do nothing if it does not exist."""


@runtime_checkable
class SwapsModel(Protocol):
    """A backend that can replace the tuned model that a deployment serves."""

    def swap_model(self, ref: str, model: TunedModel) -> None:
        """Request that a deployment serves another model; repeating the call changes nothing.

        `Deploys.deployment_status` of such a backend returns the served model in `tuned`.

        Args:
            ref: Id returned by `Deploys.deploy`.
            model: A tuned model of the same base.
        """


@dataclass(frozen=True, slots=True)
class ImportedJob:
    """A job that was not launched by unitune, as described by the backend."""

    base_model: str  # the backend's name of the base model
    method: str  # sft, dpo or rft
    # Content of the training file in the backend's wire format; None if it is gone
    training: bytes | None
    validation: bytes | None = None  # content of the validation file, likewise
    # Settings as in `unitune.job.job.Tuning`, without unknown ones
    tuning: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    options: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    model: TunedModel | None = None  # the tuned model; None unless the job succeeded
    start: str | None = None  # the vendor's name of the tuned model that it continued
    notes: tuple[str, ...] = ()  # what could not be converted, for people


@runtime_checkable
class Imports(Protocol):
    """A backend that can return jobs not launched by unitune."""

    def import_job(self, job_id: str) -> ImportedJob:
        """Return an existing job with its files; raise `NotFoundError` if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model saved at an optimiser step, with metrics named as by the backend."""

    step: int
    model: TunedModel
    metrics: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])


@runtime_checkable
class Checkpoints(Protocol):
    """A backend that keeps the checkpoints of a training."""

    def checkpoints(self, job_id: str, base: str) -> Sequence[Checkpoint]:
        """Return the checkpoints of a job with this base model, oldest first."""
        ...


@runtime_checkable
class ValidatesOptions(Protocol):
    """A backend with job rules that its offer cannot express, such as its own options."""

    def validate_options(self, job: Job) -> None:
        """Raise a `JobError` or `Unsupported` for an invalid job, without a key or a request."""


@runtime_checkable
class Quotes(Protocol):
    """A backend that can quote the price of a training."""

    def quote(self, launch: Launch) -> Decimal:
        """Return the vendor's price of a training in US dollars; raise `Unsupported` if unknown."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """A backend whose vendor has a token-counting endpoint, which needs a key."""

    def count_tokens(self, model: str | TunedModel, request: Request) -> int:
        """Return the number of input tokens that the vendor would bill for a request.

        Only messages and tools count. Raise `Unsupported` if the model cannot be sent this request;
        other requests may still be counted.
        """
        ...


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """State of a batch as defined by unitune and, in `raw`, by the backend."""

    # The replies of an ended batch can be fetched; a failed one has none
    state: Literal["running", "ended", "failed"]
    raw: str
    # Number of requests that were answered or failed; None if the backend does not report it
    done: int | None = None
    error: str | None = None


@runtime_checkable
class Batches(Protocol):
    """A backend that answers batches of requests within a day, for about half the price."""

    def submit_batch(
        self, key: str, model: str | TunedModel, requests: Mapping[str, Request]
    ) -> str:
        """Submit requests and return the backend's id of the batch. Never retried blindly.

        Raise `Unsupported`, before anything is sent, if the model, a setting or the number of
        requests is not possible.

        Args:
            key: Key that identifies the batch, at most 26 characters of ``[a-z0-9-]``.
            model: Name of an untuned model, or a tuned model.
            requests: Requests by id; each id is the key, a hyphen and a number.
        """
        ...

    def find_batch(self, key: str, since: float) -> list[str]:
        """Return the ids of batches with this key that are not older than `since` (Unix time)."""
        ...

    def poll_batch(self, batch_id: str) -> BatchStatus:
        """Return the status of a batch."""
        ...

    def fetch_batch(self, batch_id: str) -> Mapping[str, Reply]:
        """Return the replies of an ended batch by request id.

        A failed request has a reply with its `error`; one that was never processed has no reply.
        """
        ...

    def cancel_batch(self, batch_id: str) -> None:
        """Cancel a batch; do nothing if it has ended."""


@runtime_checkable
class Downloads(Protocol):
    """A backend that offers the weights of a tuned model."""

    def download(self, model: TunedModel, folder: Path) -> Path:
        """Download a tuned model's weights into a folder and return the file."""
        ...
