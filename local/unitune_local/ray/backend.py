"""Train on a Ray cluster: the backend named ``ray``.

Only the cluster needs Ray.

Sources: docs.ray.io, Ray Jobs REST API; tried with Ray 2.60.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

from pydantic import JsonValue

from unitune.backends.kit.api import Api, created_id
from unitune.backends.protocol import Guarantee, Launch, State, Status
from unitune.security.json_fields import Fields
from unitune_local.remote.backend import RemoteBackend
from unitune_local.remote.launch import VARIABLE, RayOptions
from unitune_local.remote.storage import Storage

ENTRYPOINT = "python -P -m unitune_local.ray.driver"
# Error type of a job whose message ends with the last output of the driver
ENTRYPOINT_FAILED = "JOB_ENTRYPOINT_COMMAND_ERROR"
SHOWN_CHARACTERS = 300
JOBS = "/api/jobs"


class RayBackend(RemoteBackend[RayOptions]):
    """Backend that trains on a Ray cluster and answers on this machine."""

    name: ClassVar[str] = "ray"
    guarantee: ClassVar[Guarantee] = Guarantee.OWN_ID
    address = "http://127.0.0.1:8265"  # Ray's default, also with port-forwarding
    address_variable = "RAY_API_SERVER_ADDRESS"
    key_variable = "RAY_AUTH_TOKEN"
    is_key_optional = True
    options = RayOptions
    states: ClassVar[Mapping[str, State]] = {
        "PENDING": State.QUEUED,
        "RUNNING": State.RUNNING,
        "STOPPED": State.CANCELLED,
        "SUCCEEDED": State.SUCCEEDED,
        "FAILED": State.FAILED,
    }

    @property
    def api(self) -> Api:
        """Ray's API of jobs, each under its submission id."""
        return Api(self.endpoint(JOBS))

    def submit(self, launch: Launch) -> str:
        """Create the job, unless one with this key exists."""
        given = self.job_options(launch.job).runtime_env
        sent = self.remote_launch(launch)
        if self.find(launch.key, launch.folder):  # the status of a second call would not show it
            return launch.key
        variables = {**Fields(given).fields("env_vars").all, VARIABLE: sent.model_dump_json()}
        body: dict[str, JsonValue] = {
            "submission_id": launch.key,
            "entrypoint": ENTRYPOINT,
            "entrypoint_num_cpus": 0,  # it only waits for its workers
            "runtime_env": {**given, "env_vars": variables},
            "metadata": {"name": launch.job.name, "model": launch.job.base_model},
        }
        endpoint = self.endpoint(f"{JOBS}/")  # without the slash, the path does not exist
        created = Api(endpoint).post(action=f"create job {launch.key}", body=body)
        return created_id(created, endpoint, "submission_id")

    def find(self, launch_key: str, folder: Path) -> list[str]:
        del folder
        job = self.api.find(launch_key, action=f"find job {launch_key}")
        return [] if job is None else [launch_key]

    def poll(self, job_id: str, cursor: str) -> Status:
        job = self.api.get(job_id, action=f"read job {job_id}")
        word = job.text("status")
        why = partial(_reason, job_id, job)
        return self.stored_status(job_id, cursor, word, self.state_of(word), why)

    def cancel(self, job_id: str) -> None:
        self.api.post(job_id, "stop", action=f"cancel {job_id}", body={})

    def delete_launch(self, there: Storage, key: str) -> None:
        """Remove the files of a training and of Ray Train, and Ray's job."""
        super().delete_launch(there, key)
        there.remove(f"ray/{key}")
        self.api.delete(key, action=f"delete {key}")


def _reason(job_id: str, job: Fields) -> str:
    """Return why a job failed: by the driver's last output, else by Ray."""
    lines = (job.text("message") or "Ray gave no reason").strip().splitlines()
    line = lines[-1 if job.text("error_type") == ENTRYPOINT_FAILED else 0]
    return f"{line[:SHOWN_CHARACTERS].rstrip('. ')}. See `ray job logs {job_id}`."
