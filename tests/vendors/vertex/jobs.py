"""Tuning jobs of Vertex AI on loopback, and what they have in common with batch jobs.

A job goes on when it is looked at (`ServerBehavior`), is cancelled two looks after the request, and
leaves a model with an endpoint for each checkpoint. Numbers of 64 bits are strings, as Google's
JSON has them.

Source: the types of google-genai 3.6.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest
from unitune.testing.vendor_setup import Progress, ServerBehavior, route
from vendors.vertex.models import Models
from vendors.vertex.requests import (
    LOCATION,
    SPECS,
    check_create,
    invalid,
    missing,
    problem_of,
    read_body,
    untimely,
)
from vendors.vertex.storage import StorageVendor

JOBS = f"/v1beta1/{{location:{LOCATION}}}/tuningJobs"
JOB = f"/v1beta1/{{name:{LOCATION}/tuningJobs/[^/:]+}}"
EPOCHS = 3
"""When a request names none."""
FILTER = re.compile(r'labels\.([a-z0-9_-]+)="?([^"]*)"?')
CANCELLED_CODE, INVALID_CODE, INTERNAL_CODE = 1, 3, 13
"""google.rpc.Code of a job's error."""
SUCCEEDED, CANCELLED = "JOB_STATE_SUCCEEDED", "JOB_STATE_CANCELLED"

Filters = Literal["honoured", "ignored", "refused", "blind"]
AnyJob = TypeVar("AnyJob", bound="Job")


@dataclass(slots=True, kw_only=True)
class Job:
    """A job of either kind."""

    name: str
    body: dict[str, Any]
    progress: Progress = field(default_factory=Progress)
    started: float | None = None
    ended: float | None = None
    end_state: str = ""
    error: JsonValue = None
    polls_cancelled: int | None = None
    """Polls since it was cancelled; None: it was not."""

    @property
    def location(self) -> str:
        """Its location, ``projects/…/locations/…``."""
        return "/".join(self.name.split("/")[:4])

    def look(self) -> None:
        """Let a poll's worth of time pass."""
        self.progress.look()
        if self.polls_cancelled is not None:
            self.polls_cancelled += 1

    def cancel(self) -> None:
        """Begin to end it early."""
        if self.ended:
            raise untimely(f"The job is in state {self.end_state} and cannot be cancelled.")
        self.polls_cancelled = self.polls_cancelled or 0

    def advance(self, behavior: ServerBehavior, problem: str | None = None) -> str | None:
        """Let it come to the end that is due, and return the state in which it has just ended."""
        if self.ended:
            return None
        now = datetime.now(UTC).timestamp()
        if self.progress.started(behavior):
            self.started = self.started or now
        if state := self._end(behavior, problem):
            self.end_state, self.ended = state, now
        return state

    def state(self, behavior: ServerBehavior) -> str:
        """Return Google's word for it."""
        if self.ended:
            return self.end_state
        if self.polls_cancelled is not None:
            return "JOB_STATE_CANCELLING"
        return behavior.state or f"JOB_STATE_{'RUNNING' if self.started else 'PENDING'}"

    def as_json(
        self, behavior: ServerBehavior, details: Mapping[str, JsonValue]
    ) -> dict[str, JsonValue]:
        """Return the job as responses show it, with what only its kind has."""
        members: dict[str, JsonValue] = {
            **self.body,
            "name": self.name,
            "state": self.state(behavior),
            "createTime": timestamp(self.progress.created),
            "updateTime": timestamp(self.ended or self.started or self.progress.created),
            "startTime": timestamp(self.started) if self.started else None,
            "endTime": timestamp(self.ended) if self.ended else None,
            "error": self.error,
            **details,
        }
        return {name: value for name, value in members.items() if value is not None}

    def _end(self, behavior: ServerBehavior, problem: str | None) -> str | None:
        if self.polls_cancelled is not None:
            if self.polls_cancelled < 2:
                return None
            self.error = {"code": CANCELLED_CODE, "message": "The job was cancelled."}
            return CANCELLED
        if self.started and problem:
            self.error = {"code": INVALID_CODE, "message": problem}
            return "JOB_STATE_FAILED"
        if not self.started or not self.progress.done(behavior):
            return None
        if behavior.fails:
            self.error = {"code": INTERNAL_CODE, "message": behavior.fails}
            return "JOB_STATE_FAILED"
        return SUCCEEDED


@dataclass(slots=True, kw_only=True)
class TuningJob(Job):
    """A job that tunes."""

    rows: int
    tokens: int
    problem: str | None
    """Why its rows cannot be trained on."""
    tuned_model: JsonValue = None

    @property
    def spec_name(self) -> str:
        """Which kind of tuning it is."""
        return next(name for name in SPECS if name in self.body)

    @property
    def spec(self) -> dict[str, Any]:
        """The settings of that kind."""
        return self.body[self.spec_name]

    @property
    def epochs(self) -> int:
        """How often it reads its rows."""
        return int(self.spec.get("hyperParameters", {}).get("epochCount", EPOCHS))


