"""SkyPilot's API server on loopback, with the machines that it rents.

Fields and words are those of skypilot 0.14.1 (`LaunchBody`, `StatusResponse`, `ClusterJobRecord`,
`RequestPayload`), which tests/unit/local/test_skypilot.py holds against that package. The trainings
leave an adapter that was made before; with `runs`, each job is a process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest, VendorResponse
from unitune.testing.vendor_setup import Progress, Refused, ServerBehavior, VendorSetup, route
from vendors.rented import RentedVendor, rented_setup
from vendors.stored import store_training

KEY = "sky_loopback"
USD_AN_HOUR = 0.8
BODIES = {
    "launch": {
        "task",
        "cluster_name",
        "retry_until_up",
        "idle_minutes_to_autostop",
        "down",
        "dryrun",
    },
    "status": {
        "cluster_names",
        "refresh",
        "all_users",
        "include_credentials",
        "include_handle",
        "summary_response",
    },
    "queue": {"cluster_name", "skip_finished", "all_users"},
    "cost_report": {"days", "cluster_names", "cluster_hashes"},
    "cancel": {"cluster_name", "job_ids", "all", "all_users", "try_cancel_if_cluster_is_init"},
    "down": {"cluster_name", "purge"},
    "api/cancel": {"request_ids", "user_id"},
}
"""Fields of the bodies by path, without `RequestBody`'s own."""
TASK = {"name", "resources", "envs", "secrets", "run"}
DONE = ("SUCCEEDED", "FAILED", "FAILED_SETUP", "FAILED_DRIVER", "CANCELLED")


class Failed(Exception):
    """A request that was accepted and failed; the first argument is the name of the exception."""


@dataclass(slots=True)
class Machine:
    """A cluster, the tasks that were launched on it, and how far the first one is."""

    name: str
    tasks: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    progress: Progress = field(default_factory=Progress)
    canceled: bool = False
    is_down: bool = False
    processes: list[subprocess.Popen[bytes]] = field(
        default_factory=list["subprocess.Popen[bytes]"]
    )

    @property
    def launch(self) -> dict[str, Any]:
        """What its worker is told."""
        return json.loads(self.tasks[0]["envs"]["UNITUNE_LAUNCH"])

    def is_up(self, behavior: ServerBehavior) -> bool:
        """Return whether it is rented, and the launch over."""
        return bool(self.processes or behavior.rejects_files) or self.progress.started(behavior)

    def words(self, behavior: ServerBehavior) -> list[str]:
        """Return SkyPilot's word for each job."""
        if self.canceled:
            return ["CANCELLED"]
        if self.processes:
            ended = [process.poll() for process in self.processes]
            return ["RUNNING" if e is None else "FAILED" if e else "SUCCEEDED" for e in ended]
        done = self.progress.done(behavior)
        if behavior.rejects_files or (done and behavior.fails):
            return ["FAILED"]
        return ["SUCCEEDED" if done else behavior.state or "RUNNING"]


