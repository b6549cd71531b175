"""Tune Gemini models at Vertex AI, which Google now calls Gemini Enterprise Agent Platform.

Rows are uploaded to the user's bucket. A job has the launch key as a label, by which it is found. A
tuned model is deployed by Vertex AI and answers at its endpoint. Create calls are never repeated.
Losses by step are only in Vertex AI's console.

Source: reference/rest/v1beta1, projects.locations.tuningJobs; google-genai 3.6.1, types.py;
googleapis/googleapis, google/cloud/aiplatform/v1, endpoint_service.proto and model_service.proto
(deletion), read 2026-11-25.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import JsonValue

from unitune.backends.capabilities import Checkpoint, ImportedJob, JobDescription, JobPage
from unitune.backends.formats import UnrepresentableRow
from unitune.backends.kit.api import Api, created_id
from unitune.backends.kit.hosted import BAD_REQUEST, HostedBackend, content_name, wait_until
from unitune.backends.protocol import Guarantee, Launch, State, Status, Upload
from unitune.data.images import image_name, images_stored
from unitune.errors import BackendError, NotFoundError, Unreachable, Unsupported
from unitune.job.job import Job
from unitune.models import ChatModel, Request, TunedModel
from unitune.security.json_fields import Fields
from unitune.workspace.progress import counted_file
from unitune_providers.vertex import jobs
from unitune_providers.vertex.batches import VertexBatches
from unitune_providers.vertex.chat import VertexChatModel, question
from unitune_providers.vertex.cloud import PAGE_SIZE, upload_uri, version_behind
from unitune_providers.vertex.jobs import VertexOptions

OPERATION_SECONDS = 600.0  # longest wait for a deletion that continues after its response
OPERATION_POLL_SECONDS = 2.0


class VertexBackend(VertexBatches, HostedBackend[VertexOptions]):
    """Backend that tunes Gemini models at Vertex AI."""

    name: ClassVar[str] = jobs.NAME
    capabilities = (
        "DescribesJobs",
        "ListsJobs",
        "Deletes",
        "Imports",
        "Checkpoints",
        "CountsTokens",
    )
    guarantee: ClassVar[Guarantee] = Guarantee.FINDABLE
    states: ClassVar[Mapping[str, State]] = jobs.STATES
    options = VertexOptions

    def job_options(self, job: Job) -> VertexOptions:
        options = super().job_options(job)
        jobs.check_job(job, options)
        return options

    def upload(self, path: Path, sha256: str) -> Upload:
        """Upload a file to the bucket under its hash, unless it exists."""
        uri = upload_uri(f"{content_name(sha256)}.jsonl")
        if not self.cloud.exists(uri):
            with (
                images_stored(path, "inlineData", self._store_image) as rows,
                rows.open("rb") as file,
            ):
                self.cloud.write(uri, counted_file(file, f"uploading {path.name}"))
        return Upload(uri, sha256)

    def _store_image(self, part: dict[str, Any]) -> dict[str, Any]:
        """Upload the image in a part and return the part with its place."""
        if part.keys() != {"inlineData"}:
            return part
        media_type = part["inlineData"]["mimeType"]
        content, name = image_name(part["inlineData"]["data"], media_type)
        if not self.cloud.exists(uri := upload_uri(name)):
            self.cloud.write(uri, io.BytesIO(content))
        return {"fileData": {"mimeType": media_type, "fileUri": uri}}

    def submit(self, launch: Launch) -> str:
        parent = self.cloud.parent()
        start = self._version(launch.start.model.name) if launch.start else None
        body = jobs.create_body(launch, self.job_options(launch.job), start)
        api = self.cloud.api(parent)
        created = api.post(parent, "tuningJobs", action="create the job", body=body)
        return created_id(created, api.endpoint, "name")

    def find(self, launch_key: str, folder: Path) -> list[str]:
        """Return the jobs with the key as their label."""
        del folder
        parents, condition = [self.cloud.parent()], f'labels.{jobs.LABEL}="{launch_key}"'
        return self.cloud.find_jobs(
            parents,
            "tuningJobs",
            condition,
            lambda job: _key_of(job) == launch_key,
        )

    def describe_job(self, job_id: str) -> JobDescription:
        job = self._job(job_id)
        training = jobs.spec_of(job)[1].text("trainingDatasetUri")
        return JobDescription(_key_of(job), jobs.base_of(job) or None, training)

    def poll(self, job_id: str, cursor: str) -> Status:
        job = self._job(job_id)
        word, model = job.text("state"), jobs.tuned_model(job)
        error = job.fields("error").text("message") or f"no reason given ({word})"
        status = self.status(word, jobs.events_of(job), cursor, model, error)
        tokens = jobs.count(jobs.data_stats(job), "totalBillableTokenCount")
        state = jobs.state_of(job) if status.state is State.RUNNING else status.state
        return replace(status, state=state, raw=jobs.word_of(job), billed_tokens=tokens)

    def cancel(self, job_id: str) -> None:
        name = self._resource(job_id)
        self.cloud.api(name).post(f"{name}:cancel", action=f"cancel {job_id}", body={})

    def chat(self, model: str | TunedModel) -> ChatModel:
        """Return a published model by its name, or a tuned model's endpoint."""
        name, base = (model, model) if isinstance(model, str) else (model.name, model.base)
        return VertexChatModel(self.cloud, name, self.cloud.resource_name(model), base)

    def count_tokens(self, model: str | TunedModel, request: Request) -> int:
        """Return Google's count of a request's input, without generating an answer."""
        resource = self.cloud.resource_name(model)
        action = f"count tokens for {model if isinstance(model, str) else model.name}"
        try:
            body = question(request)
        except UnrepresentableRow as problem:
            raise Unsupported(f"Gemini cannot accept this request: {problem}") from problem
        api, name = self.cloud.api(resource), f"{resource}:countTokens"
        counted = api.post(name, action=action, body=body, changes_nothing=True)
        if (tokens := counted.whole("totalTokens")) is None:
            raise Unreachable(f"Google could not {action}: the response has no count. Try again.")
        return tokens

    def list_jobs(self, cursor: str) -> JobPage:
        parent = self.cloud.parent()
        query = {"pageSize": PAGE_SIZE, **({"pageToken": cursor} if cursor else {})}
        page = self.cloud.api(parent).get(parent, "tuningJobs", action="list the jobs", query=query)
        listed = page.items("tuningJobs")
        states = {name: jobs.state_of(job) for job in listed if (name := job.text("name"))}
        return JobPage(states, page.text("nextPageToken") or "")

    def checkpoints(self, job_id: str, base: str) -> Sequence[Checkpoint]:
        return jobs.checkpoints_of(self._job(job_id), base)

    def import_job(self, job_id: str) -> ImportedJob:
        try:
            job = self._job(job_id)
        except BackendError as error:
            if not error.is_not_found:
                raise
            raise NotFoundError("tuning job", job_id, (), hint=str(error)) from error
        return jobs.imported(job, self.cloud.read)

    def delete_file(self, ref: str) -> None:
        self.cloud.delete(ref)

    def delete_model(self, model: TunedModel) -> None:
        """Delete the model behind an endpoint, and its endpoints.

        A model can be deleted only when it is not deployed; of several versions, only the one that
        the endpoint serves is deleted. Missing objects are ignored.
        """
        api = self.cloud.api(model.name, "v1")
        versions = [version_behind(deployed) for deployed in _deployed(api, model.name)]
        endpoints = [model.name]
        for version in versions:
            for deployed in _deployed(api, version):
                endpoint = deployed.text("endpoint") or ""
                body: dict[str, JsonValue] = {"deployedModelId": deployed.text("deployedModelId")}
                path, action = f"{endpoint}:undeployModel", f"undeploy {version}"
                _wait(api, api.post(path, action=action, body=body))
                endpoints.append(endpoint)
        for version in versions:
            whole = version.partition("@")[0]
            listed = _find(api, f"{whole}:listVersions").items("models")
            # Vertex AI requires deleting the model instead of its only version.
            _delete(api, whole if len(listed) <= 1 else f"{version}:deleteVersion")
        for endpoint in dict.fromkeys(endpoints):
            _delete(api, endpoint)

    def _version(self, name: str) -> str:
        if "/endpoints/" not in name:
            return name
        deployed = _deployed(self.cloud.api(name, "v1"), name)
        if not deployed:
            raise NotFoundError("model", name, (), hint="Vertex AI has no model at this endpoint.")
        return version_behind(deployed[0])

    def _resource(self, job_id: str) -> str:
        if job_id.startswith("projects/"):
            return job_id
        return f"{self.cloud.parent()}/tuningJobs/{job_id.rpartition('/')[2]}"

    def _job(self, job_id: str) -> Fields:
        name = self._resource(job_id)
        return self.cloud.api(name).get(name, action=f"read job {job_id}")


def _key_of(job: Fields) -> str | None:
    return job.fields("labels").text(jobs.LABEL)


def _find(api: Api, name: str) -> Fields:
    return api.find(name, action=f"read {name}") or Fields({})


def _deployed(api: Api, name: str) -> list[Fields]:
    return _find(api, name).items("deployedModels")


def _delete(api: Api, name: str) -> None:
    _wait(api, api.delete(name, action=f"delete {name}"))


def _wait(api: Api, operation: Fields) -> None:
    name = operation.text("name") or ""

    def is_done() -> bool:
        nonlocal operation
        if operation.all.get("done") is True or not name:
            return True
        operation = api.get(name, action=f"read operation {name}")
        return operation.all.get("done") is True

    if not wait_until(is_done, OPERATION_SECONDS, OPERATION_POLL_SECONDS):
        raise Unreachable(
            f"{name} is still running after {OPERATION_SECONDS:.0f} seconds. Try again later."
        )
    if operation.fields("error").all:
        reason = operation.fields("error").text("message") or "no reason given"
        raise BackendError(f"Vertex AI could not delete: {reason}", status=BAD_REQUEST)
