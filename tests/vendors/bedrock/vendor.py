"""Bedrock on loopback: the control plane of tuning and deploying, and Converse, over HTTP.

It speaks AWS's rest-json as botocore does. S3 is another server (`Storage`), because Bedrock reads
and writes buckets by itself.

    with serve(BedrockVendor(storage)) as server:
        for name, value in environment(server.url, s3_url).items():
            monkeypatch.setenv(name, value)

What is not here: signatures are not computed again, only the key that they name is looked at; and
all models answer the same way (`ServerBehavior`).
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest, VendorResponse
from unitune.testing.omissions import Shape
from unitune.testing.vendor_setup import Progress, Refused, RoutedVendor, ServerBehavior, route
from vendors import shapes, streams
from vendors.bedrock.checks import check_job, check_members, invalid, region_of
from vendors.bedrock.jobs import ACCOUNT, CustomizationJob, when
from vendors.bedrock.storage import REGION, Storage
from vendors.bedrock.wire import STATUS, Lists, moment, refused, texts_of

KEY = "AKIAUNITUNELOOPBACK"
BUCKET = "unitune-loopback"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/unitune-loopback"
JOBS = "/model-customization-jobs"
DEPLOYMENTS = "/model-customization/custom-model-deployments"


def environment(url: str, s3_url: str) -> dict[str, str]:
    """Return the environment in which boto3 finds the loopback servers, and nothing else of AWS."""
    return {
        "AWS_ENDPOINT_URL_BEDROCK": url,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": url,
        "AWS_ENDPOINT_URL_S3": s3_url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-nobody",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "AWS_EC2_METADATA_DISABLED": "true",
        "UNITUNE_BEDROCK_BUCKET": f"{BUCKET}/folder",
        "UNITUNE_BEDROCK_ROLE_ARN": ROLE,
    }


@dataclass(slots=True)
class Deployment:
    """One custom model deployment."""

    name: str
    model_arn: str
    number: str
    progress: Progress = field(default_factory=Progress)
    # newest update: the model and its progress
    update: tuple[str, Progress] | None = None
    update_fails: bool = False  # whether the update fails

    @property
    def arn(self) -> str:
        """The deployment's ARN."""
        return f"arn:aws:bedrock:{REGION}:{ACCOUNT}:custom-model-deployment/{self.number}"

    def as_json(self, behavior: ServerBehavior) -> dict[str, JsonValue]:
        """Return what AWS shows of it, but for its name, whose member a list calls otherwise."""
        return {
            "customModelDeploymentArn": self.arn,
            "modelArn": self.model_arn,
            "createdAt": when(self.progress.created),
            "status": self.status(behavior),
        }

    def look(self, behavior: ServerBehavior) -> dict[str, JsonValue]:
        """Let a poll's worth of time pass, and return how its last update stands."""
        self.progress.look()
        if self.update is None:
            return {}
        model_arn, progress = self.update
        progress.look()
        word = "Updating"
        if progress.started(behavior):
            word = "UpdateFailed" if self.update_fails else "UpdateCompleted"
            self.model_arn = self.model_arn if self.update_fails else model_arn
        return {"updateDetails": {"modelArn": model_arn, "updateStatus": word}}

    def status(self, behavior: ServerBehavior) -> str:
        """Return Bedrock's word for it."""
        return "Active" if self.progress.started(behavior) else "Creating"


