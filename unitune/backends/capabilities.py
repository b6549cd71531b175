"""What only some backends can do: a protocol for each capability.

A caller checks ``isinstance(backend, Deploys)`` and says what cannot be done. Like the verbs of
`Backend`, these are synchronous and stateless: whatever must outlive the process is in the ledger.
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
from unitune.job.job import Job
from unitune.models import Reply, Request, TunedModel
from unitune.security.spec import Frozen


@runtime_checkable
class Pauses(Protocol):
    """A backend whose jobs can stop and go on."""

    def pause(self, job_id: str) -> None:
        """Ask a job to stop for now; `poll` then shows paused."""

    def resume(self, job_id: str) -> None:
        """Let a paused job go on from its last checkpoint."""


@runtime_checkable
class TrainsInRanks(Protocol):
    """A backend whose training may be spread over processes that torchrun or Slurm starts."""

    def join(self) -> None:
        """Take part in the training that the first of these processes launches; never return."""


@runtime_checkable
class GuaranteesByServer(Protocol):
    """A backend that can be led to other servers, not all of which keep a launch key."""

    def guarantee_of(self, job: Job) -> Guarantee:
        """Return how a launch is found again at the server that this job is sent to."""
        ...


@dataclass(frozen=True, slots=True)
class JobDescription:
    """What a backend says of one of its jobs; None where it does not say."""

    key: str | None = None  # what its launch key stands in: a label, a suffix, its name
    base_model: str | None = None
    training: str | None = None  # the backend's name of the training file, as in `Upload.ref`


@runtime_checkable
class DescribesJobs(Protocol):
    """A backend that can say what a job trains, before a run takes it for its own."""

    def describe_job(self, job_id: str) -> JobDescription:
        """Return what is known of a job; a `BackendError` where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class MaskedToken:
    """A token of a training row, or a text that stands for several."""

    text: str
    trained: bool  # whether it carries loss
    heading: bool = False  # whether it begins a turn and is no token itself


@runtime_checkable
class ShowsLossMask(Protocol):
    """A backend that trains here, and can show what it learns of a row."""

    def loss_mask(self, job: Job, example: Example) -> tuple[MaskedToken, ...]:
        """Return the tokens of a row as the training sees them.

        A `DataError` says that the row cannot be trained on.
        """
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
        """Fetch a base model once; a second call finds it there."""
        ...

    def stored(self) -> list[StoredModel]:
        """Return the base models that are here already."""
        ...


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How a model is served."""

    name: str  # by which requests name the model
    host: str
    port: int  # 0: any that is free
    # That requests must carry; None: whoever runs a program on this machine may send them
    key: str | None = field(default=None, repr=False)
    # Variables of the chat template, for requests that do not set them
    chat_template_kwargs: dict[str, JsonValue] = field(default_factory=dict[str, JsonValue])


@runtime_checkable
class Serves(Protocol):
    """A backend that can serve a model from this machine, as OpenAI serves its own."""

    def serve(
        self, model: str | TunedModel, settings: ServerSettings, announce: Callable[[str], None]
    ) -> None:
        """Answer requests until SIGINT or SIGTERM; announce the base URL once the model is loaded.

        A `UserError` says that the address cannot be used.
        """


@runtime_checkable
class ReportsEnvironment(Protocol):
    """A backend that can say what it found on this machine."""

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
    """A backend that lists many jobs in one request, so that one process can watch thousands."""

    def list_jobs(self, cursor: str) -> JobPage:
        """Return the page of jobs after a cursor (empty: the first page), the newest first."""
        ...


@runtime_checkable
class Deletes(Protocol):
    """A backend that can remove what a run left there."""

    def delete_file(self, ref: str) -> None:
        """Remove an uploaded file; one that is gone is no error."""

    def delete_model(self, model: TunedModel) -> None:
        """Remove a tuned model; one that is gone is no error.

        `Unsupported` says that the vendor has no way to, and what to do instead.
        """


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """How a deployment stands, in our words and, in `raw`, in the backend's."""

    # Swapping: another model is being put in place of the one that answers
    state: Literal["starting", "ready", "swapping", "failed", "gone"]
    model: TunedModel  # what to send requests to once it is ready: its name is the endpoint's
    raw: str = ""
    # Name of the tuned model that answers; None where the backend does not say
    tuned: str | None = None


@runtime_checkable
class Deploys(Protocol):
    """A backend whose tuned models answer only from a deployment, which costs money by the hour."""

    def deploy(self, model: TunedModel, name: str, options: Mapping[str, JsonValue]) -> str:
        """Bring a tuned model up and return the backend's id of the deployment.

        Args:
            model: What a run left behind.
            name: Of the deployment; at most 26 characters of ``[a-z0-9-]``. A second call with the
                same name returns the first deployment, so that it can be repeated after a crash.
            options: The backend's own: hardware, capacity, …
        """
        ...

    def find_deployment(self, name: str) -> str | None:
        """Return the backend's id of the deployment of this name; None where there is none."""
        ...

    def deployment_status(self, ref: str, model: TunedModel) -> DeploymentStatus:
        """Return how a deployment stands; one that is not there is gone.

        Where it is brought up in steps, the next one is taken here, whichever process looks.

        Args:
            ref: As `deploy` returned it.
            model: What a run left behind, or the `DeploymentStatus.model` of an earlier look, which
                must come back as it was.
        """
        ...

    def undeploy(self, ref: str) -> None:
        """Take a deployment down; one that is gone is no error."""