class SkyPilotVendor(RentedVendor):
    """A server of one user."""

    key = KEY
    no_route = "Not Found"

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.jobs: dict[str, Machine] = {}
        self.requests: dict[str, dict[str, Any]] = {}
        self.refuses = ""  # why no cloud can be used

    def error(self, refusal: Refused) -> JsonValue:
        return {"detail": refusal.message}

    @route("POST", "/{path:launch|status|queue|cost_report|cancel|down|api/cancel}")
    def accept(self, request: VendorRequest, path: str) -> VendorResponse:
        """Accept a request, carry it out, and answer with its id in a header only."""
        body = request.json
        if unknown := sorted(body.keys() - BODIES[path]):
            raise Refused(422, f"Extra inputs are not permitted: {unknown[0]}")
        made: dict[str, Any] = {
            "request_id": f"{len(self.requests):08x}-0000-4000-8000-000000000000",
            "name": f"sky.{path.replace('/', '_')}",
            "cluster_name": body.get("cluster_name"),
            "status": "SUCCEEDED",
            "return_value": None,
            "error": None,
            "created_at": 1796094224.0 + len(self.requests),
        }
        self.requests[made["request_id"]] = made
        try:
            made["return_value"] = getattr(self, f"_{path.replace('/', '_')}")(body)
        except Failed as failed:
            kind, words = failed.args
            error = {"object": "gASV", "type": kind, "message": words}
            made |= {"status": "FAILED", "error": error}
        return VendorResponse(None, 200, {"X-Skypilot-Request-ID": made["request_id"]})

    @route("GET", "/api/get")
    def result(self, request: VendorRequest) -> JsonValue | VendorResponse:
        name = request.query.get("request_id", [""])[0]
        if name not in self.requests:
            raise Refused(404, f"Request {name!r} not found")
        made = self._payload(self.requests[name], whole=True)
        return VendorResponse({"detail": made}, 500) if made["error"] != "null" else made

    @route("GET", "/api/status")
    def listed(self, request: VendorRequest) -> JsonValue:
        name = request.query.get("cluster_name", [None])[0]
        return [
            self._payload(each, whole=False)
            for each in self.requests.values()
            if name is None or each["cluster_name"] == name
        ]

    def _payload(self, made: dict[str, Any], *, whole: bool) -> dict[str, JsonValue]:
        status, machine = made["status"], self.jobs.get(made["cluster_name"] or "")
        if made["name"] == "sky.launch" and status == "SUCCEEDED" and machine is not None:
            if machine.is_down and not machine.is_up(self.behavior):
                status = "CANCELLED"
            elif not machine.is_up(self.behavior):
                status = "RUNNING"
        return {
            **made,
            "status": status,
            "return_value": json.dumps(made["return_value"] if whole else None),
            "error": json.dumps(made["error"] if whole else None),
            "entrypoint": "gASV",
            "request_body": "gASV",
            "user_id": "fcd1e5cf",
            "user_name": "ana",
            "pid": None,
            "schedule_type": "short",
            "status_msg": None,
            "should_retry": False,
            "finished_at": None,
            "file_mounts_blob_id": None,
        }

    def _launch(self, body: dict[str, Any]) -> JsonValue:
        task = json.loads(body["task"])
        autostop = task["resources"]["autostop"]
        if not (body["down"] and autostop["down"] and autostop["idle_minutes"]):
            raise Refused(400, "this machine would never be deleted")
        if unknown := sorted(task.keys() - TASK):
            raise Refused(400, f"Invalid task YAML: {unknown[0]}")
        if self.refuses:
            raise Failed("NoCloudAccessError", self.refuses)
        name = body["cluster_name"]
        machine = self.jobs.setdefault(name, Machine(name))
        machine.tasks.append(task)
        if self.runs:
            own = f"sky-{name}_job_{len(machine.tasks)}"
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            given = {**task["envs"], **task["secrets"], "SKYPILOT_TASK_ID": own, "PATH": path}
            machine.processes.append(self.run(["bash", "-c", task["run"]], given, own))
        return {"job_id": len(machine.tasks), "handle": "gASV"}

    def _status(self, body: dict[str, Any]) -> JsonValue:
        there = [self.jobs[each] for each in body["cluster_names"] if each in self.jobs]
        return [self._cluster(each) for each in there if not each.is_down]

    def _cluster(self, machine: Machine) -> dict[str, JsonValue]:
        machine.progress.look()
        is_up = machine.is_up(self.behavior)
        return {
            "name": machine.name,
            "launched_at": int(machine.progress.created),
            "last_use": "",
            "status": "UP" if is_up else "INIT",
            "autostop": machine.tasks[0]["resources"]["autostop"]["idle_minutes"],
            "to_down": True,
            "cluster_hash": "6a1f",
            "cluster_ever_up": is_up,
            "status_updated_at": 0,
            "user_hash": "fcd1e5cf",
            "user_name": "ana",
            "workspace": "default",
            "is_managed": False,
            "nodes": 1,
            "labels": {},
        }

    def _queue(self, body: dict[str, Any]) -> JsonValue:
        machine = self._existing(body)
        words = machine.words(self.behavior)
        if not self.runs:
            folder = self.storage / "jobs" / machine.launch["key"]
            store_training(
                folder,
                machine.progress,
                self.behavior,
                machine.launch,
                adapter=self.adapter,
                succeeded=words[0] == "SUCCEEDED",
            )
            if words[0] == "FAILED":  # as the worker stores it
                reason = self.behavior.rejects_files or self.behavior.fails
                result = json.dumps({"state": "failed", "error": reason})
                (folder / "result.json").write_text(result, encoding="utf-8")
        return [
            {
                "job_id": number,
                "job_name": machine.name,
                "username": "ana",
                "user_hash": "fcd1e5cf",
                "submitted_at": machine.progress.created,
                "start_at": machine.progress.created,
                "end_at": machine.progress.created + 60 if word in DONE else None,
                "resources": "1x[L4:1]",
                "status": word,
                "log_path": "~/sky_logs",
                "metadata": {},
                "links": {},
            }
            for number, word in reversed([*enumerate(words, start=1)])
        ]

    def _cost_report(self, body: dict[str, Any]) -> JsonValue:
        there = [self.jobs[each] for each in body["cluster_names"] if each in self.jobs]
        return [
            {
                "name": each.name,
                "cluster_hash": "6a1f",
                "num_nodes": 1,
                "launched_at": int(each.progress.created),
                "duration": 60,
                "total_cost": USD_AN_HOUR / 60,
                "status": None if each.is_down else "UP",
            }
            for each in there
        ]

    def _cancel(self, body: dict[str, Any]) -> JsonValue:
        machine = self._existing(body)
        if not set(machine.words(self.behavior)) & {"SUCCEEDED", "FAILED"}:
            machine.canceled = True
        for process in machine.processes:
            process.kill()
        return None

    def _down(self, body: dict[str, Any]) -> JsonValue:
        self._existing(body).is_down = True
        return None

    def _api_cancel(self, body: dict[str, Any]) -> JsonValue:
        return list(body["request_ids"])

    def _existing(self, body: dict[str, Any]) -> Machine:
        machine = self.jobs.get(body["cluster_name"])
        if machine is None or machine.is_down:
            raise Failed("ClusterDoesNotExist", f"Cluster {body['cluster_name']!r} does not exist.")
        return machine


def skypilot_setup(adapter: Path | None = None, *, runs: bool = False) -> VendorSetup:
    """Return how a server is served whose trainings leave an adapter."""
    image = "registry.example.com/unitune:0.1.0-cuda"
    variables = {"SKYPILOT_SERVICE_ACCOUNT_TOKEN": KEY, "UNITUNE_IMAGE": image}
    return rented_setup(
        SkyPilotVendor,
        lambda url: {"SKYPILOT_API_SERVER_ENDPOINT": url, **variables},
        r"/launch$",
        adapter,
        runs=runs,
    )
