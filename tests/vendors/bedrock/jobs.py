"""Jobs of a Bedrock on loopback: their state, and what Bedrock shows of them.

A job goes on when it is looked at (`ServerBehavior`). When it completes it writes its losses to S3,
as Bedrock does, and leaves a custom model behind. Names of members are those of botocore's model.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue

from unitune.testing.vendor_setup import Progress, ServerBehavior, loss
from unitune_providers.bedrock.jobs import METRICS
from vendors.bedrock.storage import REGION, Storage

ACCOUNT = "123456789012"
PHASES = ("validationDetails", "dataProcessingDetails", "trainingDetails")
COPIED = (
    "roleArn",
    "customizationType",
    "trainingDataConfig",
    "outputDataConfig",
    "hyperParameters",
    "clientRequestToken",
)
"""Members of the create call that Bedrock shows again."""


@dataclass(slots=True)
class CustomizationJob:
    """One job."""

    request: Mapping[str, Any]  # the create call's members
    number: str  # twelve letters or digits that end its ARN
    progress: Progress = field(default_factory=Progress)
    stopped: int | None = None  # polls when it was stopped; None if it was not
    ended: float | None = None
    failure: str | None = None

    @property
    def base(self) -> str:
        """Identifier of the base model."""
        return str(self.request["baseModelIdentifier"]).rpartition("foundation-model/")[2]

    @property
    def arn(self) -> str:
        """The job's ARN."""
        start = f"arn:aws:bedrock:{REGION}:{ACCOUNT}"
        return f"{start}:model-customization-job/{self.base}/{self.number}"

    @property
    def model_arn(self) -> str:
        """ARN of the model that it leaves behind."""
        return f"arn:aws:bedrock:{REGION}:{ACCOUNT}:custom-model/{self.base}/{self.number}"

    def status(self, behavior: ServerBehavior) -> str:
        """Return Bedrock's word for it."""
        if self.stopped is not None:
            return "Stopping" if self.progress.polls <= self.stopped + 1 else "Stopped"
        if self.failure is not None:
            return "Failed"
        if self.progress.started(behavior) and self.progress.done(behavior):
            return "Completed"
        return behavior.state or "InProgress"

    def look(self, behavior: ServerBehavior, storage: Storage) -> None:
        """Let a poll's worth of time pass."""
        if self.ended is not None:
            return
        self.progress.look()
        if self.stopped is None and self.progress.started(behavior):
            self._check(behavior, storage)
        status = self.status(behavior)
        if status == "Completed":
            self._leave_losses(behavior, storage)
        if status in ("Completed", "Failed", "Stopped"):
            self.ended = time.time()

    def as_json(self, behavior: ServerBehavior) -> dict[str, JsonValue]:
        """Return what GetModelCustomizationJob shows."""
        status, request = self.status(behavior), self.request
        details: dict[str, JsonValue] = {
            "jobArn": self.arn,
            "jobName": request["jobName"],
            "outputModelName": request["customModelName"],
            "status": status,
            "statusDetails": self._details(behavior),
            "creationTime": when(self.progress.created),
            "lastModifiedTime": when(self.ended or time.time()),
            "baseModelArn": f"arn:aws:bedrock:{REGION}::foundation-model/{self.base}",
            "validationDataConfig": request.get("validationDataConfig", {"validators": []}),
            **{name: request[name] for name in COPIED if name in request},
        }
        if self.ended is not None:
            details["endTime"] = when(self.ended)
        if self.failure is not None:
            details["failureMessage"] = self.failure
        if status == "Completed":
            details["outputModelArn"] = self.model_arn
            details["trainingMetrics"] = {"trainingLoss": loss(behavior.steps)}
            validators = request.get("validationDataConfig", {}).get("validators", [])
            details["validationMetrics"] = [
                {"validationLoss": loss(behavior.steps)} for _ in validators
            ]
        return details

    def summary(self, behavior: ServerBehavior) -> dict[str, JsonValue]:
        """Return what a list shows."""
        details = self.as_json(behavior)
        names = ("jobArn", "baseModelArn", "jobName", "status", "statusDetails", "creationTime")
        more = ("lastModifiedTime", "endTime", "customizationType")
        summary = {name: details[name] for name in (*names, *more) if name in details}
        if "outputModelArn" in details:
            summary["customModelArn"] = details["outputModelArn"]
            summary["customModelName"] = details["outputModelName"]
        return summary

    def _check(self, behavior: ServerBehavior, storage: Storage) -> None:
        uri = self.request["trainingDataConfig"]["s3Uri"]
        if behavior.rejects_files is not None:
            self.failure = behavior.rejects_files
        elif storage.read(uri) is None:
            self.failure = f"The training data at {uri} cannot be read."
        elif behavior.fails is not None and self.progress.done(behavior):
            self.failure = behavior.fails

    def _details(self, behavior: ServerBehavior) -> dict[str, JsonValue]:
        created, changed = when(self.progress.created), when(self.ended or time.time())
        return {
            phase: {"status": status, "creationTime": created, "lastModifiedTime": changed}
            for phase, status in zip(PHASES, self._phases(behavior), strict=True)
        }

    def _phases(self, behavior: ServerBehavior) -> tuple[str, str, str]:
        status = self.status(behavior)
        if not self.progress.started(behavior):
            return ("NotStarted", "NotStarted", "NotStarted")
        if status == "Failed" and behavior.rejects_files is not None:
            return ("Failed", "NotStarted", "NotStarted")
        if status in ("Completed", "Failed", "Stopping", "Stopped"):
            return ("Completed", "Completed", status)
        if self.progress.steps(behavior) == 0:
            return ("Completed", "InProgress", "NotStarted")
        return ("Completed", "Completed", "InProgress")

    def _leave_losses(self, behavior: ServerBehavior, storage: Storage) -> None:
        rows = [
            f"{step},0,{loss(step + 1)},{round(2 ** loss(step + 1), 6)}"
            for step in range(behavior.steps)
        ]
        table = "\n".join(["step_number,epoch_number,training_loss,perplexity", *rows, ""])
        folder = self.request["outputDataConfig"]["s3Uri"].rstrip("/")
        storage.write(f"{folder}/{METRICS.format(id=self.number)}", table.encode())


def when(seconds: float) -> str:
    """Return a time as Bedrock writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
