"""A vendor of nobody, on loopback: the example that a double of your vendor can begin with.

It has files, jobs, deployments and answers, on a wire of its own, moves its jobs with each look at
them, and keeps to `ServerBehavior`. ``tests/stranger`` of unitune's repository is a backend for it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from unitune.testing.loopback import (
    UNREADABLE,
    Progress,
    ServerBehavior,
    VendorRequest,
    VendorResponse,
    loss,
)

KEY = "example-key"
PAGE_SIZE = 2
FIELDS = {"key", "base", "training", "validation", "epochs", "batch_size", "learning_rate", "seed"}
"""What a create call may hold."""


class Refused(Exception):
    """A request that the vendor does not do."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.response = VendorResponse({"error": {"message": message}}, status)


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


class ExampleVendor:
    """Answers requests; `jobs`, `files` and `deployments` are its books."""

    def __init__(self, behavior: ServerBehavior | None = None) -> None:
        self.behavior = behavior or ServerBehavior()
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, ExampleJob] = {}
        self.deployments: dict[str, str] = {}
        self.deleted: set[str] = set()
        self._lists = 0
        self._routes: tuple[tuple[str, str, Callable[..., JsonValue]], ...] = (
            ("PUT", r"/files/(\w+)", self._put_file),
            ("GET", r"/files/(\w+)", self._file),
            ("DELETE", r"/files/(\w+)", self._delete_file),
            ("POST", r"/jobs", self._create_job),
            ("GET", r"/jobs", self._list_jobs),
            ("GET", r"/jobs/([\w-]+)", self._job),
            ("POST", r"/jobs/([\w-]+)/cancel", self._cancel),
            ("DELETE", r"/models/([\w-]+)", self._delete_model),
            ("PUT", r"/deployments/([\w-]+)", self._deploy),
            ("GET", r"/deployments/([\w-]+)", self._deployment),
            ("DELETE", r"/deployments/([\w-]+)", self._undeploy),
            ("POST", r"/chat", self._chat),
        )

    def answer(self, request: VendorRequest) -> VendorResponse:
        """Answer a request, changing state."""
        try:
            return VendorResponse(self._act(request))
        except Refused as refusal:
            return refusal.response
        except UNREADABLE as error:
            return VendorResponse({"error": {"message": f"cannot be read: {error}"}}, 400)

    def _act(self, request: VendorRequest) -> JsonValue:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            raise Refused(401, "the key is not valid")
        for method, path, act in self._routes:
            match = re.fullmatch(path, request.path)
            if match and method == request.method:
                return act(request, *match.groups())
        raise Refused(404, f"there is no {request.method} {request.path}")

    def _put_file(self, request: VendorRequest, name: str) -> JsonValue:
        if name != hashlib.sha256(request.body).hexdigest():
            raise Refused(400, "a file is named by the hash of its content")
        for line in request.body.splitlines():
            json.loads(line)
        self.files[name] = request.body
        return {"id": name}

    def _file(self, _: VendorRequest, name: str) -> JsonValue:
        self._existing(self.files, name, "file")
        return {"id": name}

    def _delete_file(self, _: VendorRequest, name: str) -> JsonValue:
        self._existing(self.files, name, "file")
        del self.files[name]
        return {}

    def _create_job(self, request: VendorRequest) -> JsonValue:
        body = request.json
        if unknown := body.keys() - FIELDS:
            raise Refused(400, f"unknown: {', '.join(sorted(unknown))}")
        for name in filter(None, (body["training"], body.get("validation"))):
            self._existing(self.files, name, "file")
        job = ExampleJob(f"job-{len(self.jobs) + 1}", body)
        self.jobs[job.id] = job
        return job.as_json(self.behavior)

    def _list_jobs(self, request: VendorRequest) -> JsonValue:
        jobs = [job for job in self.jobs.values() if job.progress.listed(self.behavior)]
        self._lists += 1
        if self.behavior.lists_repeat and self._lists % 2:
            jobs.reverse()
        start = request.number("start", 0)
        end = start + PAGE_SIZE
        overlap = 1 if self.behavior.lists_repeat else 0
        return {
            "jobs": [job.as_json(self.behavior) for job in jobs[max(0, start - overlap) : end]],
            "next": end if end < len(jobs) else None,
        }

    def _job(self, _: VendorRequest, job_id: str) -> JsonValue:
        job = self._existing(self.jobs, job_id, "job")
        job.progress.look()
        return job.as_json(self.behavior)

    def _cancel(self, _: VendorRequest, job_id: str) -> JsonValue:
        job = self._existing(self.jobs, job_id, "job")
        if job.state(self.behavior) in ("done", "failed"):
            raise Refused(409, "the job has ended")
        job.cancelled = True
        return job.as_json(self.behavior)

    def _delete_model(self, _: VendorRequest, name: str) -> JsonValue:
        self._tuned(name)
        self.deleted.add(name)
        return {}

    def _deploy(self, request: VendorRequest, name: str) -> JsonValue:
        self._tuned(request.json["model"])
        self.deployments.setdefault(name, request.json["model"])
        return {"name": name}

    def _deployment(self, _: VendorRequest, name: str) -> JsonValue:
        return {"name": name, "model": self._existing(self.deployments, name, "deployment")}

    def _undeploy(self, _: VendorRequest, name: str) -> JsonValue:
        self._existing(self.deployments, name, "deployment")
        del self.deployments[name]
        return {}

    def _chat(self, request: VendorRequest) -> JsonValue:
        body = request.json
        if body["model"] not in self.deployments and not body["model"].startswith("base-"):
            raise Refused(404, f"there is no deployment {body['model']!r}")
        question = body["messages"][-1]["content"]
        text = self.behavior.replies.get(question, self.behavior.otherwise)
        words = text.split()[: body["max_tokens"]]
        return {"text": " ".join(words), "input_tokens": 1, "output_tokens": len(words)}

    def _tuned(self, name: str) -> None:
        job = self._existing(self.jobs, name.removeprefix("tuned-"), "model")
        if name in self.deleted or job.state(self.behavior) != "done":
            raise Refused(404, f"there is no model {name!r}")

    def _existing(self, books: dict[str, Any], name: str, what: str) -> Any:
        if name not in books:
            raise Refused(404, f"there is no {what} {name!r}")
        return books[name]