@runtime_checkable
class SwapsModel(Protocol):
    """A backend that can put another tuned model in place of the one that a deployment serves."""

    def swap_model(self, ref: str, model: TunedModel) -> None:
        """Ask for another model to answer from a deployment; asked for again, it stays so.

        `Deploys.deployment_status` of such a backend says in `tuned` which one answers.

        Args:
            ref: As `Deploys.deploy` returned it.
            model: What a run left behind, of the same base.
        """


@dataclass(frozen=True, slots=True)
class ImportedJob:
    """A job that was launched by other means, as the backend tells it.

    Args:
        base_model: The backend's name of the base.
        method: sft, dpo or rft.
        training: The training file's content in the backend's wire format; None when it is gone.
        validation: Likewise.
        tuning: As of `unitune.job.job.Tuning`; what is unknown is left out.
        options: Hyperparameters that are the backend's own.
        model: What it left behind; None unless it succeeded.
        start: The vendor's name of the tuned model that it went on from.
        notes: What could not be converted, for people.
    """

    base_model: str
    method: str
    training: bytes | None
    validation: bytes | None = None
    tuning: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    options: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    model: TunedModel | None = None
    start: str | None = None
    notes: tuple[str, ...] = ()


@runtime_checkable
class Imports(Protocol):
    """A backend that still knows jobs that others launched."""

    def import_job(self, job_id: str) -> ImportedJob:
        """Return an existing job with its files; a `NotFoundError` where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model saved during a training, at an optimiser step; metrics as the backend names them."""

    step: int
    model: TunedModel
    metrics: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])


@runtime_checkable
class Checkpoints(Protocol):
    """A backend that keeps models from the middle of a training."""

    def checkpoints(self, job_id: str, base: str) -> Sequence[Checkpoint]:
        """Return the checkpoints of a job that trains this base, oldest first."""
        ...


@runtime_checkable
class ValidatesOptions(Protocol):
    """A backend with rules for a job that its offer cannot say, such as its own options."""

    def validate_options(self, job: Job) -> None:
        """Raise a `JobError` or `Unsupported` for a job that could not be created.

        Nothing is sent, and no key is needed.
        """


@runtime_checkable
class Quotes(Protocol):
    """A backend that says itself what a training would cost."""

    def quote(self, launch: Launch) -> Decimal:
        """Return the vendor's price of a training, in US dollars; `Unsupported` if it has none."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """A backend whose vendor counts tokens itself, for who asks: it takes a key, and a request."""

    def count_tokens(self, model: str | TunedModel, request: Request) -> int:
        """Return how many tokens a request is, as the vendor would bill its input.

        Its messages and tools count, not how it is to be answered. `Unsupported` says that the
        model cannot be sent this request; another request may well be counted.
        """
        ...


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """How a batch stands, in our words and, in `raw`, in the backend's."""

    # Of one that has ended the replies can be fetched; of one that failed, none
    state: Literal["running", "ended", "failed"]
    raw: str
    # Requests that were answered or have failed; None where the backend does not say
    done: int | None = None
    error: str | None = None


@runtime_checkable
class Batches(Protocol):
    """A backend that answers many requests together: within a day, for about half the price."""

    def submit_batch(
        self, key: str, model: str | TunedModel, requests: Mapping[str, Request]
    ) -> str:
        """Submit requests and return the backend's id of the batch. Never retried blindly.

        Args:
            key: Names the batch as a launch key names a job: at most 26 characters of
                ``[a-z0-9-]``.
            model: An untuned one by its name, or what a run left behind.
            requests: By their ids, each the key, a hyphen and a number.

        `Unsupported` says that the model, a setting or the number of requests is not possible, and
        that nothing was sent.
        """
        ...

    def find_batch(self, key: str, since: float) -> list[str]:
        """Return the ids of batches that carry this key, none of them older than `since` (Unix)."""
        ...

    def poll_batch(self, batch_id: str) -> BatchStatus:
        """Return how a batch stands."""
        ...

    def fetch_batch(self, batch_id: str) -> Mapping[str, Reply]:
        """Return the answers of a batch that has ended, by the ids of their requests.

        A request that failed has a reply with its `error`; one that was never reached has none.
        """
        ...

    def cancel_batch(self, batch_id: str) -> None:
        """Ask for the end of a batch; one that has ended is no error."""


@runtime_checkable
class Downloads(Protocol):
    """A backend that hands out the weights of a tuned model."""

    def download(self, model: TunedModel, folder: Path) -> Path:
        """Write a tuned model's weights into a folder and return the file."""
        ...
