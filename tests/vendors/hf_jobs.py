"""Hugging Face's API of jobs on loopback, with its machines and accounts.

Fields and words are those of huggingface_hub 2.4.0 (`JobInfo`, `JobHardwareInfo`,
`_create_job_spec`), which tests/unit/local/test_hf_jobs.py holds against both sides. The trainings
of `HfJobsVendor` leave an adapter that was made before; with `runs`, each job is a process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest, VendorResponse
from unitune.testing.vendor_setup import (
    Progress,
    Refused,
    ServerBehavior,
    VendorSetup,
    existing,
    route,
)
from vendors.rented import RentedVendor, rented_setup
from vendors.stored import store_training

KEY = "hf_loopback"
ACCOUNT = "ana"
FIELDS = {
    "command",
    "arguments",
    "environment",
    "secrets",
    "flavor",
    "timeoutSeconds",
    "attempts",
    "labels",
    "volumes",
    "expose",
    "ssh",
    "network",
    "resourceGroupId",
    "spaceId",
    "dockerImage",
}
"""Of `_create_job_spec`, huggingface_hub/_jobs_api.py."""
PAGE = 2
ENDED = ("COMPLETED", "CANCELED", "ERROR")
MICROS = {"cpu-basic": 167, "l4x1": 13333, "t4-small": 6667, "h200": 83333}


@dataclass(slots=True)
class Job:
    """A job and how far it is."""

    id: str
    spec: Mapping[str, Any]
    progress: Progress = field(default_factory=Progress)
    canceled: bool = False
    process: subprocess.Popen[bytes] | None = None

    @property
    def launch(self) -> dict[str, Any]:
        """What its worker is told."""
        return json.loads(self.spec["environment"]["UNITUNE_LAUNCH"])

    def stage(self, behavior: ServerBehavior) -> str:
        """Return Hugging Face's word."""
        if self.canceled:
            return "CANCELED"
        if self.process is not None:
            status = self.process.poll()
            return "RUNNING" if status is None else "ERROR" if status else "COMPLETED"
        if behavior.rejects_files or (self.progress.done(behavior) and behavior.fails):
            return "ERROR"
        if self.progress.done(behavior):
            return "COMPLETED"
        return behavior.state or ("RUNNING" if self.progress.started(behavior) else "SCHEDULING")

    def info(self, behavior: ServerBehavior) -> dict[str, JsonValue]:
        """Return what `JobInfo` is made of."""
        stage = self.stage(behavior)
        reason = behavior.rejects_files or behavior.fails
        created = f"{datetime.fromtimestamp(self.progress.created, UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
        seconds = 60 + self.progress.polls
        return {
            "id": self.id,
            "createdAt": created,
            "startedAt": created,
            "finishedAt": created if stage in ENDED else None,
            "dockerImage": self.spec.get("dockerImage"),
            "command": self.spec["command"],
            "arguments": self.spec["arguments"],
            "environment": dict(self.spec["environment"]),
            "secrets": dict.fromkeys(self.spec.get("secrets", {}), ""),
            "flavor": self.spec["flavor"],
            "labels": dict(self.spec.get("labels", {})),
            "status": {"stage": stage, "message": reason if stage == "ERROR" else None},
            "durations": {"schedulingSecs": 3, "runningSecs": seconds, "totalSecs": seconds + 3},
            "owner": {"id": "5e9ecfc04957053f60648a3e", "name": ACCOUNT, "type": "user"},
            "initiator": {"type": "user", "id": "5e9ecfc04957053f60648a3e", "name": ACCOUNT},
        }


