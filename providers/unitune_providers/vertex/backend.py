"""Vertex AI, which Google now calls Gemini Enterprise Agent Platform: tuning of Gemini models.

Rows go to a bucket of the user's; a job carries the launch key as a label, by which it is found
again; a tuned model is deployed by Vertex AI itself and answers at its endpoint. Beside this file:
`cloud` (who calls, where, storage), `jobs` (a job's states, events, import), `chat` (the wire of
questions), `batches` (many together), and ``vertex_options.py``.

Create calls are never repeated. There are no losses by step: Vertex AI shows them in its console.

Source: reference/rest/v1beta1, projects.locations.tuningJobs; google-genai 3.6.1, types.py;
googleapis/googleapis, google/cloud/aiplatform/v1, endpoint_service.proto and model_service.proto
(deletion), read 2026-11-25.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import JsonValue

from unitune.backends.capabilities import (
    BatchStatus,
    Checkpoint,
    ImportedJob,
    JobDescription,
    JobPage,
)
from unitune.backends.formats import UnrepresentableRow
from unitune.backends.kit.api import Api, created_id
from unitune.backends.kit.hosted import HostedBackend, content_name, explicit, without_none
from unitune.backends.kit.paging import by_token
from unitune.backends.protocol import Guarantee, Launch, State, Status, Upload
from unitune.errors import BackendError, NotFoundError, Unreachable, Unsupported
from unitune.job.job import Job
from unitune.models import ChatModel, Reply, Request, TunedModel
from unitune.security.json_fields import Fields
from unitune_providers.vertex import batches, jobs
from unitune_providers.vertex.chat import VertexChatModel, question
from unitune_providers.vertex.cloud import Cloud, connect, location_of, upload_folder
from unitune_providers.vertex_options import (
    ADAPTER_SIZES,
    VertexOptions,
    is_tuned,
    vertex_options,
)

PAGE_SIZE = 100
BAD_REQUEST = 400
LONGEST_NAME = 128
OPERATION_SECONDS = 600.0
"""Longest wait for a deletion that goes on after its response."""
OPERATION_POLL_SECONDS = 2.0


class VertexBackend(HostedBackend[VertexOptions]):
    """Tunes Gemini models at Vertex AI."""

    name: ClassVar[str] = jobs.NAME
    guarantee: ClassVar[Guarantee] = Guarantee.FINDABLE
    states: ClassVar[Mapping[str, State]] = jobs.STATES

    @cached_property
    def _cloud(self) -> Cloud:
        return connect()

    def validate_options(self, job: Job) -> None:
        """Refuse a job that could not be created; see `vertex_options`."""
        vertex_options(job)

    def upload(self, path: Path, sha256: str) -> Upload:
        """Write a file to the bucket under its hash, unless it is there.

        Raises:
            UserError: The environment names no bucket, project, location or credentials.
            BackendError: Cloud Storage refused.
            Unreachable: It gave no answer; the upload can be repeated.
        """
        uri = upload_folder().uri(f"{content_name(sha256)}.jsonl")
        if not self._cloud.exists(uri):
            with path.open("rb") as file:
                self._cloud.write(uri, file)
        return Upload(uri, sha256)

    def submit(self, launch: Launch) -> str:
        """Create the tuning job, with one request that is never repeated.

        Raises:
            JobError: An option is not allowed.
            BackendError: Vertex AI refused.
            Unreachable: It gave no answer; there may be a job, which `find` finds.
        """
        body, parent = create_body(launch), self._cloud.parent()
        api = self._cloud.api(parent)
        created = api.post(*parent.split("/"), "tuningJobs", action="create the job", body=body)
        return created_id(created, api.endpoint, "name")

    def find(self, launch_key: str, folder: Path) -> list[str]:
        """Return the jobs that have the key as their label."""
        del folder
        # What the service makes of the filter is not documented for tuning jobs, and a job that is
        # overlooked is paid for twice: so labels are compared here, over the whole list if need be.
        listed = self._labelled(launch_key, f'labels.{jobs.LABEL}="{launch_key}"')
        return listed or self._labelled(launch_key, None)

    def describe_job(self, job_id: str) -> JobDescription:
        """Return what is known of a job.

        Raises:
            BackendError: There is no such job.
        """
        return jobs.description_of(self._job(job_id))

    def poll(self, job_id: str, cursor: str) -> Status:
        """Return the state and what happened since the cursor.

        Raises:
            BackendError: There is no such job, or Vertex AI refused.
            Unreachable: It gave no answer.
        """
        job = self._job(job_id)
        word, model, error = job.text("state"), jobs.tuned_model(job), jobs.failure_of(job)
        status = self.status(word, jobs.events_of(job), cursor, model, error)
        tokens = jobs.count(jobs.data_stats(job), "totalBillableTokenCount")
        state = jobs.state_of(job) if status.state is State.RUNNING else status.state
        return replace(status, state=state, raw=jobs.word_of(job), billed_tokens=tokens)

    def cancel(self, job_id: str) -> None:
        """Ask for the end of a job.

        Raises:
            BackendError: There is no such job, or it has ended.
            Unreachable: Vertex AI gave no answer.
        """
        name = f"{self._resource(job_id)}:cancel"
        self._cloud.api(name).post(*name.split("/"), action=f"cancel {job_id}", body={})

    def chat(self, model: str | TunedModel) -> ChatModel:
        """Return a model to ask: a published model by its name, or a tuned model's endpoint.

        Requests to untuned models go to ``UNITUNE_VERTEX_BASE_LOCATION`` when that is set, since
        some are served only globally while trainings run in a region.
        """
        name, base = (model, model) if isinstance(model, str) else (model.name, model.base)
        return VertexChatModel(self._cloud, name, resource_name(self._cloud, model), base)

    def count_tokens(self, model: str | TunedModel, request: Request) -> int:
        """Return Google's own count of a request's input; nothing is generated.

        Raises:
            Unsupported: It says something that Gemini has no place for.
            BackendError: Google refused.
        """
        name = f"{resource_name(self._cloud, model)}:countTokens"
        action = f"count tokens for {model if isinstance(model, str) else model.name}"
        try:
            body = question(request)
        except UnrepresentableRow as problem:
            raise Unsupported(f"Gemini cannot take this request: {problem}") from problem
        api = self._cloud.api(name)
        counted = api.post(*name.split("/"), action=action, body=body, changes_nothing=True)
        if (tokens := counted.whole("totalTokens")) is None:
            raise Unreachable(f"Google could not {action}: it names no count. Try again.")
        return tokens

    def submit_batch(
        self, key: str, model: str | TunedModel, requests: Mapping[str, Request]
    ) -> str:
        """Create a batch job, with one request that is never repeated; see `batches.submit`."""
        return batches.submit(self._cloud, key, model, requests)

    def find_batch(self, key: str, since: float) -> list[str]:
        """Return the batch jobs that have the key as their name."""
        del since
        return batches.find(self._cloud, key)

    def poll_batch(self, batch_id: str) -> BatchStatus:
        """Return how a batch job stands; a word that is not known here is running."""
        return batches.poll(self._cloud, batch_id)

    def fetch_batch(self, batch_id: str) -> Mapping[str, Reply]:
        """Return the answers of a batch job that has ended; see `batches.fetch`."""
        return batches.fetch(self._cloud, batch_id)

    def cancel_batch(self, batch_id: str) -> None:
        """Ask for the end of a batch job; one that has ended is no error."""
        batches.cancel(self._cloud, batch_id)

    def list_jobs(self, cursor: str) -> JobPage:
        """Return one page of jobs with their states."""
        parent = self._cloud.parent()
        query = {"pageSize": PAGE_SIZE, "pageToken": cursor} if cursor else {"pageSize": PAGE_SIZE}
        path, action = (*parent.split("/"), "tuningJobs"), "list the jobs"
        page = self._cloud.api(parent).get(*path, action=action, query=query)
        listed = page.items("tuningJobs")
        states = {name: jobs.state_of(job) for job in listed if (name := job.text("name"))}
        return JobPage(states, page.text("nextPageToken") or "")

    def checkpoints(self, job_id: str, base: str) -> Sequence[Checkpoint]:
        """Return a job's checkpoints, each with an endpoint of its own, oldest first."""
        return jobs.checkpoints_of(self._job(job_id), base)

    def import_job(self, job_id: str) -> ImportedJob:
        """Return an existing job with its files.

        Raises:
            NotFoundError: There is no such job.
            Unsupported: It was tuned by a method that is not ours.
        """
        try:
            job = self._job(job_id)
        except BackendError as error:
            if not error.is_not_found:
                raise
            raise NotFoundError("tuning job", job_id, (), hint=str(error)) from error
        return jobs.imported(job, self._cloud)

    def delete_file(self, ref: str) -> None:
        """Remove an uploaded file; one that is gone is no error."""
        self._cloud.delete(ref)

    def delete_model(self, model: TunedModel) -> None:
        """Remove the model that an endpoint answers with, and its endpoints.

        A model can only be deleted when no endpoint has it deployed, and of a model with several
        versions only the version that the endpoint answers with may go. What is gone already counts
        as done.

        Raises:
            BackendError: Vertex AI refused a step.
            Unreachable: It gave no answer, or an operation takes too long.
        """
        api = self._cloud.api(model.name, "v1")
        endpoint = _find(api, model.name)
        if endpoint is None:
            return
        versions = [_version_of(deployed) for deployed in endpoint.items("deployedModels")]
        endpoints = {model.name: None}
        for version in versions:
            for deployed in (_find(api, version) or Fields({})).items("deployedModels"):
                resource = deployed.text("endpoint") or ""
                body: dict[str, JsonValue] = {"deployedModelId": deployed.text("deployedModelId")}
                _wait(
                    api,
                    api.post(
                        *f"{resource}:undeployModel".split("/"),
                        action=f"undeploy {version}",
                        body=body,
                    ),
                )
                endpoints[resource] = None
        for version in versions:
            whole = version.partition("@")[0]
            listed = (_find(api, f"{whole}:listVersions") or Fields({})).items("models")
            # The only version goes with its model, as Vertex AI wants it.
            _delete(api, whole if len(listed) <= 1 else f"{version}:deleteVersion")
        for resource in endpoints:
            _delete(api, resource)

    def _resource(self, job_id: str) -> str:
        """Return a job's full name; the last part of one names it in the location in use."""
        if job_id.startswith("projects/"):
            return job_id
        return f"{self._cloud.parent()}/tuningJobs/{job_id.rpartition('/')[2]}"

    def _job(self, job_id: str) -> Fields:
        name = self._resource(job_id)
        return self._cloud.api(name).get(*name.split("/"), action=f"read job {job_id}")

    def _labelled(self, launch_key: str, condition: str | None) -> list[str]:
        """Return the jobs with the key, in the list that a filter leaves; none if it is refused."""
        parent = self._cloud.parent()
        query = {"pageSize": PAGE_SIZE, **({"filter": condition} if condition else {})}
        path, paging = (*parent.split("/"), "tuningJobs"), by_token()
        api, action = self._cloud.api(parent), "list the jobs"
        listed = api.pages(*path, action=action, next_page=paging, items="tuningJobs", query=query)
        try:
            return [
                name
                for job in listed
                if job.fields("labels").text(jobs.LABEL) == launch_key
                and (name := job.text("name"))
            ]
        except BackendError as error:
            if condition is None or error.status != BAD_REQUEST:
                raise
            return []


