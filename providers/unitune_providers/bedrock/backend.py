"""Amazon Bedrock: tuning of Nova and Llama models through AWS's SDK.

Rows go to an S3 bucket of the user's. A job's name, token and tag are made of the launch key, so a
repeated create call finds the first job. A tuned model answers only from a deployment, which costs
money. Beside this file: `bedrock_clients` (AWS and its errors), `bedrock_options` (a job as a
create call), `bedrock_status` (states and events), `bedrock_chat` and `bedrock_importing`.

What is not here: Bedrock's OpenAI-compatible tuning, which is the backend `mantle`; and which bases
can be tuned, with which limits, which is data (``bedrock.yaml``).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue

from unitune.backends.capabilities import DeploymentStatus, ImportedJob, JobDescription, JobPage
from unitune.backends.protocol import Guarantee, Launch, State, Status, Upload
from unitune.errors import BackendError, JobError, NotFoundError, UserError
from unitune.job.job import Job
from unitune.models import ChatModel, TunedModel
from unitune_providers.bedrock.chat import BedrockChatModel, answering_id
from unitune_providers.bedrock.clients import (
    Clients,
    content_of,
    gone_is_fine,
    is_in_bucket,
    is_missing,
    our_errors,
    put_file,
    split_uri,
)
from unitune_providers.bedrock.importing import imported
from unitune_providers.bedrock.options import (
    NAME,
    bucket_place,
    create_request,
    job_name,
    own_name,
    vet_job,
)
from unitune_providers.bedrock.status import METRICS, events_of, raw_of, state_of
from unitune_providers.unreadable import readable, reads_answers

if TYPE_CHECKING:
    from mypy_boto3_bedrock.type_defs import (
        GetModelCustomizationJobResponseTypeDef,
        ListModelCustomizationJobsRequestTypeDef,
    )

PAGE_SIZE = 100
STANDING = {"Creating": "starting", "Active": "ready", "Failed": "failed"}


@reads_answers
class BedrockBackend:
    """Tunes Nova and Llama models at Amazon Bedrock."""

    name: ClassVar[str] = NAME
    guarantee: ClassVar[Guarantee] = Guarantee.TOKEN

    def __init__(self) -> None:
        self._aws = Clients()

    def validate_options(self, job: Job) -> None:
        """Refuse a job whose options are not valid, or do not go with its method.

        Raises:
            JobError: An option is unknown, or a value not allowed.
        """
        vet_job(job)

    def upload(self, path: Path, sha256: str) -> Upload:
        """Put a file into the bucket, unless it is there already.

        Raises:
            UserError: No bucket is named.
        """
        place, name = bucket_place(), f"unitune-{sha256[:32]}.jsonl"
        s3, key = self._aws.s3, place.folder + name
        with our_errors(f"put {path.name} into {place.bucket}"):
            if not is_in_bucket(s3, place.bucket, key):
                put_file(s3, path, place.bucket, key)
        return Upload(place.uri(name), sha256)

    def submit(self, launch: Launch) -> str:
        """Create a job; the same launch key again finds the first one.

        Raises:
            JobError: An option is not allowed.
            UserError: Role or bucket are missing.
        """
        request, creating = create_request(launch), self._aws.creating
        doing = f"create the job of launch {launch.key}"
        with our_errors(doing), readable(self.name, doing):
            try:
                return creating.create_model_customization_job(**request)["jobArn"]
            except creating.exceptions.ConflictException:
                # AWS forgets tokens after a while; the job's name is still taken by the first.
                found = self.find(launch.key, launch.folder)
                if len(found) != 1:
                    raise
                return found[0]

    def find(self, launch_key: str, folder: Path) -> list[str]:  # noqa: ARG002 - for local backends
        """Return the jobs of a launch key, which is in their name."""
        name = job_name(launch_key)
        pages = self._aws.bedrock.get_paginator("list_model_customization_jobs")
        with our_errors(f"list the jobs of launch {launch_key}"):
            found = [
                job["jobArn"]
                for page in pages.paginate(nameContains=name)
                for job in page.get("modelCustomizationJobSummaries", [])
                if job.get("jobName") == name and "jobArn" in job
            ]
        return list(dict.fromkeys(found))

    def describe_job(self, job_id: str) -> JobDescription:
        """Return what is known of a job.

        Raises:
            BackendError: There is no such job.
        """
        job = self._job(job_id)
        training = job["trainingDataConfig"].get("s3Uri")
        return JobDescription(job["jobName"], job["baseModelArn"], training)

    def list_jobs(self, cursor: str) -> JobPage:
        """Return one page of all jobs, the newest first."""
        asked: ListModelCustomizationJobsRequestTypeDef = {
            "sortBy": "CreationTime",
            "sortOrder": "Descending",
            "maxResults": PAGE_SIZE,
        }
        if cursor:
            asked["nextToken"] = cursor
        with our_errors("list the jobs"):
            page = self._aws.bedrock.list_model_customization_jobs(**asked)
        jobs = page.get("modelCustomizationJobSummaries", [])
        states = {job["jobArn"]: state_of(job) for job in jobs if "jobArn" in job}
        return JobPage(states, page.get("nextToken", ""))

    def poll(self, job_id: str, cursor: str) -> Status:
        """Say how a job stands; losses by step come all at once when it has completed."""
        job = self._job(job_id)
        state = state_of(job)
        table = self._losses(job) if state is State.SUCCEEDED else None
        model = _tuned(job) if state is State.SUCCEEDED else None
        if state is State.SUCCEEDED and model is None:
            # Bedrock has not named the model yet: polling goes on.
            state = State.UNKNOWN
        events, seen = events_of(job, table), set(cursor.split("\n"))
        return Status(
            state=state,
            raw=raw_of(job),
            events=tuple(event for event in events if event.key not in seen),
            cursor="\n".join(event.key for event in events),
            model=model,
            error=_failure(job) if state is State.FAILED else None,
        )

    def cancel(self, job_id: str) -> None:
        """Ask Bedrock to stop a job."""
        with our_errors(f"stop {job_id}"):
            self._aws.bedrock.stop_model_customization_job(jobIdentifier=job_id)

    def chat(self, model: str | TunedModel) -> ChatModel:
        """Return a base model, a deployment, or a tuned model by whatever deployment it has.

        Raises:
            UserError: The tuned model has no deployment that is ready.
            NotFoundError: There is no such deployment.
        """
        name = model if isinstance(model, str) else model.name
        asked = answers_by = answering_id(name)
        if ":custom-model/" in name:
            asked = self._deployment_of(name)
        elif ":custom-model-deployment/" in name:
            answers_by = self._model_behind(name)
        return BedrockChatModel(self._aws, asked, f"{NAME}:{answers_by}")

    def delete_file(self, ref: str) -> None:
        """Remove an uploaded file."""
        bucket, key = split_uri(ref)
        with our_errors(f"delete {ref}"):
            self._aws.s3.delete_object(Bucket=bucket, Key=key)

    def delete_model(self, model: TunedModel) -> None:
        """Remove a tuned model; AWS refuses while a deployment of it stands."""
        with gone_is_fine(), our_errors(f"delete {model.name}"):
            self._aws.bedrock.delete_custom_model(modelIdentifier=model.name)

    def deploy(self, model: TunedModel, name: str, options: Mapping[str, JsonValue]) -> str:
        """Deploy a tuned model for on-demand inference; the same name again finds the first.

        Raises:
            JobError: An option is given; Bedrock's deployments have none.
        """
        if options:
            raise JobError(
                f"{', '.join(options)} cannot be set: Bedrock's on-demand deployments have no "
                "options. Leave them out."
            )
        found = self.find_deployment(name)
        if found is not None:
            return found
        with our_errors(f"deploy {model.name}"):
            created = self._aws.creating.create_custom_model_deployment(
                modelDeploymentName=name,
                modelArn=model.name,
                clientRequestToken=name,
                tags=[{"key": "unitune", "value": name}],
            )
        return created["customModelDeploymentArn"]

    def find_deployment(self, name: str) -> str | None:
        """Return the ARN of the deployment of this name."""
        pages = self._aws.bedrock.get_paginator("list_custom_model_deployments")
        with our_errors(f"look for the deployment {name}"):
            for page in pages.paginate(nameContains=name):
                for one in page.get("modelDeploymentSummaries", []):
                    if one["customModelDeploymentName"] == name:
                        return one["customModelDeploymentArn"]
        return None

    def deployment_status(self, ref: str, model: TunedModel) -> DeploymentStatus:
        """Return how a deployment stands."""
        serving = model.model_copy(update={"name": ref})
        try:
            with our_errors(f"look at {ref}"):
                found = self._aws.bedrock.get_custom_model_deployment(
                    customModelDeploymentIdentifier=ref
                )
        except BackendError as error:
            if is_missing(error):
                return DeploymentStatus("gone", serving, "not found")
            raise
        word = found["status"]
        raw = ", ".join(filter(None, (word, found.get("failureMessage"))))
        match STANDING.get(word):
            case "ready":
                return DeploymentStatus("ready", serving, raw)
            case "failed":
                return DeploymentStatus("failed", serving, raw)
            case _:
                return DeploymentStatus("starting", serving, raw)

    def undeploy(self, ref: str) -> None:
        """Take a deployment down."""
        with gone_is_fine(), our_errors(f"delete {ref}"):
            self._aws.bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=ref)

    def import_job(self, job_id: str) -> ImportedJob:
        """Return an existing job with its files.

        Raises:
            NotFoundError: There is no such job.
            Unsupported: It is no training on examples.
        """
        try:
            job = self._job(job_id)
        except BackendError as error:
            if is_missing(error):
                raise NotFoundError("Bedrock job", job_id, (), str(error)) from error
            raise
        model = _tuned(job) if state_of(job) is State.SUCCEEDED else None
        return imported(job, model, partial(content_of, self._aws.s3))

    def _job(self, job_id: str) -> GetModelCustomizationJobResponseTypeDef:
        with our_errors(f"look at {job_id}"):
            return self._aws.bedrock.get_model_customization_job(jobIdentifier=job_id)

    def _losses(self, job: GetModelCustomizationJobResponseTypeDef) -> str | None:
        folder = job["outputDataConfig"].get("s3Uri", "").rstrip("/")
        if not folder:
            return None
        number = job["jobArn"].rpartition("/")[2]
        content = content_of(self._aws.s3, f"{folder}/{METRICS.format(id=number)}")
        return None if content is None else content.decode("utf-8", "replace")

    def _deployment_of(self, model_arn: str) -> str:
        with our_errors(f"look for a deployment of {model_arn}"):
            page = self._aws.bedrock.list_custom_model_deployments(
                modelArnEquals=model_arn, statusEquals="Active"
            )
        for one in page.get("modelDeploymentSummaries", []):
            return one["customModelDeploymentArn"]
        raise UserError(
            f"{model_arn} answers only from a deployment, and none is ready. Bring one up: "
            "unitune deploy RUN --ttl 2h"
        )

    def _model_behind(self, ref: str) -> str:
        try:
            with our_errors(f"look at {ref}"):
                found = self._aws.bedrock.get_custom_model_deployment(
                    customModelDeploymentIdentifier=ref
                )
        except BackendError as error:
            if is_missing(error):
                raise NotFoundError("deployment", ref, (), str(error)) from error
            raise
        return found["modelArn"]


def _tuned(job: GetModelCustomizationJobResponseTypeDef) -> TunedModel | None:
    arn = job.get("outputModelArn")
    if not arn:
        return None
    base = own_name(job["baseModelArn"].rpartition("foundation-model/")[2])
    return TunedModel(backend=NAME, name=arn, base=base)


def _failure(job: GetModelCustomizationJobResponseTypeDef) -> str:
    return job.get("failureMessage") or "Bedrock gives no reason"
