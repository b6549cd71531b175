"""Ray's job API on loopback, and what a training leaves in the storage meanwhile.

Status codes, bodies and words are those of Ray 2.60.0; tests/slow/test_ray_cluster.py compares them
with a cluster's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest, VendorResponse
from unitune.testing.vendor_setup import Progress, Refused, ServerBehavior, VendorSetup, route
from vendors.rented import RentedVendor, rented_setup
from vendors.stored import store_training

KEY = "ray-loopback"
FIELDS = {
    "entrypoint",
    "submission_id",
    "job_id",
    "runtime_env",
    "metadata",
    "entrypoint_num_cpus",
    "entrypoint_num_gpus",
    "entrypoint_memory",
    "entrypoint_resources",
    "entrypoint_label_selector",
}
"""Of JobSubmitRequest, ray/dashboard/modules/job/common.py."""
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(slots=True)
class Job:
    """A job and how far it is."""

    request: Mapping[str, Any]
    progress: Progress = field(default_factory=Progress)
    stopped: bool = False
    reads: int = 0

    @property
    def launch(self) -> dict[str, Any]:
        """What its workers are told."""
        return json.loads(self.request["runtime_env"]["env_vars"]["UNITUNE_LAUNCH"])

    def status(self, behavior: ServerBehavior) -> str:
        """Return Ray's word."""
        if self.stopped:
            return "STOPPED"
        if behavior.rejects_files or (self.progress.done(behavior) and behavior.fails):
            return "FAILED"
        if self.progress.done(behavior):
            return "SUCCEEDED"
        return behavior.state or ("RUNNING" if self.progress.started(behavior) else "PENDING")

    def details(self, behavior: ServerBehavior) -> dict[str, JsonValue]:
        """Return JobDetails, ray/dashboard/modules/job/pydantic_models.py."""
        status, start = self.status(behavior), round(1000 * self.progress.created)
        reason = behavior.rejects_files or behavior.fails
        return {
            "type": "SUBMISSION",
            "job_id": None,
            "submission_id": self.request["submission_id"],
            "driver_info": None,
            "status": status,
            "entrypoint": self.request["entrypoint"],
            "message": f"Job entrypoint command failed with exit code 1, last available logs "
            f"(truncated to 20,000 chars):\n{reason}"
            if status == "FAILED"
            else "Job is currently running.",
            "error_type": "JOB_ENTRYPOINT_COMMAND_ERROR" if status == "FAILED" else None,
            "start_time": start,
            "end_time": start + self.progress.polls if status in ENDED else None,
            "metadata": self.request.get("metadata"),
            "runtime_env": self.request.get("runtime_env"),
            "driver_agent_http_address": None,
            "driver_node_id": None,
            "driver_exit_code": 1 if status == "FAILED" else None,
        }


class RayVendor(RentedVendor):
    """A cluster whose trainings leave an adapter that was made before."""

    key = KEY

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.jobs: dict[str, Job] = {}

    def refuse(self, refusal: Refused) -> VendorResponse:
        return VendorResponse(refusal.message.encode(), refusal.status)  # Ray answers with text

    @route("POST", "/api/jobs/")
    def submit(self, request: VendorRequest) -> JsonValue:
        body = request.json
        if unknown := sorted(body.keys() - FIELDS):
            raise Refused(400, _traceback(f"TypeError: JobSubmitRequest has no {unknown[0]!r}"))
        name = str(body["submission_id"])
        if name in self.jobs:
            words = f"ValueError: Job with submission_id {name} already exists. Please use another."
            raise Refused(500, _traceback(words))
        self.jobs[name] = Job(body)
        return {"job_id": name, "submission_id": name}

    @route("GET", "/api/jobs/{name}")
    def job(self, _: VendorRequest, name: str) -> JsonValue:
        job = self._existing(name)
        job.reads += 1
        if job.reads % 2 == 0:  # a search reads a job as a poll does, and takes no time of it
            job.progress.look()
        self._train(name, job)
        return job.details(self.behavior)

    @route("POST", "/api/jobs/{name}/stop")
    def stop(self, _: VendorRequest, name: str) -> JsonValue:
        job = self._existing(name)
        runs = job.status(self.behavior) not in ENDED
        job.stopped = job.stopped or runs
        return {"stopped": runs}

    @route("DELETE", "/api/jobs/{name}")
    def delete(self, _: VendorRequest, name: str) -> JsonValue:
        if self._existing(name).status(self.behavior) not in ENDED:
            raise Refused(500, _traceback("RuntimeError: it is in a non-terminal state"))
        del self.jobs[name]
        return {"deleted": True}

    def _existing(self, name: str) -> Job:
        if name not in self.jobs:
            raise Refused(404, f"Job {name} does not exist")
        return self.jobs[name]

    def _train(self, name: str, job: Job) -> None:
        """Let the storage hold what a training of so many steps has left there."""
        if "runtime_env" not in job.request:  # a job that is no training
            return
        store_training(
            self.storage / "jobs" / name,
            job.progress,
            self.behavior,
            job.launch,
            adapter=self.adapter,
            succeeded=job.status(self.behavior) == "SUCCEEDED",
        )


def _traceback(words: str) -> str:
    return f'Traceback (most recent call last):\n  File "job_head.py", line 419\n{words}\n.\n'


ray_cluster = RayVendor.with_storage


def ray_setup(adapter: Path | None = None) -> VendorSetup:
    """Return how a cluster is served whose trainings leave an adapter."""
    return rented_setup(
        RayVendor,
        lambda url: {"RAY_API_SERVER_ADDRESS": url, "RAY_AUTH_TOKEN": KEY},
        r"/api/jobs/$",
        adapter,
    )
