"""Datasets and jobs of three methods at the Fireworks AI on loopback.

What a create call may hold comes from the types of the vendor's SDK.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue, ValidationError

from unitune.testing.loopback import VendorRequest
from unitune.testing.omissions import Shape
from unitune.testing.vendor_setup import (
    Progress,
    Refused,
    RoutedVendor,
    ServerBehavior,
    existing,
    route,
)
from vendors import shapes
from vendors.bodies import form_parts

ACCOUNT = "acme"
KEY = "fw-loopback"
ROOT = f"/v1/accounts/{ACCOUNT}"
BASE = "accounts/fireworks/models/qwen3-0p6b"
FEWEST_ROWS, LARGEST_FILE = 3, 150_000_000
JOBS = {
    "supervisedFineTuningJobs": ("supervised_fine_tuning_job", "messages"),
    "dpoJobs": ("dpo_job", "preferred_output"),
    "reinforcementFineTuningJobs": ("reinforcement_fine_tuning_job", "messages"),
}
"""By collection: the SDK's name of a job, and a field that each row has."""
PAGE_SIZE = 2
ESTIMATED: JsonValue = {"currencyCode": "USD", "units": "1", "nanos": 370000000}
"""A google.type.Money; its units are a string, as an int64 is in JSON."""


@dataclass(slots=True)
class Dataset:
    """Rows, once they were sent."""

    rows: int
    content: bytes | None = None