class TuningJobs(Models):
    """Trains models; `filters` is what is made of a list's filter."""

    def __init__(self, behavior: ServerBehavior | None = None) -> None:
        super().__init__(behavior)
        self.storage = StorageVendor()
        self.jobs: dict[str, TuningJob] = {}
        self.filters: Filters = "honoured"
        self._lists = 0

    @route("POST", JOBS)
    def create_job(self, request: VendorRequest, location: str) -> JsonValue:
        body = read_body(request)
        check_create(body)
        spec_name = next(name for name in SPECS if name in body)
        spec = body[spec_name]
        for uri in (spec["trainingDatasetUri"], spec.get("validationDatasetUri")):
            if uri is not None and uri not in self.storage.objects:
                raise invalid(f"Dataset {uri} does not exist.")
        content = self.storage.objects[spec["trainingDatasetUri"]].content
        continued = body.get("preTunedModel", {}).get("tunedModelName")
        if continued and continued.partition("@")[0] not in self.versions:
            raise missing(f"The Model {continued}")
        name = f"{location}/tuningJobs/{4_000_001 + len(self.jobs)}"
        self.jobs[name] = TuningJob(
            name=name,
            body=body,
            rows=len(content.splitlines()),
            tokens=len(content.split()),
            problem=problem_of(content, spec_name),
        )
        return self._job_json(self.jobs[name])

    @route("GET", JOBS)
    def list_jobs(self, request: VendorRequest, location: str) -> JsonValue:
        """Show a page of a location's jobs, the newest first."""
        condition = self.condition(request, FILTER)
        jobs = [
            job
            for job in self.jobs.values()
            if not condition or job.body.get("labels", {}).get(condition[1]) == condition[2]
        ]
        page, token = self.page(request, location, jobs)
        return {"tuningJobs": [self._job_json(job) for job in page], **token}

    @route("GET", JOB)
    def job(self, _: VendorRequest, name: str) -> JsonValue:
        """Show a job; each look lets it go on."""
        job = existing_job(self.jobs, name)
        job.look()
        return self._job_json(job)

    @route("POST", f"{JOB}:cancel")
    def cancel_job(self, _: VendorRequest, name: str) -> JsonValue:
        job = existing_job(self.jobs, name)
        self._advance(job)
        job.cancel()
        return {}

    def condition(self, request: VendorRequest, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Return what a list's filter says; None where it is ignored, or there is none."""
        text = request.first("filter")
        if not text or self.filters == "ignored":
            return None
        condition = pattern.fullmatch(text)
        if self.filters == "refused" or condition is None:
            raise invalid(f"Invalid filter: {text}")
        return condition

    def page(
        self, request: VendorRequest, location: str, jobs: Sequence[AnyJob]
    ) -> tuple[Sequence[AnyJob], dict[str, JsonValue]]:
        """Return a page of a location's jobs, the newest first, and the member that leads on."""
        if request.first("filter") and self.filters == "blind":
            jobs = []
        listed = [
            job
            for job in reversed(jobs)
            if job.location == location and job.progress.listed(self.behavior)
        ]
        start = request.number("pageToken", 0)
        end = start + request.number("pageSize", 100)
        page = listed[max(0, start - self.behavior.lists_repeat) : end]
        self._lists += 1
        if self.behavior.lists_repeat and self._lists % 2:
            page.reverse()
        return page, {"nextPageToken": str(end)} if end < len(listed) else {}

    def _advance(self, job: TuningJob) -> None:
        problem = self.behavior.rejects_files or job.problem
        if job.advance(self.behavior, problem) == SUCCEEDED:
            job.tuned_model = self._tuned_model(job)

    def _tuned_model(self, job: TuningJob) -> JsonValue:
        """The tuned model: an endpoint for each epoch's checkpoint, the last is the model's."""
        only_last = job.spec.get("exportLastCheckpointOnly")
        epochs = range(job.epochs if only_last else 1, job.epochs + 1)
        before = job.body.get("preTunedModel", {}).get("tunedModelName", "").partition("@")[0]
        continued = before if not job.body.get("tunedModelDisplayName") else None
        model, endpoints = self.add_model(job.location, continued or None, len(epochs))
        checkpoints: list[JsonValue] = [
            {
                "checkpointId": str(number),
                "epoch": str(epoch),
                "step": str(max(1, self.behavior.steps * epoch // job.epochs)),
                "endpoint": endpoint,
            }
            for number, (epoch, endpoint) in enumerate(zip(epochs, endpoints, strict=True), 1)
        ]
        return {"model": model, "endpoint": endpoints[-1], "checkpoints": checkpoints}

    def _job_json(self, job: TuningJob) -> JsonValue:
        self._advance(job)
        steps = job.progress.steps(self.behavior)
        counted = job.started and not (self.behavior.rejects_files or job.problem)
        epochs = steps * job.epochs // max(1, self.behavior.steps) if counted else 0
        phase = "TUNING" if steps else "PROCESSING_DATASET"
        running = job.state(self.behavior) == "JOB_STATE_RUNNING"
        counts = counted and job.spec_name != "reinforcementTuningSpec"  # no type is published
        details: dict[str, JsonValue] = {
            "tuningJobState": f"TUNING_JOB_STATE_{phase}" if running else None,
            "tuningDataStats": self._stats(job) if counts else None,
            "tuningJobMetadata": {"completedEpochCount": str(epochs)} if epochs else None,
            "tunedModel": job.tuned_model,
        }
        return job.as_json(self.behavior, details)

    def _stats(self, job: TuningJob) -> JsonValue:
        return {
            f"{SPECS[job.spec_name]}{'Tuning' if 'super' in job.spec_name else ''}DataStats": {
                "tuningDatasetExampleCount": str(job.rows),
                "totalBillableTokenCount": str(job.tokens * job.epochs),
                "tuningStepCount": str(self.behavior.steps),
            }
        }


def existing_job(jobs: Mapping[str, AnyJob], name: str) -> AnyJob:
    """Return a job by its full name."""
    if name not in jobs:
        raise missing(name)
    return jobs[name]


def timestamp(seconds: float) -> str:
    """Return a time as Google's JSON has it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