def create_body(launch: Launch) -> dict[str, JsonValue]:
    """Return a create call.

    The display name is always given: without one, tuning a tuned model on would add a version to
    that model instead of making one.

    Raises:
        JobError: An option or the adapter's rank is not allowed.
        Unsupported: The method is not one of Vertex AI's.
    """
    job, options = launch.job, vertex_options(launch.job)
    rank = job.tuning.lora.rank
    settings: dict[str, JsonValue] = {
        "epochCount": explicit(job.tuning.epochs),
        "adapterSize": None if rank == "auto" else ADAPTER_SIZES[rank],
        "learningRateMultiplier": options.learning_rate_multiplier,
        "beta": options.beta,
    }
    spec: dict[str, JsonValue] = {
        "trainingDatasetUri": launch.training.ref,
        "validationDatasetUri": launch.validation.ref if launch.validation else None,
        "hyperParameters": without_none(settings) or None,
        "exportLastCheckpointOnly": options.export_last_checkpoint_only or None,
    }
    continued: dict[str, JsonValue] = {
        "tunedModelName": job.base_model,
        "checkpointId": options.pre_tuned_model_checkpoint_id,
    }
    is_continued = is_tuned(job.base_model)
    return without_none(
        {
            "baseModel": None if is_continued else job.base_model,
            "preTunedModel": without_none(continued) if is_continued else None,
            "tunedModelDisplayName": f"{job.name} {launch.key}"[:LONGEST_NAME],
            "labels": {jobs.LABEL: launch.key},
            jobs.SPECS[str(job.method)]: without_none(spec),
        }
    )


