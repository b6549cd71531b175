"""Train on machines that SkyPilot rents: the backend named ``skypilot``.

SkyPilot's server reaches clouds, Kubernetes, Slurm and machines with SSH. Its requests are sent
without its package. The cluster is named by the launch key; its job runs
`unitune_local.remote.worker`. A second launch under that name reuses the machine, and its worker
ends at once, as the first one has claimed the training.

Source: skypilot 0.14.1 (sky/server/server.py, sky/server/requests/payloads.py and
serializers/encoders.py, sky/schemas/api/responses.py); tried with its server, without a cloud.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import ClassVar, cast
from urllib.parse import urlsplit

from pydantic import JsonValue

from unitune.backends.kit.api import ERRORS, Body
from unitune.backends.kit.errors import vendor_errors
from unitune.backends.kit.hosted import without_none
from unitune.backends.protocol import Guarantee, Launch, State, Status
from unitune.backends.retry import retry_read
from unitune.errors import NOT_FOUND, BackendError, Unreachable
from unitune.job.job import Job
from unitune.security.json_fields import Fields, read_json
from unitune_local.remote.backend import (
    WORKER,
    RemoteBackend,
    installation,
    job_image,
    named_secrets,
)
from unitune_local.remote.launch import VARIABLE, SkyPilotOptions

REQUEST = "x-skypilot-request-id"  # header with the request whose result is asked for
LAUNCH_REQUEST = "sky.launch"
ACTIVE = ("PENDING", "WAITING", "RUNNING")  # states of a request that has not ended
STOPPED = ("AUTOSTOPPING", "STOPPED")  # states of a machine that has no job
LAUNCHING, GONE = "LAUNCHING", "GONE"  # our words: no job yet; machine or job no longer there
MISSING = ("ClusterDoesNotExist", "ClusterNotUpError")  # errors of SkyPilot
UNKNOWN_HOURS = 24.0  # time limit without another one
HISTORY_DAYS = 365  # of clusters that are no longer there
COLOURS = re.compile(r"\x1b\[[\d;]*m")  # in SkyPilot's messages
MOST_USD = 10**9  # beyond which a bill is not believed
# Packages with which fsspec reads addresses of clouds
DRIVERS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


class SkyPilotBackend(RemoteBackend[SkyPilotOptions]):
    """Backend that trains on a machine rented by SkyPilot and answers on this machine."""

    name: ClassVar[str] = "skypilot"
    guarantee: ClassVar[Guarantee] = Guarantee.OWN_ID
    address = "http://127.0.0.1:46580"  # of `sky api start`
    address_variable = "SKYPILOT_API_SERVER_ENDPOINT"
    key_variable = "SKYPILOT_SERVICE_ACCOUNT_TOKEN"
    is_key_optional = True
    options = SkyPilotOptions
    states: ClassVar[Mapping[str, State]] = {
        **dict.fromkeys((LAUNCHING, "INIT", "PENDING", "SETTING_UP"), State.QUEUED),
        "RUNNING": State.RUNNING,
        "SUCCEEDED": State.SUCCEEDED,
        **dict.fromkeys(("FAILED", "FAILED_SETUP", "FAILED_DRIVER"), State.FAILED),
        "CANCELLED": State.CANCELLED,
    }

    def validate_options(self, job: Job) -> None:
        """Raise for invalid options, a missing storage, or if no job could install unitune."""
        super().validate_options(job)
        _ = self.storage
        if job_image() is None:
            installation(self.name)

    def submit(self, launch: Launch) -> str:
        """Ask for the machine and its job, unless a machine has or had this name."""
        task, chosen = self._task(launch), self.job_options(launch.job)
        if self._is_known(launch.key):
            return launch.key
        body: dict[str, JsonValue] = {
            "task": json.dumps(task),  # which is YAML, too
            "cluster_name": launch.key,
            "retry_until_up": False,
            "idle_minutes_to_autostop": chosen.autostop_minutes,
            "down": True,
        }
        self.api.request("POST", "launch", action=f"launch cluster {launch.key}", json=body)
        return launch.key

    def find(self, launch_key: str, folder: Path) -> list[str]:
        """Return the launch key if a cluster has that name, had it, or is being launched."""
        del folder
        return [launch_key] if self._is_known(launch_key) else []

    def poll(self, job_id: str, cursor: str) -> Status:
        """Return the state of a training by its job, its machine and its result in the storage."""
        word, reason = self._word(job_id)
        state, there = self.state_of(word), self.storage
        if word == GONE and there.exists(f"jobs/{job_id}/result.json"):
            state = State.SUCCEEDED  # or failed, as stored
        elif word == GONE:
            is_cancelled = there.exists(f"jobs/{job_id}/cancelled")
            state = State.CANCELLED if is_cancelled else State.FAILED
        status = self.stored_status(job_id, cursor, word, state, lambda: reason)
        return replace(status, billed_usd=self._billed(job_id)) if status.state.ended else status

    def cancel(self, job_id: str) -> None:
        """Cancel launch and job, and delete the machine; stored events stay."""
        self._check_known(job_id)
        if active := [each.text("request_id") for each in _active(self._launches(job_id))]:
            self._result("api/cancel", {"request_ids": cast("JsonValue", active)}, job_id)
        body: Body = {"cluster_name": job_id, "job_ids": None, "all": True}
        self._unless_missing("cancel", {**body, "try_cancel_if_cluster_is_init": True}, job_id)
        # Not waited for, as it takes minutes; the autostop would delete the machine as well.
        self.api.post("down", action=f"delete cluster {job_id}", body={"cluster_name": job_id})
        with tempfile.NamedTemporaryFile() as empty:
            self.storage.put(Path(empty.name), f"jobs/{job_id}/cancelled")

    def _task(self, launch: Launch) -> dict[str, JsonValue]:
        """Return SkyPilot's task, whose machine is always deleted when it has no job."""
        chosen, budget = self.job_options(launch.job), launch.job.budget
        image, worker = job_image(), [*WORKER]
        if image is None:
            driver = DRIVERS.get(urlsplit(self.storage.address).scheme)
            wanted = [installation(self.name), *([driver] if driver else [])]
            added = [f"--with={each}" for each in wanted]
            worker = ["uv", "run", "--no-project", "--python=3.12", *added, *worker]
        hours = chosen.timeout_hours
        if hours == "auto":
            hours = float(budget.hours) if budget and budget.hours is not None else UNKNOWN_HOURS
        run = [
            'export JOB_ID="$SKYPILOT_TASK_ID" PATH="$PATH:$HOME/.local/bin"',  # uv's, by SkyPilot
            f"exec timeout {math.ceil(hours * 3600)} {shlex.join(worker)}",
        ]
        return {
            "name": launch.key,
            "resources": without_none(
                {
                    "accelerators": chosen.accelerators,
                    "infra": chosen.infra,
                    "image_id": image and f"docker:{image}",
                    "use_spot": chosen.use_spot,
                    "autostop": {"idle_minutes": chosen.autostop_minutes, "down": True},
                }
            ),
            # In ASCII, as YAML knows no surrogate pairs
            "envs": {VARIABLE: json.dumps(self.remote_launch(launch).model_dump(mode="json"))},
            "secrets": named_secrets(),
            "run": "\n".join(run),
        }

    def _word(self, key: str) -> tuple[str, str]:
        """Return the state of a launch in one word, and the reason of a failure."""
        # In this order, a launch that ends in between is not taken for a lost one.
        launches = self._launches(key)
        cluster = self._cluster(key)
        is_up = cluster is not None and cluster.text("status") == "UP"
        jobs = self._jobs(key) if is_up else ()
        words = [job.text("status") or "no state" for job in jobs]
        if words:  # a second job by the same launch ends at once
            running = [word for word in words if not self.state_of(word).ended]
            return (running or words)[0], f"it met its time limit, or see `sky logs {key}`."
        if _active(launches):
            return LAUNCHING, ""
        if launches and launches[-1].text("status") != "SUCCEEDED":
            left = f" Run `sky down {key}`: a machine is left." if cluster else ""
            return GONE, self._reason(launches[-1]) + left
        if cluster and cluster.text("status") not in STOPPED:
            return cluster.text("status") or "no state", ""  # such as one that does not respond
        self._check_known(key)
        return GONE, "its machine was stopped, deleted or taken back by the cloud before the end."

    def _is_known(self, key: str) -> bool:
        return bool(self._launches(key) or self._cluster(key) or self._report(key))

    def _check_known(self, key: str) -> None:
        if not self._is_known(key):
            raise BackendError(f"{self.base_url()} does not know cluster {key}.", status=NOT_FOUND)

    def _launches(self, key: str) -> Sequence[Fields]:
        """Return the launch requests of a cluster, which the server keeps for a day or longer."""
        action, query = f"find requests of {key}", {"cluster_name": key, "all_status": "true"}
        send = partial(self.api.request, "GET", "api", "status", action=action, params=query)
        found, wanted = retry_read(send), (key, LAUNCH_REQUEST)
        with vendor_errors(found.vendor, action, ERRORS):
            all_ = _objects(read_json(found.content))
        mine = [each for each in all_ if (each.text("cluster_name"), each.text("name")) == wanted]
        return sorted(mine, key=lambda each: each.number("created_at") or 0)

    def _cluster(self, key: str) -> Fields | None:
        """Return a cluster, whose state SkyPilot asks the cloud for if its own is old."""
        body: Body = {"cluster_names": [key], "refresh": "AUTO", "all_users": True}
        body = {**body, "include_credentials": False, "include_handle": False}
        found = _objects(self._result("status", body, key))
        return next((each for each in found if each.text("name") == key), None)

    def _jobs(self, key: str) -> Sequence[Fields]:
        jobs = self._unless_missing("queue", {"cluster_name": key, "all_users": True}, key)
        return sorted(_objects(jobs), key=lambda job: job.number("job_id") or 0)

    def _report(self, key: str) -> Sequence[Fields]:
        """Return the clusters that have or had a name, with what they cost."""
        body: Body = {"days": HISTORY_DAYS, "cluster_names": [key]}
        found = _objects(self._result("cost_report", body, key))
        return [each for each in found if each.text("name") == key]

    def _billed(self, key: str) -> Decimal | None:
        """Return SkyPilot's cost of the machine until now by list price; it says 0 for unknown."""
        costs = [each.number("total_cost") or 0 for each in self._report(key)]
        known = 0 < sum(costs) < MOST_USD
        return Decimal(str(sum(costs))).quantize(Decimal("0.0001")) if known else None

    def _reason(self, launch: Fields) -> str:
        """Return why a launch failed."""
        try:
            self._answer(launch.text("request_id") or "", "rent the machine")
        except BackendError as error:
            if error.is_retryable:
                raise
            return str(error)
        return "its launch was cancelled."

    def _unless_missing(self, path: str, body: Body, key: str) -> object:
        try:
            return self._result(path, body, key)
        except BackendError as error:
            if error.is_not_found:  # the machine has been deleted
                return None
            raise

    def _result(self, path: str, body: Body, key: str) -> object:
        """Send a request that can be repeated, and return its result."""
        api, action = self.api, f"{path.replace('_', ' ')} of {key}"
        send = partial(api.request, "POST", *path.split("/"), action=action, json=body)
        sent = retry_read(send)
        if not (request := sent.headers.get(REQUEST)):
            raise Unreachable(f"{self.name} answered without the header {REQUEST}.")
        return self._answer(request, action)

    def _answer(self, request: str, action: str) -> object:
        """Return the result of a request; raise `BackendError` with SkyPilot's reason."""
        api, failed = self.api, HTTPStatus.INTERNAL_SERVER_ERROR

        def read() -> Fields:
            query = {"request_id": request}
            sent = api.request("GET", "api", "get", action=action, params=query, expected=[failed])
            detail = sent.fields.fields("detail") if sent.status == failed else sent.fields
            if detail.text("status") is None:
                raise Unreachable(f"{self.name} could not {action} (HTTP {sent.status}).")
            return detail

        answer = retry_read(read)
        with vendor_errors(api.endpoint.vendor, action, ERRORS):
            error = Fields(read_json(answer.text("error") or "null"))
            value = read_json(answer.text("return_value") or "null")
        if error.all or answer.text("status") != "SUCCEEDED":
            words = COLOURS.sub("", error.text("message") or answer.text("status") or "")
            words = " ".join(words.split()).rstrip(".")
            missing = NOT_FOUND if error.text("type") in MISSING else None
            raise BackendError(f"SkyPilot could not {action}: {words[:300]}.", status=missing)
        return value


def _objects(value: object) -> list[Fields]:
    return Fields({"all": cast("JsonValue", value)}).items("all")


def _active(launches: Sequence[Fields]) -> list[Fields]:
    return [each for each in launches if each.text("status") in ACTIVE]