@dataclass(slots=True)
class Job:
    """A job and how far it is."""

    name: str
    request: Mapping[str, Any]
    progress: Progress = field(default_factory=Progress)
    cancelled: bool = False
    estimated: JsonValue = None

    def state(self, behavior: ServerBehavior) -> str:
        """Return the vendor's word, without its prefix."""
        if self.cancelled:
            return "CANCELLED"
        if behavior.rejects_files or (self.progress.done(behavior) and behavior.fails):
            return "FAILED"
        if self.progress.done(behavior):
            return "COMPLETED"
        return behavior.state or ("RUNNING" if self.progress.started(behavior) else "PENDING")

    def as_json(self, behavior: ServerBehavior) -> dict[str, JsonValue]:
        """Return the job as responses show it."""
        state, steps = self.state(behavior), self.progress.steps(behavior)
        failed = behavior.rejects_files or behavior.fails if state == "FAILED" else ""
        return {
            **self.request,
            "name": self.name,
            "createTime": _moment(self.progress.created),
            "updateTime": _moment(self.progress.created + self.progress.polls),
            "state": f"JOB_STATE_{state}",
            "status": {"code": "INTERNAL" if failed else "OK", "message": failed},
            "jobProgress": {"percent": 100 * steps // max(behavior.steps, 1), "epoch": 0},
            **({"estimatedCost": self.estimated} if self.estimated else {}),
        }


class FireworksJobs(RoutedVendor):
    """Fireworks, with one account and one key; `files` and `jobs` are its books.

    `estimated` is what it says that a training costs.
    """

    key = KEY

    def __init__(self, behavior: ServerBehavior | None = None) -> None:
        super().__init__(behavior)
        self.files: dict[str, Dataset] = {}
        self.jobs: dict[str, Job] = {}
        self.deleted: set[str] = set()
        self.estimated: JsonValue = ESTIMATED

    def error(self, refusal: Refused) -> JsonValue:  # a google.rpc.Status
        return {"code": refusal.status, "message": refusal.message, "details": []}

    def shapes(self) -> Sequence[Shape]:
        return shapes.fireworks()

    @route("POST", f"{ROOT}/datasets")
    def create_dataset(self, request: VendorRequest) -> JsonValue:
        body = checked(request.json, "dataset_create")
        name, rows = str(body["datasetId"]), int(body["dataset"]["exampleCount"])
        if name in self.files:
            raise Refused(409, f"dataset {name!r} already exists")
        self.files[name] = Dataset(rows)
        return self._dataset_json(name)

    @route("POST", f"{ROOT}/datasets/{{name}}:upload")
    def upload_dataset(self, request: VendorRequest, name: str) -> JsonValue:
        dataset = existing(self.files, name, "dataset")
        content = form_parts(request)["file"].content
        if len(content) > LARGEST_FILE:
            raise Refused(413, "the file is larger than 150 MB")
        if len([json.loads(line) for line in content.splitlines()]) != dataset.rows:
            raise Refused(400, f"the file has not {dataset.rows} rows")
        dataset.content = content
        return {"id": name, "bytes": len(content), "object": "file"}

    @route("GET", f"{ROOT}/datasets/{{name}}")
    def dataset(self, _: VendorRequest, name: str) -> JsonValue:
        existing(self.files, name, "dataset")
        return self._dataset_json(name)

    @route("DELETE", f"{ROOT}/datasets/{{name}}")
    def delete_dataset(self, _: VendorRequest, name: str) -> JsonValue:
        existing(self.files, name, "dataset")
        del self.files[name]
        return {}

    @route("POST", f"{ROOT}/{{collection}}/{{name}}:cancel")
    def cancel_job(self, _: VendorRequest, collection: str, name: str) -> JsonValue:
        job = existing(self.jobs, f"{collection}/{name}", "job")
        if job.state(self.behavior) in ("COMPLETED", "FAILED"):
            raise Refused(400, "the job has ended")
        job.cancelled = True
        return {}

    @route("DELETE", f"{ROOT}/models/{{name}}")
    def delete_model(self, _: VendorRequest, name: str) -> JsonValue:
        self.tuned(f"accounts/{ACCOUNT}/models/{name}")
        self.deleted.add(name)
        return {}

    @route("POST", f"{ROOT}/supervisedFineTuningJobs:estimateCost")
    def estimate_cost(self, request: VendorRequest) -> JsonValue:
        body = checked(request.json, "supervised_fine_tuning_job_create")
        existing(self.files, str(body["dataset"]).rpartition("/")[2], "dataset")
        return {"estimatedCost": self.estimated}

    @route("POST", f"{ROOT}/{{collection}}")
    def create_job(self, request: VendorRequest, collection: str) -> JsonValue:
        kind, needed = existing(JOBS, collection, "collection")
        body = checked(request.json, f"{kind}_create")
        name = request.first(f"{collection.removesuffix('s')}Id") or f"job{len(self.jobs)}"
        if f"{collection}/{name}" in self.jobs:
            raise Refused(409, f"job {name!r} already exists")
        for ref in filter(None, (body["dataset"], body.get("evaluationDataset"))):
            content = existing(self.files, str(ref).rpartition("/")[2], "dataset").content
            if content is None or any(
                needed not in json.loads(row) for row in content.splitlines()
            ):
                raise Refused(400, f"dataset {ref} is no {kind} dataset")
        if self.files[str(body["dataset"]).rpartition("/")[2]].rows < FEWEST_ROWS:
            raise Refused(400, f"{FEWEST_ROWS} rows are the fewest to train on")
        training = body.get("trainingConfig", body)
        if ("baseModel" in training) == ("warmStartFrom" in training):
            raise Refused(400, "exactly one of base_model and warm_start_from must be given")
        if "warmStartFrom" in training:
            self.tuned(training["warmStartFrom"])
        full = f"accounts/{ACCOUNT}/{collection}/{name}"
        self.jobs[f"{collection}/{name}"] = Job(full, body, estimated=self.estimated)
        return self.jobs[f"{collection}/{name}"].as_json(self.behavior)

    @route("GET", f"{ROOT}/{{collection}}/{{name}}")
    def job(self, request: VendorRequest, collection: str, name: str) -> JsonValue:
        job = existing(self.jobs, f"{collection}/{name}", "job")
        if request.first("readMask") == "name":
            return {"name": job.name}
        job.progress.look()
        return job.as_json(self.behavior)

    @route("GET", f"{ROOT}/{{collection}}")
    def list_jobs(self, request: VendorRequest, collection: str) -> JsonValue:
        existing(JOBS, collection, "collection")
        jobs = [job for ref, job in self.jobs.items() if ref.startswith(f"{collection}/")][::-1]
        listed = [job for job in jobs if job.progress.listed(self.behavior)]
        start = request.number("pageToken", 0)
        more = str(start + PAGE_SIZE) if start + PAGE_SIZE < len(listed) else ""
        page: list[JsonValue] = [
            job.as_json(self.behavior) for job in listed[start : start + PAGE_SIZE]
        ]
        return {collection: page, "nextPageToken": more}

    def tuned(self, model: str) -> str:
        """Return the base of a tuned model; refuse one that no job made, or that was deleted."""
        name = model.rpartition("/")[2]
        made = [job for job in self.jobs.values() if _settings(job).get("outputModel") == name]
        if name in self.deleted or not made or made[0].state(self.behavior) != "COMPLETED":
            raise Refused(404, f"there is no model {model!r}")
        settings = _settings(made[0])
        return settings.get("baseModel") or self.tuned(settings["warmStartFrom"])

    def _dataset_json(self, name: str) -> dict[str, JsonValue]:
        dataset = self.files[name]
        state = "READY" if dataset.content is not None else "UPLOADING"
        status: JsonValue = {"code": "OK", "message": ""}
        full = f"accounts/{ACCOUNT}/datasets/{name}"
        return {"name": full, "state": state, "status": status, "exampleCount": str(dataset.rows)}


def _settings(job: Job) -> Mapping[str, Any]:
    return job.request.get("trainingConfig", job.request)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def checked(body: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return the body of a call, held against the SDK's types."""
    try:
        shapes.fireworks_request(kind).model_validate(body)
    except ValidationError as error:
        raise Refused(400, f"invalid {kind}: {error}") from error
    return body