class HfJobsVendor(RentedVendor):
    """Jobs of one account."""

    key = KEY
    no_route = "Sorry, we can't find the page you are looking for."

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.jobs: dict[str, Job] = {}

    def error(self, refusal: Refused) -> JsonValue:
        return {"error": refusal.message}

    def check_key(self, request: VendorRequest) -> None:
        if request.path != "/api/jobs/hardware":
            super().check_key(request)

    @route("GET", "/api/whoami-v2")
    def whoami(self, _: VendorRequest) -> JsonValue:
        return {"type": "user", "id": "5e9ecfc04957053f60648a3e", "name": ACCOUNT}

    @route("GET", "/api/jobs/hardware")
    def hardware(self, _: VendorRequest) -> JsonValue:
        return [
            {
                "name": name,
                "prettyName": name,
                "cpu": "8 vCPU",
                "ram": "30 GB",
                "ephemeralStorage": "400 GB",
                "accelerator": None,
                "unitCostMicroUSD": micros,
                "unitCostUSD": micros / 1_000_000,
                "unitLabel": "minute",
            }
            for name, micros in MICROS.items()
        ]

    @route("POST", "/api/jobs/{account}")
    def create(self, request: VendorRequest, account: str) -> JsonValue:
        body = request.json
        self._check_account(account)
        if unknown := sorted(body.keys() - FIELDS):
            raise Refused(400, f"Unrecognized key(s) in object: {unknown[0]!r}")
        if ("dockerImage" in body) == ("spaceId" in body):
            raise Refused(400, "Exactly one of dockerImage and spaceId is required")
        job = Job(f"{len(self.jobs):024x}", body)
        self.jobs[job.id] = job
        if self.runs:
            given = {**body["environment"], **body.get("secrets", {}), "JOB_ID": job.id}
            job.process = self.run([sys.executable, *body["command"][1:]], given, job.id)
        return job.info(self.behavior)

    @route("GET", "/api/jobs/{account}")
    def listed(self, request: VendorRequest, account: str) -> VendorResponse:
        """Return a page; ``label`` is a filter, and the header Link leads to the next page."""
        self._check_account(account)
        wanted = [each.partition("=")[::2] for each in request.query.get("label", [])]
        jobs: list[JsonValue] = [
            job.info(self.behavior)
            for job in self.jobs.values()
            if job.progress.listed(self.behavior)
            and all(job.spec.get("labels", {}).get(name) == value for name, value in wanted)
        ]
        begin = int(request.query.get("cursor", ["0"])[0])
        size = 1 if self.behavior.lists_repeat else PAGE
        page = jobs[max(0, begin - self.behavior.lists_repeat) : begin + size]
        links = {}
        if begin + size < len(jobs):
            query = "&".join(f"label={name}%3D{value}" for name, value in wanted)
            query = f"{query}&cursor={begin + size}".lstrip("&")
            links = {"Link": f'<http://127.0.0.1/api/jobs/{account}?{query}>; rel="next"'}
        return VendorResponse(page, 200, links)

    @route("GET", "/api/jobs/{account}/{name}")
    def job(self, _: VendorRequest, account: str, name: str) -> JsonValue:
        self._check_account(account)
        job = existing(self.jobs, name, "job")
        job.progress.look()
        if not self.runs and "UNITUNE_LAUNCH" in job.spec["environment"]:
            store_training(
                self.storage / "jobs" / job.launch["key"],
                job.progress,
                self.behavior,
                job.launch,
                adapter=self.adapter,
                succeeded=job.stage(self.behavior) == "COMPLETED",
            )
        return job.info(self.behavior)

    @route("POST", "/api/jobs/{account}/{name}/cancel")
    def cancel(self, _: VendorRequest, account: str, name: str) -> JsonValue:
        self._check_account(account)
        job = existing(self.jobs, name, "job")
        if job.stage(self.behavior) not in ENDED:
            job.canceled = True
            if job.process is not None:
                job.process.kill()
        return job.info(self.behavior)

    def _check_account(self, account: str) -> None:
        if account != ACCOUNT:
            raise Refused(403, f"Forbidden: you cannot use the namespace {account}")


hf_jobs = HfJobsVendor.with_storage


def hf_jobs_setup(adapter: Path | None = None, *, runs: bool = False) -> VendorSetup:
    """Return how an account is served whose trainings leave an adapter."""
    variables = {"HF_TOKEN": KEY, "UNITUNE_IMAGE": "registry.example.com/unitune:0.1.0-cuda"}
    return rented_setup(
        HfJobsVendor,
        lambda url: {"HF_ENDPOINT": url, **variables},
        rf"/api/jobs/{ACCOUNT}$",
        adapter,
        runs=runs,
    )
