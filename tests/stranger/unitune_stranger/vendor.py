"""A made-up vendor on loopback: the example that a double of your vendor can begin with.

It has files, jobs, deployments and answers, on a wire of its own, moves its jobs with each poll of
them, and keeps to `ServerBehavior`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest
from unitune.testing.vendor_setup import (
    Progress,
    Refused,
    RoutedVendor,
    ServerBehavior,
    existing,
    loss,
    route,
)

KEY = "example-key"
PAGE_SIZE = 2
SETTINGS = {"epochs", "batch_size", "learning_rate", "seed"}
FIELDS = {"key", "base", "start", "training", "validation", *SETTINGS}
"""What a create call may hold."""


@dataclass(slots=True)
class ExampleJob:
    """A job and how far it is."""

    id: str
    request: dict[str, Any]
    progress: Progress = field(default_factory=Progress)
    cancelled: bool = False

    def state(self, behavior: ServerBehavior) -> str:
        """Return the vendor's word."""
        if self.cancelled:
            return "cancelled"
        if self.progress.done(behavior) or behavior.rejects_files:
            return "failed" if behavior.fails or behavior.rejects_files else "done"
        return behavior.state or ("running" if self.progress.started(behavior) else "waiting")

    def as_json(self, behavior: ServerBehavior) -> dict[str, JsonValue]:
        """Return the job as responses show it."""
        state = self.state(behavior)
        return {
            "id": self.id,
            "key": self.request["key"],
            "state": state,
            "steps": [
                {"step": step, "loss": loss(step)}
                for step in range(1, self.progress.steps(behavior) + 1)
            ],
            "model": f"tuned-{self.id}" if state == "done" else None,
            "error": behavior.rejects_files or behavior.fails if state == "failed" else None,
        }


class ExampleVendor(RoutedVendor):
    """Answers requests; `jobs`, `files` and `deployments` are its books."""

    key = KEY

    def __init__(self, behavior: ServerBehavior | None = None) -> None:
        super().__init__(behavior)
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, ExampleJob] = {}
        self.deployments: dict[str, str] = {}
        self.deleted: set[str] = set()
        self._lists = 0

    @route("POST", "/files/{name}")
    def store_file(self, request: VendorRequest, name: str) -> JsonValue:
        """Keep a file."""
        if name != hashlib.sha256(request.body).hexdigest():
            raise Refused(400, "a file is named by the hash of its content")
        for line in request.body.splitlines():
            json.loads(line)
        self.files[name] = request.body
        return {"id": name}

    @route("GET", "/files/{name}")
    def file(self, _: VendorRequest, name: str) -> JsonValue:
        """Show a file."""
        existing(self.files, name, "file")
        return {"id": name}

    @route("DELETE", "/files/{name}")
    def delete_file(self, _: VendorRequest, name: str) -> JsonValue:
        """Remove a file."""
        existing(self.files, name, "file")
        del self.files[name]
        return {}

    @route("POST", "/jobs")
    def create_job(self, request: VendorRequest) -> JsonValue:
        """Create a job."""
        body = request.json
        if unknown := body.keys() - FIELDS:
            raise Refused(400, f"unknown: {', '.join(sorted(unknown))}")
        for name in filter(None, (body["training"], body.get("validation"))):
            existing(self.files, name, "file")
        if start := body.get("start"):
            self._tuned(start)
        job = ExampleJob(f"job-{len(self.jobs) + 1}", body)
        self.jobs[job.id] = job
        return job.as_json(self.behavior)

    @route("GET", "/jobs")
    def list_jobs(self, request: VendorRequest) -> JsonValue:
        """Show a page of jobs."""
        jobs = [job for job in self.jobs.values() if job.progress.listed(self.behavior)]
        start = request.number("start", 0)
        end = start + PAGE_SIZE
        page = jobs[max(0, start - self.behavior.lists_repeat) : end]
        self._lists += 1
        if self.behavior.lists_repeat and self._lists % 2:
            page.reverse()
        return {
            "jobs": [job.as_json(self.behavior) for job in page],
            "next": end if end < len(jobs) else None,
        }

    @route("GET", "/jobs/{job_id}")
    def job(self, _: VendorRequest, job_id: str) -> JsonValue:
        """Show a job, and let it go on."""
        job = existing(self.jobs, job_id, "job")
        job.progress.look()
        return job.as_json(self.behavior)

    @route("POST", "/jobs/{job_id}/cancel")
    def cancel(self, _: VendorRequest, job_id: str) -> JsonValue:
        """End a job."""
        job = existing(self.jobs, job_id, "job")
        if job.state(self.behavior) in ("done", "failed"):
            raise Refused(409, "the job has ended")
        job.cancelled = True
        return job.as_json(self.behavior)

    @route("DELETE", "/models/{name}")
    def delete_model(self, _: VendorRequest, name: str) -> JsonValue:
        """Remove a tuned model."""
        self._tuned(name)
        self.deleted.add(name)
        return {}

    @route("PUT", "/deployments/{name}")
    def deploy(self, request: VendorRequest, name: str) -> JsonValue:
        """Bring a tuned model up."""
        self._tuned(request.json["model"])
        self.deployments.setdefault(name, request.json["model"])
        return {"name": name}

    @route("GET", "/deployments/{name}")
    def deployment(self, _: VendorRequest, name: str) -> JsonValue:
        """Show a deployment."""
        return {"name": name, "model": existing(self.deployments, name, "deployment")}

    @route("DELETE", "/deployments/{name}")
    def undeploy(self, _: VendorRequest, name: str) -> JsonValue:
        """Take a deployment down."""
        existing(self.deployments, name, "deployment")
        del self.deployments[name]
        return {}

    @route("POST", "/chat")
    def chat(self, request: VendorRequest) -> JsonValue:
        """Answer a question."""
        body = request.json
        if body["model"] not in self.deployments and not body["model"].startswith("base-"):
            raise Refused(404, f"there is no deployment {body['model']!r}")
        question = body["messages"][-1]["content"]
        text = self.behavior.replies.get(question, self.behavior.otherwise)
        words = text.split()[: body["max_tokens"]]
        return {"text": " ".join(words), "input_tokens": 1, "output_tokens": len(words)}

    def _tuned(self, name: str) -> None:
        job = existing(self.jobs, name.removeprefix("tuned-"), "model")
        if name in self.deleted or job.state(self.behavior) != "done":
            raise Refused(404, f"there is no model {name!r}")
