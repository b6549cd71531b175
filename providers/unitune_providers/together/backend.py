"""The backend named ``together``: LoRA and full trainings of open models at Together AI.

Together keeps no labels on a job, so the launch key is the suffix of the model's name, and `find`
reads the list of all jobs, which comes in one piece. A tuned model answers only from a dedicated
endpoint (`deploy`), or at home after a `download`.

What is where: `together_client` (client, errors), `together_options` (typed options),
`together_request` (the create call's body and its limits), `together_files`, `together_events`
(states, losses), `together_chat`, `together_models`, `together_endpoints`, `together_imports`. What
is known without calling Together stands in ``together.yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import ClassVar, cast

from pydantic import JsonValue
from together.types import (
    FinetuneEvent,
    FinetuneModelLimits,
    FineTuningListEventsResponse,
    FineTuningListMetricsResponse,
)
from together.types.fine_tuning_list_response import Data as ListedJob

from unitune.backends.capabilities import (
    Checkpoint,
    DeploymentStatus,
    ImportedJob,
    JobDescription,
    JobPage,
)
from unitune.backends.protocol import Guarantee, Launch, State, Status, Upload
from unitune.errors import BackendError, Unreachable, Unsupported
from unitune.job.job import Job
from unitune.models import ChatModel, TunedModel
from unitune_providers.together import endpoints as together_endpoints
from unitune_providers.together import files as together_files
from unitune_providers.together import importing as together_imports
from unitune_providers.together import models as together_models
from unitune_providers.together.client import (
    TRAININGS,
    Connection,
    chat_endpoint,
    is_gone,
    translated,
)
from unitune_providers.together.events import Cursor, failure, news, state_of
from unitune_providers.together.options import together_options
from unitune_providers.together.request import Body, create_body, price_body
from unitune_providers.unreadable import readable, reads_answers

NANODOLLARS = 1_000_000_000
"""In one US dollar: what a job's total_price is counted in (together 3.1.1, lib/utils/tools.py)."""
ESTIMATE = f"{TRAININGS}/estimate-price"
RATE_LIMITED = 429


