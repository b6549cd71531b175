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
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import JsonValue

from unitune.testing.loopback import UNREADABLE, VendorRequest, VendorResponse, thinned
from unitune.testing.vendor_setup import ServerBehavior
from vendors import shapes
from vendors.bedrock.checks import check_job, check_members, region_of
from vendors.bedrock.jobs import ACCOUNT, CustomizationJob, when
from vendors.bedrock.storage import REGION, Storage
from vendors.bedrock.wire import Lists, Refusal, moment, refused, texts_of

KEY = "AKIAUNITUNELOOPBACK"
BUCKET = "unitune-loopback"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/unitune-loopback"


def environment(url: str, s3_url: str) -> dict[str, str]:
    """Return the environment in which boto3 finds the loopback servers, and nothing else of AWS.

    Args:
        url: Of the server that plays Bedrock.
        s3_url: Of the one that plays S3.
    """
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
    looks: int = 0
    created: float = field(default_factory=time.time)

    @property
    def arn(self) -> str:
        """The deployment's ARN."""
        return f"arn:aws:bedrock:{REGION}:{ACCOUNT}:custom-model-deployment/{self.number}"


class Route(NamedTuple):
    """Which requests an operation answers."""

    method: str
    path: re.Pattern[str]
    answer: Callable[[VendorRequest, str], VendorResponse]


