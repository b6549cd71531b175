"""Tune Nova and Llama models at Amazon Bedrock with AWS's SDK.

Rows are uploaded to the user's S3 bucket. A job's name, token and tag contain the launch key, so a
repeated create call returns the first job. A tuned model answers only from a deployment, which
costs money. Bedrock's OpenAI-compatible tuning is the backend `mantle`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import JsonValue

from unitune.backends.capabilities import DeploymentStatus, ImportedJob, JobDescription, JobPage
from unitune.backends.kit.hosted import HostedBackend, content_name
from unitune.backends.protocol import Guarantee, Launch, Status, Upload
from unitune.data.images import image_name, images_stored
from unitune.errors import BackendError, JobError, NotFoundError, Unsupported, UserError
from unitune.job.job import Job
from unitune.models import ChatModel, TunedModel
from unitune.security.json_fields import Fields
from unitune_providers.bedrock.chat import BedrockChatModel, answering_id
from unitune_providers.bedrock.clients import (
    Clients,
    arn_of,
    call,
    call_or_none,
    content_of,
    list_all,
    put_file,
    put_image,
    split_uri,
)
from unitune_providers.bedrock.jobs import (
    METRICS,
    NAME,
    STATES,
    BedrockOptions,
    bucket_uri,
    check_settings,
    create_request,
    events_of,
    job_name,
    offered_name,
    raw_of,
)

PAGE_SIZE = 100
DEPLOYMENT_STATES: Mapping[str, Literal["ready", "swapping", "failed"]] = {
    "Active": "ready",
    "Updating": "swapping",
    "Failed": "failed",
}
# Hyperparameters that an import converts: our name and type by Bedrock's name
TUNING: Mapping[str, tuple[str, Callable[[str], int | float]]] = {
    "epochCount": ("epochs", int),
    "learningRate": ("learning_rate", float),
    "learningRateWarmupSteps": ("warmup", int),
}


class BedrockBackend(HostedBackend[BedrockOptions]):
    """Backend that tunes Nova and Llama models at Amazon Bedrock."""

    name: ClassVar[str] = NAME
    capabilities = ("DescribesJobs", "ListsJobs", "Deletes", "Deploys", "SwapsModel", "Imports")
    guarantee: ClassVar[Guarantee] = Guarantee.TOKEN
    states = STATES
    options = BedrockOptions

    def __init__(self) -> None:
        self._aws = Clients()

    def validate_options(self, job: Job) -> None:
        """Refuse a job with options that are invalid or do not fit its base model."""
        self.job_options(job)
        check_settings(job)

    def upload(self, path: Path, sha256: str) -> Upload:
        uri = bucket_uri(f"{content_name(sha256)}.jsonl")
        with images_stored(path, "bytes", self._store_image) as file:
            put_file(self._aws.s3, file, uri)
        return Upload(uri, sha256)

    def _store_image(self, block: dict[str, Any]) -> dict[str, Any]:
        """Upload the image in a block of Nova's rows and return it with its place."""
        if block.keys() != {"format", "source"} or "bytes" not in block["source"]:
            return block
        content, name = image_name(block["source"]["bytes"], f"image/{block['format']}")
        put_image(self._aws.s3, content, uri := bucket_uri(name))
        return {**block, "source": {"s3Location": {"uri": uri}}}

    def submit(self, launch: Launch) -> str:
        """Create a job; a repeated launch key returns the first one."""
        request, creating = create_request(launch, self.job_options(launch.job)), self._aws.creating
        action = f"create the job of launch {launch.key}"
        try:
            created = call(action, creating.create_model_customization_job, **request)
        except BackendError as error:
            # AWS forgets tokens after a while, but the job's name is still taken.
            taken = isinstance(error.__cause__, creating.exceptions.ConflictException)
            jobs = self.find(launch.key, launch.folder) if taken else []
            if len(jobs) != 1:
                raise
            return jobs[0]
        return arn_of(created, "jobArn", action)

    def find(self, launch_key: str, folder: Path) -> list[str]:
        """Return the jobs with the launch key in their name."""
        del folder
        name, action = job_name(launch_key), f"list the jobs of launch {launch_key}"
        operation = "list_model_customization_jobs"
        arns = [
            arn
            for page in list_all(action, self._aws.bedrock, operation, nameContains=name)
            for job in page.items("modelCustomizationJobSummaries")
            if job.text("jobName") == name and (arn := job.text("jobArn"))
        ]
        return list(dict.fromkeys(arns))

    def describe_job(self, job_id: str) -> JobDescription:
        job = self._job(job_id)
        training = job.fields("trainingDataConfig").text("s3Uri")
        return JobDescription(job.text("jobName"), job.text("baseModelArn"), training)

    def list_jobs(self, cursor: str) -> JobPage:
        page = call(
            "list the jobs",
            self._aws.bedrock.list_model_customization_jobs,
            sortBy="CreationTime",
            sortOrder="Descending",
            maxResults=PAGE_SIZE,
            **({"nextToken": cursor} if cursor else {}),
        )
        states = {
            arn: self.state_of(raw_of(job))
            for job in page.items("modelCustomizationJobSummaries")
            if (arn := job.text("jobArn"))
        }
        return JobPage(states, page.text("nextToken") or "")

    def poll(self, job_id: str, cursor: str) -> Status:
        """Return the status of a job; step losses are available only when it has completed."""
        job = self._job(job_id)
        losses = self._losses(job) if job.text("status") == "Completed" else ""
        events, error = events_of(job, losses), job.text("failureMessage")
        return self.status(raw_of(job), events, cursor, _tuned_model(job), error)

    def cancel(self, job_id: str) -> None:
        stop = self._aws.bedrock.stop_model_customization_job
        call(f"stop {job_id}", stop, jobIdentifier=job_id)

    def chat(self, model: str | TunedModel) -> ChatModel:
        """Return a base model, a deployment, or a tuned model through its deployment."""
        name = model if isinstance(model, str) else model.name
        model_id = behind = answering_id(name)
        if ":custom-model/" in name:
            model_id = self._deployment_of(name)
        elif ":custom-model-deployment/" in name:
            if (deployment := self._deployment(name)) is None:
                raise NotFoundError("deployment", name, ())
            behind = arn_of(deployment, "modelArn", f"read {name}")
        return BedrockChatModel(self._aws, model_id, f"{NAME}:{behind}")

    def delete_file(self, ref: str) -> None:
        bucket, key = split_uri(ref)
        call_or_none(f"delete {ref}", self._aws.s3.delete_object, Bucket=bucket, Key=key)

    def delete_model(self, model: TunedModel) -> None:
        """Delete a tuned model; AWS refuses while it has a deployment."""
        delete = self._aws.bedrock.delete_custom_model
        call_or_none(f"delete {model.name}", delete, modelIdentifier=model.name)

    def deploy(self, model: TunedModel, name: str, options: Mapping[str, JsonValue]) -> str:
        """Deploy a tuned model for on-demand inference, unless the name exists."""
        if options:
            raise JobError(
                f"{', '.join(options)} cannot be set, because Bedrock's on-demand deployments have "
                "no options. Remove them."
            )
        if (existing := self.find_deployment(name)) is not None:
            return existing
        action = f"deploy {model.name}"
        created = call(
            action,
            self._aws.creating.create_custom_model_deployment,
            modelDeploymentName=name,
            modelArn=model.name,
            clientRequestToken=name,
            tags=[{"key": "unitune", "value": name}],
        )
        return arn_of(created, "customModelDeploymentArn", action)

    def find_deployment(self, name: str) -> str | None:
        action, operation = f"search for the deployment {name}", "list_custom_model_deployments"
        for page in list_all(action, self._aws.bedrock, operation, nameContains=name):
            for deployment in page.items("modelDeploymentSummaries"):
                if deployment.text("customModelDeploymentName") == name:
                    return deployment.text("customModelDeploymentArn")
        return None

    def deployment_status(self, ref: str, model: TunedModel) -> DeploymentStatus:
        serving, deployment = model.model_copy(update={"name": ref}), self._deployment(ref)
        if deployment is None:
            return DeploymentStatus("gone", serving, "not found")
        word, tuned = deployment.text("status") or "no status", deployment.text("modelArn")
        update = deployment.fields("updateDetails")
        update_word = update.text("updateStatus")
        if update_word == "UpdateCompleted":
            tuned = update.text("modelArn") or tuned
        shown = "Updating" if (word, update_word) == ("Active", "Updating") else word
        raw = ", ".join(filter(None, (word, update_word, deployment.text("failureMessage"))))
        return DeploymentStatus(DEPLOYMENT_STATES.get(shown, "starting"), serving, raw, tuned)

    def swap_model(self, ref: str, model: TunedModel) -> None:
        """Update a deployment to serve another model."""
        update = self._aws.creating.update_custom_model_deployment
        action = f"replace the model of {ref} by {model.name}"
        call(action, update, customModelDeploymentIdentifier=ref, modelArn=model.name)

    def undeploy(self, ref: str) -> None:
        delete = self._aws.bedrock.delete_custom_model_deployment
        call_or_none(f"delete {ref}", delete, customModelDeploymentIdentifier=ref)

    def import_job(self, job_id: str) -> ImportedJob:
        get = self._aws.bedrock.get_model_customization_job
        job = call_or_none(f"read {job_id}", get, jobIdentifier=job_id)
        if job is None:
            raise NotFoundError("Bedrock job", job_id, ())
        kind = job.text("customizationType") or "FINE_TUNING"
        if kind != "FINE_TUNING":
            raise Unsupported(
                f"Bedrock's job {job_id} is {kind}; only FINE_TUNING can be imported."
            )
        training = job.fields("trainingDataConfig").text("s3Uri")
        validators = job.fields("validationDataConfig").items("validators")
        held_out = [uri for validator in validators if (uri := validator.text("s3Uri"))]
        hyper_parameters = job.fields("hyperParameters")
        return ImportedJob(
            base_model=_base_of(job),
            method="sft",
            training=content_of(self._aws.s3, training) if training else None,
            validation=content_of(self._aws.s3, held_out[0]) if held_out else None,
            tuning=_known(hyper_parameters),
            model=_tuned_model(job) if job.text("status") == "Completed" else None,
            notes=tuple(_notes(hyper_parameters, len(held_out))),
        )

    def _job(self, job_id: str) -> Fields:
        get = self._aws.bedrock.get_model_customization_job
        return call(f"read {job_id}", get, jobIdentifier=job_id)

    def _losses(self, job: Fields) -> str:
        if not (folder := job.fields("outputDataConfig").text("s3Uri")):
            return ""
        number = (job.text("jobArn") or "").rpartition("/")[2]
        uri = f"{folder.rstrip('/')}/{METRICS.format(id=number)}"
        return (content_of(self._aws.s3, uri) or b"").decode("utf-8", "replace")

    def _deployment(self, ref: str) -> Fields | None:
        get = self._aws.bedrock.get_custom_model_deployment
        return call_or_none(f"read {ref}", get, customModelDeploymentIdentifier=ref)

    def _deployment_of(self, model_arn: str) -> str:
        page = call(
            f"search for a deployment of {model_arn}",
            self._aws.bedrock.list_custom_model_deployments,
            modelArnEquals=model_arn,
            statusEquals="Active",
        )
        for deployment in page.items("modelDeploymentSummaries"):
            if arn := deployment.text("customModelDeploymentArn"):
                return arn
        raise UserError(
            f"{model_arn} needs a deployment and none is ready. Start one: "
            "unitune deployments up RUN --ttl 2h"
        )


def _base_of(job: Fields) -> str:
    return offered_name((job.text("baseModelArn") or "").rpartition("foundation-model/")[2])


def _tuned_model(job: Fields) -> TunedModel | None:
    arn = job.text("outputModelArn")
    return TunedModel(backend=NAME, name=arn, base=_base_of(job)) if arn else None


def _known(hyper_parameters: Fields) -> dict[str, JsonValue]:
    known = dict[str, JsonValue]()
    for theirs, (ours, read) in TUNING.items():
        with suppress(ValueError):
            known[ours] = read(hyper_parameters.text(theirs) or "")
    return known


def _notes(hyper_parameters: Fields, validation_files: int) -> Iterator[str]:
    for name, value in sorted(hyper_parameters.all.items()):
        if name not in TUNING:
            yield f"Bedrock's {name} = {value} is not imported"
    if validation_files > 1:
        yield f"only the first of {validation_files} validation files is imported"