@reads_answers
class TogetherBackend:
    """Trains, serves and answers at Together AI."""

    name: ClassVar[str] = "together"
    guarantee: ClassVar[Guarantee] = Guarantee.SUFFIX_ONLY

    def __init__(self) -> None:
        self._connection = Connection()

    def validate_options(self, job: Job) -> None:
        """Refuse a job whose options are not valid, or do not go with its method.

        Raises:
            JobError: An option is unknown, or a value not allowed.
        """
        together_options(job)

    def upload(self, path: Path, sha256: str) -> Upload:
        """Hand a file over, named by its hash, and wait until Together has validated it.

        Raises:
            BackendError: The rows are not valid; the message is Together's report.
        """
        return Upload(together_files.put(self._connection, path, sha256), sha256)

    def submit(self, launch: Launch) -> str:
        """Start the training and return Together's id for it.

        Raises:
            JobError: An option is unknown, or a setting beyond what the base model takes.
            Unsupported: Together does not tune this base model.
        """
        body = self._body(launch)
        with translated("create the training"):
            answer = self._connection.writes.post(TRAININGS, body=body, cast_to=object)
        created = cast("dict[str, object]", answer) if isinstance(answer, dict) else {}
        if not isinstance(created.get("id"), str):
            raise Unreachable("together's answer to the create call names no training.")
        return str(created["id"])

    def find(self, launch_key: str, folder: Path) -> list[str]:  # noqa: ARG002 - for local backends
        """Return the ids of the jobs whose model's name carries this launch key."""
        listed = together_models.jobs(self._connection)
        return [job.id for job in listed if _carries(job, launch_key)]

    def describe_job(self, job_id: str) -> JobDescription:
        """Return what is known of a job.

        Raises:
            BackendError: There is no such job.
        """
        job = together_models.job_by_id(self._connection, job_id)
        return JobDescription(job.x_model_output_name, job.model, job.training_file)

    def poll(self, job_id: str, cursor: str) -> Status:
        """Return how a job stands; its state is read first, so that an end brings all events.

        Raises:
            BackendError: There is no such job.
        """
        job = together_models.job_by_id(self._connection, job_id)
        seen = Cursor.read(cursor)
        told = self._told(job_id)
        events, after = news(told, self._measured(job_id, seen), seen)
        state = state_of(job.status)
        model = together_models.tuned(job) if state is State.SUCCEEDED else None
        if state is State.SUCCEEDED and model is None:
            # Together has not named the model yet: polling goes on.
            state = State.UNKNOWN
        return Status(
            state=state,
            raw=str(job.status or "no status"),
            events=events,
            cursor=str(after),
            model=model,
            error=failure(told) if state is State.FAILED else None,
            billed_tokens=job.token_count or None,
            billed_usd=Decimal(job.total_price) / NANODOLLARS if job.total_price else None,
        )

    def cancel(self, job_id: str) -> None:
        """Ask for the end; steps that are done are charged.

        Raises:
            BackendError: There is no such job, or it has ended.
        """
        with translated(f"cancel training {job_id}"):
            self._connection.writes.fine_tuning.cancel(job_id)

    def chat(self, model: str | TunedModel) -> ChatModel:
        """Return a base model by its name, or a tuned one by that of its endpoint."""
        from unitune.backends.kit.chat import ChatCompletions  # noqa: PLC0415 - loads aiohttp

        name = model if isinstance(model, str) else model.name
        return ChatCompletions(chat_endpoint(), name, fingerprint=f"together:{name}")

    def list_jobs(self, cursor: str) -> JobPage:  # noqa: ARG002 - there is one page only
        """Return all jobs with their states, the newest first."""
        listed = together_models.jobs(self._connection)
        newest = sorted(listed, key=lambda job: str(job.created_at), reverse=True)
        return JobPage({job.id: state_of(job.status) for job in newest})

    def quote(self, launch: Launch) -> Decimal:
        """Return Together's own price of a training, in US dollars; the files must be there.

        Raises:
            Unsupported: Together gives none, with its reason.
        """
        body = price_body(self._body(launch))
        with translated("estimate the price"):
            answer = self._connection.reads.post(ESTIMATE, body=body, cast_to=object)
        said = cast("dict[str, object]", answer) if isinstance(answer, dict) else {}
        price = said.get("estimated_total_price")
        if said.get("estimation_available") is False or not isinstance(price, int | float):
            reason = said.get("unavailable_reason") or "no reason given"
            raise Unsupported(f"together gives no price for this training: {reason}.")
        return Decimal(str(price))

    def checkpoints(self, job_id: str, base: str) -> Sequence[Checkpoint]:
        """Return the checkpoints of a job, oldest first."""
        return together_models.checkpoints(self._connection, job_id, base)

    def download(self, model: TunedModel, folder: Path) -> Path:
        """Write a tuned model's weights, of a LoRA training the adapter, and return the file."""
        return together_models.download(self._connection, model, folder)

    def import_job(self, job_id: str) -> ImportedJob:
        """Return an existing job with its files.

        Raises:
            NotFoundError: There is no such job.
        """
        return together_imports.import_job(self._connection, job_id)

    def delete_file(self, ref: str) -> None:
        """Remove an uploaded file; one that is gone is no error."""
        try:
            with translated(f"remove file {ref}"):
                self._connection.writes.files.delete(ref)
        except BackendError as error:
            if not is_gone(error):
                raise

    def delete_model(self, model: TunedModel) -> None:
        """Remove a tuned model together with its job; one that is gone is no error."""
        together_models.delete(self._connection, model)

    def deploy(self, model: TunedModel, name: str, options: Mapping[str, JsonValue]) -> str:
        """Bring a tuned model up on hardware of its own and return the endpoint's id."""
        return together_endpoints.deploy(self._connection, model, name, options)

    def find_deployment(self, name: str) -> str | None:
        """Return the id of the endpoint of this name."""
        return together_endpoints.find(self._connection, name)

    def deployment_status(self, ref: str, model: TunedModel) -> DeploymentStatus:
        """Return how an endpoint stands; one that has stopped is gone: it costs nothing."""
        return together_endpoints.deployment_status(self._connection, ref, model)

    def undeploy(self, ref: str) -> None:
        """Stop an endpoint and remove it; one that is gone is no error."""
        together_endpoints.undeploy(self._connection, ref)

    def _body(self, launch: Launch) -> Body:
        options = together_options(launch.job)
        base = launch.job.base_model
        with _nothing_sent(), readable(self.name, f"say what {base} takes"):
            return create_body(launch, options, self._limits(base))

    def _limits(self, base: str) -> FinetuneModelLimits:
        try:
            with translated(f"say what {base} takes"):
                return self._connection.reads.fine_tuning.model_limits(model_name=base)
        except BackendError as error:
            if not is_gone(error):
                raise
            raise Unsupported(
                f"together does not tune {base!r}. `tg fine-tuning model-limits MODEL` tells "
                "whether it tunes another; "
                "https://docs.together.ai/docs/fine-tuning/supported-models lists them."
            ) from error

    def _told(self, job_id: str) -> Sequence[FinetuneEvent]:
        with translated(f"list the events of training {job_id}"):
            answer = self._connection.training(FineTuningListEventsResponse, job_id, "events")
        return answer.data or []

    def _measured(self, job_id: str, seen: Cursor) -> Sequence[Mapping[str, float]]:
        since = {"global_step_from": seen.step} if seen.step >= 0 else {}
        with translated(f"list the metrics of training {job_id}"):
            answer = self._connection.training(
                FineTuningListMetricsResponse, job_id, "metrics", **since
            )
        return answer.metrics or []


def _carries(job: ListedJob, launch_key: str) -> bool:
    """Return whether a job was launched under a key, which must not be a part of another one's."""
    if job.suffix:
        return job.suffix == launch_key
    # Together appends the suffix and eight digits of its own to the base model's name.
    name = rf"(^|[/-]){re.escape(launch_key)}(-[0-9a-f]{{8}})?$"
    return re.search(name, job.x_model_output_name or "") is not None


@contextmanager
def _nothing_sent() -> Generator[None]:
    """Say of a failure before the create call that no training can have come of it.

    The core takes silence, and a status from 500 on, as a create call whose outcome is open.
    """
    try:
        yield
    except BackendError as error:
        if error.status is not None and error.status < 500 and error.status != 408:
            raise
        raise BackendError(
            f"{error} Nothing was created; launch again.",
            request_id=error.request_id,
            retry_after=error.retry_after,
        ) from error