def resource_name(cloud: Cloud, model: str | TunedModel) -> str:
    """Return the full resource name of a model, in the location that its requests go to."""
    name = model if isinstance(model, str) else model.name
    if name.startswith("projects/"):
        location_of(name)  # the caller's token goes to its host
        return name
    location = os.environ.get("UNITUNE_VERTEX_BASE_LOCATION") if isinstance(model, str) else None
    published = name if name.startswith("publishers/") else f"publishers/google/models/{name}"
    return f"{cloud.parent(location)}/{published}"


def _find(api: Api, name: str) -> Fields | None:
    return api.find(*name.split("/"), action=f"read {name}")


def _version_of(deployed: Fields) -> str:
    model = (deployed.text("model") or "").partition("@")[0]
    version = deployed.text("modelVersionId")
    return f"{model}@{version}" if version else model


def _delete(api: Api, name: str) -> None:
    _wait(api, api.delete(*name.split("/"), action=f"delete {name}"))


def _wait(api: Api, operation: Fields) -> None:
    """Wait for the end of an operation.

    Raises:
        BackendError: It failed.
        Unreachable: It takes too long.
    """
    name, until = operation.text("name") or "", time.monotonic() + OPERATION_SECONDS
    while operation.all.get("done") is not True and name:
        if time.monotonic() > until:
            raise Unreachable(
                f"{name} is still going on after {OPERATION_SECONDS:.0f} seconds. Try again later."
            )
        time.sleep(OPERATION_POLL_SECONDS)
        operation = api.get(*name.split("/"), action=f"read operation {name}")
    if operation.fields("error").all:
        reason = operation.fields("error").text("message") or "no reason given"
        raise BackendError(f"Vertex AI could not delete: {reason}", status=BAD_REQUEST)