class BedrockVendor:
    """Bedrock in one account and region.

    Args:
        storage: The account's S3.
        behavior: How it behaves.
    """

    def __init__(self, storage: Storage, behavior: ServerBehavior | None = None) -> None:
        self.storage = storage
        self.behavior = behavior or ServerBehavior()
        self.jobs: list[CustomizationJob] = []
        self.deployments: list[Deployment] = []
        self.deleted_models: set[str] = set()
        self._numbers = itertools.count(1)
        self._lists = Lists(self.behavior)
        self._routes = self._all_routes()

    def answer(self, asked: VendorRequest) -> VendorResponse:
        """Answer a request, changing state as Bedrock would."""
        request_id = f"request-{next(self._numbers):012d}"
        try:
            self._check_key(asked)
            answer = thinned(self.behavior.omits, self._answer(asked), asked, shapes.bedrock)
        except Refusal as refusal:
            return refused(refusal, request_id)
        except UNREADABLE as problem:
            return refused(
                Refusal("ValidationException", f"Invalid request: {problem}"), request_id
            )
        return VendorResponse(answer.content, answer.status, {"x-amzn-RequestId": request_id})

    def _all_routes(self) -> list[Route]:
        jobs, deployments = (
            "/model-customization-jobs",
            "/model-customization/custom-model-deployments",
        )
        return [
            Route(method, re.compile(path), answer)
            for method, path, answer in (
                ("POST", jobs, self._create_job),
                ("GET", jobs, self._list_jobs),
                ("POST", f"{jobs}/(.+)/stop", self._stop_job),
                ("GET", f"{jobs}/(.+)", self._get_job),
                ("DELETE", "/custom-models/(.+)", self._delete_model),
                ("POST", deployments, self._create_deployment),
                ("GET", deployments, self._list_deployments),
                ("GET", f"{deployments}/(.+)", self._get_deployment),
                ("DELETE", f"{deployments}/(.+)", self._delete_deployment),
                ("POST", "/model/(.+)/converse", self._converse),
            )
        ]

    def _answer(self, asked: VendorRequest) -> VendorResponse:
        for route in self._routes:
            found = route.path.fullmatch(asked.path)
            if route.method == asked.method and found:
                return route.answer(asked, found[1] if found.groups() else "")
        raise Refusal("ValidationException", f"no operation is {asked.method} {asked.path}")

    def _check_key(self, asked: VendorRequest) -> None:
        given = asked.headers.get("authorization", "")
        if f"Credential={KEY}/" not in given:
            raise Refusal(
                "UnrecognizedClientException", "The security token in the request is invalid."
            )

    def _create_job(self, asked: VendorRequest, _: str) -> VendorResponse:
        request = asked.json
        check_members("CreateModelCustomizationJob", request)
        token = request.get("clientRequestToken")
        for job in self.jobs:
            if token is not None and job.request.get("clientRequestToken") == token:
                # As documented: such a request is ignored, whatever it says, and is no error.
                return VendorResponse({"jobArn": job.arn}, 201)
            for name in ("jobName", "customModelName"):
                if job.request[name] == request[name]:
                    raise Refusal("ConflictException", f"The {name} {request[name]} is in use.")
        check_job(request, region_of(asked))
        job = CustomizationJob(request, self._number())
        self.jobs.append(job)
        return VendorResponse({"jobArn": job.arn}, 201)

    def _get_job(self, _: VendorRequest, identifier: str) -> VendorResponse:
        job = self._job(identifier)
        job.look(self.behavior, self.storage)
        return VendorResponse(job.told(self.behavior))

    def _list_jobs(self, asked: VendorRequest, _: str) -> VendorResponse:
        check_members("ListModelCustomizationJobs", texts_of(asked))
        shown = [
            job.summary(self.behavior)
            for job in sorted(
                self.jobs, key=_created, reverse=asked.first("sortOrder") != "Ascending"
            )
            if job.progress.listed(self.behavior) and self._wanted(job, asked)
        ]
        return VendorResponse(self._lists.page("modelCustomizationJobSummaries", shown, asked))

    def _wanted(self, job: CustomizationJob, asked: VendorRequest) -> bool:
        """Whether a job passes the filters of a list."""
        after, before = asked.first("creationTimeAfter"), asked.first("creationTimeBefore")
        return (
            (asked.first("nameContains") or "") in job.request["jobName"]
            and asked.first("statusEquals") in (None, job.status(self.behavior))
            and (after is None or moment(after) < job.progress.created)
            and (before is None or job.progress.created < moment(before))
        )

    def _stop_job(self, _: VendorRequest, identifier: str) -> VendorResponse:
        job = self._job(identifier)
        if job.ended is not None:
            raise Refusal("ConflictException", "The job has ended and cannot be stopped.")
        if job.stopped is None:
            job.stopped = job.progress.polls
        return VendorResponse()

    def _delete_model(self, _: VendorRequest, identifier: str) -> VendorResponse:
        self._model(identifier)
        if any(one.model_arn == identifier for one in self.deployments):
            raise Refusal("ConflictException", "The model has a deployment.")
        self.deleted_models.add(identifier)
        return VendorResponse()

    def _create_deployment(self, asked: VendorRequest, _: str) -> VendorResponse:
        request = asked.json
        check_members("CreateCustomModelDeployment", request)
        self._model(request["modelArn"])
        for one in self.deployments:
            if one.name == request["modelDeploymentName"]:
                raise Refusal("ValidationException", f"A deployment {one.name} exists already.")
        made = Deployment(request["modelDeploymentName"], request["modelArn"], self._number())
        self.deployments.append(made)
        return VendorResponse({"customModelDeploymentArn": made.arn}, 202)

    def _get_deployment(self, _: VendorRequest, identifier: str) -> VendorResponse:
        found = self._deployment(identifier)
        found.looks += 1
        return VendorResponse(
            {
                "customModelDeploymentArn": found.arn,
                "modelDeploymentName": found.name,
                "modelArn": found.model_arn,
                "createdAt": when(found.created),
                "status": self._standing(found),
            }
        )

    def _list_deployments(self, asked: VendorRequest, _: str) -> VendorResponse:
        name, model = asked.first("nameContains") or "", asked.first("modelArnEquals")
        shown: list[dict[str, JsonValue]] = [
            {
                "customModelDeploymentArn": one.arn,
                "customModelDeploymentName": one.name,
                "modelArn": one.model_arn,
                "createdAt": when(one.created),
                "status": self._standing(one),
            }
            for one in reversed(self.deployments)
            if name in one.name
            and model in (None, one.model_arn)
            and asked.first("statusEquals") in (None, self._standing(one))
        ]
        return VendorResponse(self._lists.page("modelDeploymentSummaries", shown, asked))

    def _delete_deployment(self, _: VendorRequest, identifier: str) -> VendorResponse:
        self.deployments.remove(self._deployment(identifier))
        return VendorResponse()

    def _converse(self, asked: VendorRequest, model_id: str) -> VendorResponse:
        tuned = self._answers(model_id)
        check_members("Converse", asked.json, "bedrock-runtime")
        turns: list[dict[str, Any]] = asked.json.get("messages", [])
        if not turns or turns[0]["role"] != "user":
            raise Refusal("ValidationException", "A conversation must start with a user message.")
        texts = [block.get("text", "") for block in turns[-1]["content"]]
        replies = self.behavior.replies if tuned else {}
        said = replies.get("".join(texts), self.behavior.otherwise).split()
        most = asked.json.get("inferenceConfig", {}).get("maxTokens", len(said))
        words = len(json.dumps(asked.json.get("messages")).split()), min(most, len(said))
        text = " ".join(said[:most])
        return VendorResponse(
            {
                "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
                "stopReason": "max_tokens" if most < len(said) else "end_turn",
                "usage": {
                    "inputTokens": words[0],
                    "outputTokens": words[1],
                    "totalTokens": sum(words),
                },
                "metrics": {"latencyMs": 1},
            }
        )

    def _answers(self, model_id: str) -> bool:
        """Return whether a tuned model answers by this name, or an untuned one."""
        if ":custom-model-deployment/" in model_id:
            if self._standing(self._deployment(model_id)) != "Active":
                raise Refusal("ModelNotReadyException", "The deployment is not ready.")
            return True
        if not re.fullmatch(r"([a-z]+\.)?(amazon|meta)\.[a-z0-9-]+:\d+", model_id):
            raise Refusal("ValidationException", "The provided model identifier is invalid.")
        if model_id.startswith("amazon.nova-2-"):
            raise Refusal(
                "ValidationException",
                f"Invocation of model ID {model_id} with on-demand throughput isn't supported.",
            )
        return False

    def _standing(self, deployment: Deployment) -> str:
        return "Active" if deployment.looks > self.behavior.queued_polls else "Creating"

    def _job(self, identifier: str) -> CustomizationJob:
        for job in self.jobs:
            if identifier in (job.arn, job.request["jobName"]):
                return job
        raise Refusal("ResourceNotFoundException", f"There is no job {identifier}.")

    def _model(self, arn: str) -> None:
        for job in self.jobs:
            completed = job.status(self.behavior) == "Completed"
            if job.model_arn == arn and completed and arn not in self.deleted_models:
                return
        raise Refusal("ResourceNotFoundException", f"There is no custom model {arn}.")

    def _deployment(self, identifier: str) -> Deployment:
        for one in self.deployments:
            if identifier in (one.arn, one.name):
                return one
        raise Refusal("ResourceNotFoundException", f"There is no deployment {identifier}.")

    def _number(self) -> str:
        return f"{next(self._numbers):012x}"


def _created(job: CustomizationJob) -> float:
    return job.progress.created