class BedrockVendor(RoutedVendor):
    """Bedrock in one account and region.

    `ends` is when a base model's life ends, by its name.
    """

    key = KEY
    wrong_key = "The security token in the request is invalid."
    unreadable = "Invalid request: {error}"

    def __init__(self, storage: Storage, behavior: ServerBehavior | None = None) -> None:
        super().__init__(behavior)
        self.storage = storage
        self.jobs: list[CustomizationJob] = []
        self.deployments: list[Deployment] = []
        self.deleted_models: set[str] = set()
        self.ends: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._lists = Lists(self.behavior)

    def answer(self, request: VendorRequest) -> VendorResponse:
        response = super().answer(request)
        request_id = {"x-amzn-RequestId": f"request-{next(self._numbers):012d}"}
        return replace(response, headers={**response.headers, **request_id})

    def check_key(self, request: VendorRequest) -> None:
        if f"Credential={self.key}/" not in request.headers.get("authorization", ""):
            raise refused("UnrecognizedClientException", self.wrong_key)

    def refuse(self, refusal: Refused) -> VendorResponse:
        code = refusal.details.get("code", "ValidationException")
        headers = {"x-amzn-ErrorType": code}
        return VendorResponse({"message": refusal.message}, STATUS[code], headers)

    def shapes(self) -> Sequence[Shape]:
        return shapes.bedrock()

    @route("POST", JOBS)
    def create_job(self, request: VendorRequest) -> VendorResponse:
        body = request.json
        check_members("CreateModelCustomizationJob", body)
        token = body.get("clientRequestToken")
        for job in self.jobs:
            if token is not None and job.request.get("clientRequestToken") == token:
                # As documented: such a request is ignored, whatever it says, and is no error.
                return VendorResponse({"jobArn": job.arn}, 201)
            for name in ("jobName", "customModelName"):
                if job.request[name] == body[name]:
                    raise refused("ConflictException", f"The {name} {body[name]} is in use.")
        check_job(body, region_of(request))
        job = CustomizationJob(body, self._number())
        self.jobs.append(job)
        return VendorResponse({"jobArn": job.arn}, 201)

    @route("GET", JOBS)
    def list_jobs(self, request: VendorRequest) -> JsonValue:
        check_members("ListModelCustomizationJobs", texts_of(request))
        newest_first = request.first("sortOrder") != "Ascending"
        return self._lists.page(
            "modelCustomizationJobSummaries",
            [
                job.summary(self.behavior)
                for job in sorted(self.jobs, key=_created, reverse=newest_first)
                if job.progress.listed(self.behavior) and self._matches(job, request)
            ],
            request,
        )

    @route("GET", f"{JOBS}/{{identifier:.+}}")
    def job(self, _: VendorRequest, identifier: str) -> JsonValue:
        job = self._job(identifier)
        job.look(self.behavior, self.storage)
        return job.as_json(self.behavior)

    @route("POST", f"{JOBS}/{{identifier:.+}}/stop")
    def stop_job(self, _: VendorRequest, identifier: str) -> JsonValue:
        job = self._job(identifier)
        if job.ended is not None:
            raise refused("ConflictException", "The job has ended and cannot be stopped.")
        if job.stopped is None:
            job.stopped = job.progress.polls
        return {}

    @route("DELETE", "/custom-models/{arn:.+}")
    def delete_model(self, _: VendorRequest, arn: str) -> JsonValue:
        self._check_model(arn)
        if any(deployment.model_arn == arn for deployment in self.deployments):
            raise refused("ConflictException", "The model has a deployment.")
        self.deleted_models.add(arn)
        return {}

    @route("POST", DEPLOYMENTS)
    def create_deployment(self, request: VendorRequest) -> VendorResponse:
        body = request.json
        check_members("CreateCustomModelDeployment", body)
        self._check_model(body["modelArn"])
        name = body["modelDeploymentName"]
        if any(deployment.name == name for deployment in self.deployments):
            raise invalid(f"A deployment {name} exists already.")
        deployment = Deployment(name, body["modelArn"], self._number())
        self.deployments.append(deployment)
        return VendorResponse({"customModelDeploymentArn": deployment.arn}, 202)

    @route("GET", DEPLOYMENTS)
    def list_deployments(self, request: VendorRequest) -> JsonValue:
        name, model = request.first("nameContains") or "", request.first("modelArnEquals")
        status = request.first("statusEquals")
        return self._lists.page(
            "modelDeploymentSummaries",
            [
                {"customModelDeploymentName": deployment.name, **deployment.as_json(self.behavior)}
                for deployment in reversed(self.deployments)
                if name in deployment.name
                and model in (None, deployment.model_arn)
                and status in (None, deployment.status(self.behavior))
            ],
            request,
        )

    @route("GET", f"{DEPLOYMENTS}/{{identifier:.+}}")
    def deployment(self, _: VendorRequest, identifier: str) -> JsonValue:
        deployment = self._deployment(identifier)
        update = deployment.look(self.behavior)
        shown = deployment.as_json(self.behavior)
        return {"modelDeploymentName": deployment.name, **shown, **update}

    @route("PATCH", f"{DEPLOYMENTS}/{{identifier:.+}}")
    def update_deployment(self, request: VendorRequest, identifier: str) -> VendorResponse:
        deployment, body = self._deployment(identifier), request.json
        check_members("UpdateCustomModelDeployment", body)
        self._check_model(body["modelArn"])
        if deployment.status(self.behavior) != "Active":
            raise invalid("The deployment is not active.")
        deployment.update = (body["modelArn"], Progress())
        return VendorResponse({"customModelDeploymentArn": deployment.arn}, 202)

    @route("DELETE", f"{DEPLOYMENTS}/{{identifier:.+}}")
    def delete_deployment(self, _: VendorRequest, identifier: str) -> JsonValue:
        self.deployments.remove(self._deployment(identifier))
        return {}

    @route("GET", "/foundation-models/{name:.+}")
    def foundation_model(self, _: VendorRequest, name: str) -> JsonValue:
        if name not in self.ends:
            raise refused("ResourceNotFoundException", f"There is no model {name}.")
        arn = f"arn:aws:bedrock:{REGION}::foundation-model/{name}"
        lifecycle: JsonValue = {"status": "LEGACY", "endOfLifeTime": self.ends[name]}
        return {"modelDetails": {"modelArn": arn, "modelId": name, "modelLifecycle": lifecycle}}

    @route("POST", "/model/{model_id:.+}/converse")
    def converse(self, request: VendorRequest, model_id: str) -> JsonValue:
        tuned, body = self._is_tuned(model_id), request.json
        check_members("Converse", body, "bedrock-runtime")
        turns: list[dict[str, Any]] = body.get("messages", [])
        if not turns or turns[0]["role"] != "user":
            raise invalid("A conversation must start with a user message.")
        question = "".join(block.get("text", "") for block in turns[-1]["content"])
        replies = self.behavior.replies if tuned else {}
        words = replies.get(question, self.behavior.otherwise).split()
        limit = body.get("inferenceConfig", {}).get("maxTokens", len(words))
        input_tokens, output_tokens = len(json.dumps(turns).split()), min(limit, len(words))
        text = " ".join(words[:limit])
        return {
            "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
            "stopReason": "max_tokens" if limit < len(words) else "end_turn",
            "usage": {
                "inputTokens": input_tokens,
                "outputTokens": output_tokens,
                "totalTokens": input_tokens + output_tokens,
            },
            "metrics": {"latencyMs": 1},
        }

    @route("POST", "/model/{model_id:.+}/converse-stream")
    def converse_stream(self, request: VendorRequest, model_id: str) -> VendorResponse:
        return streams.converse(self.converse(request, model_id))

    def _matches(self, job: CustomizationJob, request: VendorRequest) -> bool:
        """Whether a job passes the filters of a list."""
        after, before = request.first("creationTimeAfter"), request.first("creationTimeBefore")
        return (
            (request.first("nameContains") or "") in job.request["jobName"]
            and request.first("statusEquals") in (None, job.status(self.behavior))
            and (after is None or moment(after) < job.progress.created)
            and (before is None or job.progress.created < moment(before))
        )

    def _is_tuned(self, model_id: str) -> bool:
        """Return whether a tuned model answers by this name, or an untuned one."""
        if ":custom-model-deployment/" in model_id:
            if self._deployment(model_id).status(self.behavior) != "Active":
                raise refused("ModelNotReadyException", "The deployment is not ready.")
            return True
        if not re.fullmatch(r"([a-z]+\.)?(amazon|meta)\.[a-z0-9-]+:\d+", model_id):
            raise invalid("The provided model identifier is invalid.")
        if model_id.startswith("amazon.nova-2-"):
            raise invalid(
                f"Invocation of model ID {model_id} with on-demand throughput isn't supported."
            )
        return False

    def _job(self, identifier: str) -> CustomizationJob:
        for job in self.jobs:
            if identifier in (job.arn, job.request["jobName"]):
                return job
        raise refused("ResourceNotFoundException", f"There is no job {identifier}.")

    def _check_model(self, arn: str) -> None:
        for job in self.jobs:
            completed = job.status(self.behavior) == "Completed"
            if job.model_arn == arn and completed and arn not in self.deleted_models:
                return
        raise refused("ResourceNotFoundException", f"There is no custom model {arn}.")

    def _deployment(self, identifier: str) -> Deployment:
        for deployment in self.deployments:
            if identifier in (deployment.arn, deployment.name):
                return deployment
        raise refused("ResourceNotFoundException", f"There is no deployment {identifier}.")

    def _number(self) -> str:
        return f"{next(self._numbers):012x}"


def _created(job: CustomizationJob) -> float:
    return job.progress.created
