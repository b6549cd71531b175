"""Train on machines rented by the minute: the backend named ``hf-jobs`` (Hugging Face Jobs).

The job runs `unitune_local.remote.worker`. A label holds the launch key. Rows, events and adapters
are in a private bucket of the account, unless the environment names another storage. The image and
the secrets of a job are set in the environment, as a job file may be someone else's.

Sources: huggingface_hub 2.4.0 (run_job, list_jobs, inspect_job, cancel_job, create_bucket);
huggingface/hub-docs, docs/hub/jobs-pricing.md and jobs-configuration.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar, cast
from urllib.parse import parse_qs, urlsplit

from pydantic import JsonValue

from unitune.backends import registry
from unitune.backends.credentials import checked_value, environment_address, key_in
from unitune.backends.kit.api import ERRORS, Api, created_id
from unitune.backends.kit.errors import vendor_errors
from unitune.backends.protocol import Guarantee, Launch, State, Status
from unitune.backends.retry import retry_read
from unitune.cost.machine_hours import machine_hours, parameters_in
from unitune.cost.tokens import Count
from unitune.errors import BackendError, UserError
from unitune.job.job import Job
from unitune.security.json_fields import Fields, read_json
from unitune.workspace import user_settings
from unitune_local.remote import storage
from unitune_local.remote.backend import (
    WORKER,
    RemoteBackend,
    installation,
    job_image,
    named_secrets,
)
from unitune_local.remote.launch import VARIABLE, HfJobsOptions
from unitune_local.remote.storage import Storage

LABEL = "unitune-launch"
BUCKET = "unitune"  # name of the bucket in the account
# Environment variables with the account or organisation that pays, and with a token for jobs, if it
# is not the user's own
NAMESPACE, JOB_TOKEN = "UNITUNE_HF_NAMESPACE", "UNITUNE_HF_JOB_TOKEN"
UV_IMAGE = "ghcr.io/astral-sh/uv:python3.12-bookworm"  # the SDK's default for scripts
UNKNOWN_HOURS = 24.0  # time limit of a training whose time cannot be forecast
LEAST_HOURS, SAFETY = 1.0, 2  # least time limit; factor on the high end of the forecast
BYTES_PER_TOKEN = 2  # of a training file, at least: the forecast's high end counts
MOST = 10**12  # seconds and millionths of a dollar beyond which an answer is not believed
NEXT_PAGE = re.compile(r'<([^>]+)>;\s*rel="next"')  # in the header Link
SECONDS = {"second": 1, "minute": 60, "hour": 3600}


class HfJobsBackend(RemoteBackend[HfJobsOptions]):
    """Backend that trains in a job at Hugging Face and answers on this machine."""

    name: ClassVar[str] = "hf-jobs"
    guarantee: ClassVar[Guarantee] = Guarantee.FINDABLE
    address = "https://huggingface.co"
    address_variable = "HF_ENDPOINT"
    key_variable = "HF_TOKEN"
    sign_in_advice = "Or run `hf auth login`."
    advice: ClassVar[Mapping[int, str]] = {
        402: "Add credit: https://huggingface.co/settings/billing.",
        403: "The token needs the permission to start and manage jobs, and to write to buckets.",
    }
    options = HfJobsOptions
    states: ClassVar[Mapping[str, State]] = {
        "SCHEDULING": State.QUEUED,
        "RUNNING": State.RUNNING,
        "COMPLETED": State.SUCCEEDED,
        "CANCELED": State.CANCELLED,
        "ERROR": State.FAILED,
        "DELETED": State.FAILED,
    }

    def __init__(self) -> None:
        # Names of accounts by address and key, which every request needs
        self._accounts: dict[tuple[str, str | None], str] = {}

    def sign_in(self) -> Callable[[], str] | None:
        """Return the token that `hf auth login` stored, if any."""
        from huggingface_hub import get_token  # noqa: PLC0415 - slow

        token = get_token()
        return None if token is None else lambda: token

    @property
    def api(self) -> Api:
        """Return the Hub's API."""
        return Api(self.endpoint("/api"))

    @property
    def namespace(self) -> str:
        """Account or organisation that the environment names, or else that of the token."""
        if chosen := user_settings.variable(NAMESPACE).strip():
            return chosen
        account = (self.base_url(), key_in(self.key_variable))
        if account in self._accounts:
            return self._accounts[account]
        name = self.api.get("whoami-v2", action="read the account").text("name")
        if not name:
            raise BackendError(f"{self.name} did not name the token's account. Set {NAMESPACE}.")
        self._accounts[account] = name
        return name

    @property
    def storage(self) -> Storage:
        """Storage that the environment names, or else a private bucket of the account."""
        if address := user_settings.variable(storage.VARIABLE):
            return Storage(address)
        return Storage(f"hf://buckets/{self._bucket()}")

    def validate_options(self, job: Job) -> None:
        """Raise `JobError` for invalid options, or if no job could install unitune."""
        super().validate_options(job)
        _image()

    def submit(self, launch: Launch) -> str:
        """Create the job; a second call creates another one."""
        sent, limit = self.remote_launch(launch), self._limit_seconds(launch)
        image, command = _image()
        address = environment_address(self.address_variable)
        hub = {self.address_variable: address} if address else {}
        body: dict[str, JsonValue] = {
            "command": command,
            "arguments": [],
            "environment": {VARIABLE: sent.model_dump_json(), **hub},
            "secrets": self._secrets(),
            "flavor": self.job_options(launch.job).flavor,
            "timeoutSeconds": limit,
            "labels": {LABEL: launch.key},
            "dockerImage": image,
        }
        api = self.api
        created = api.post("jobs", self.namespace, action=f"create job {launch.key}", body=body)
        return created_id(created, api.endpoint)

    def find(self, launch_key: str, folder: Path) -> list[str]:
        """Return the ids of jobs whose label has the launch key."""
        del folder
        return [job.text("id") or "" for job in self._labelled(launch_key)]

    def poll(self, job_id: str, cursor: str) -> Status:
        """Return the state of a job, and its events in the storage."""
        job = self.api.get("jobs", self.namespace, job_id, action=f"read job {job_id}")
        key, word = job.fields("labels").text(LABEL), job.fields("status").text("stage")
        state = self.state_of(word)
        if key is None:
            unread = State.UNKNOWN if state is State.SUCCEEDED else state
            error = _reason(job) if unread is State.FAILED else None
            return Status(unread, word or "no state", (), cursor, error=error)
        status = self.stored_status(key, cursor, word, state, partial(_reason, job))
        if state is State.SUCCEEDED and status.model is None:
            # A second job by the same launch ended at once, as the other one trains.
            for other in self._labelled(key):
                word = other.fields("status").text("stage")
                if other.text("id") != job_id and not self.state_of(word).ended:
                    return self.stored_status(key, cursor, word, self.state_of(word), str)
        return replace(status, billed_usd=self._billed(job)) if state.ended else status

    def cancel(self, job_id: str) -> None:
        """Cancel a job; its last events stay in the storage."""
        self.api.post("jobs", self.namespace, job_id, "cancel", action=f"cancel {job_id}")

    def _labelled(self, key: str) -> Iterator[Fields]:
        """Yield the jobs with a launch key, on all pages of the list."""
        api, namespace, found = self.api, self.namespace, set[str]()
        query: Mapping[str, Any] | None = {"label": f"{LABEL}={key}"}
        queries: list[Mapping[str, Any]] = []
        while query is not None and query not in queries:
            queries.append(query)
            jobs, query = _listed(api, "jobs", namespace, action=f"find job {key}", query=query)
            for job in jobs:
                name = job.text("id")
                if job.fields("labels").text(LABEL) == key and name and name not in found:
                    found.add(name)
                    yield job

    def _bucket(self) -> str:
        """Return the name of the private bucket, created if it is missing."""
        name = f"{self.namespace}/{BUCKET}"
        found = self.api.find("buckets", *name.split("/"), action=f"find bucket {name}")
        if found is None:
            self.api.request(
                "POST",
                "buckets",
                *name.split("/"),
                action=f"create bucket {name}",
                json={"visibility": "private"},
                expected=[HTTPStatus.CONFLICT],
            )
        elif found.all.get("private") is not True:
            raise UserError(
                f"the bucket {name} is not private, but would hold your rows. Make it private at "
                f"{self.base_url()}/buckets/{name}/settings, or set {storage.VARIABLE}."
            )
        return name

    def _secrets(self) -> dict[str, JsonValue]:
        """Return the secrets of a job: a token, and the variables that the environment names."""
        held = named_secrets()
        token = key_in(JOB_TOKEN) or key_in(self.key_variable)
        if token is None and (stored := self.sign_in()):
            token = stored()
        if token is None:
            raise UserError(f"{self.key_variable} is not set. {self.sign_in_advice}")
        return {**held, "HF_TOKEN": checked_value(token, JOB_TOKEN)}

    def _limit_seconds(self, launch: Launch) -> int:
        """Return the time limit of a job; without one, Hugging Face ends it after 30 minutes."""
        job, chosen = launch.job, self.job_options(launch.job).timeout_hours
        if chosen != "auto":
            hours = chosen
        elif job.budget is not None and job.budget.hours is not None:
            hours = float(job.budget.hours)
        else:
            hours = self._forecast_hours(launch)
        minutes = math.ceil(hours * 60)
        flavor, rows = self.job_options(job).flavor, registry.offer(self.name).price_rows()
        price = next((row.usd for row in rows if row.tier == flavor), None)
        if job.budget is not None and price:  # a longer training could cost more than its budget
            minutes = max(1, min(minutes, int(job.budget.usd / price * 60)))
        return minutes * 60

    def _forecast_hours(self, launch: Launch) -> float:
        job, offer = launch.job, registry.offer(self.name)
        flavor = self.job_options(job).flavor
        model, speed = offer.model(job.base_model), offer.machines.get(flavor)
        parameters = (model and model.parameters) or parameters_in(job.base_model)
        if speed is None or parameters is None or job.method == "rft":
            return UNKNOWN_HOURS
        size = self.storage.size(launch.training.ref)
        epochs = 3 if job.tuning.epochs == "auto" else math.ceil(job.tuning.epochs)
        tokens = Count.of(epochs * size // BYTES_PER_TOKEN)
        return max(LEAST_HOURS, SAFETY * float(machine_hours(parameters, tokens, speed).high))

    def _billed(self, job: Fields) -> Decimal | None:
        """Return the list price of an ended job by the started minute, if it is known."""
        seconds, flavor = job.fields("durations").whole("runningSecs"), job.text("flavor")
        machines, _ = _listed(self.api, "jobs", "hardware", action="read the prices of machines")
        for machine in machines:
            micros, unit = machine.whole("unitCostMicroUSD"), machine.text("unitLabel")
            if machine.text("name") != flavor or seconds is None or micros is None:
                continue
            if unit in SECONDS and max(seconds, micros) < MOST:
                started = Decimal(-(-seconds // 60) * 60)
                return (micros * started / SECONDS[unit] / 1_000_000).quantize(Decimal("0.0001"))
        return None


def _image() -> tuple[str, list[JsonValue]]:
    """Return the image of a job and its command: the user's image, or an installation by uv."""
    if image := job_image():
        return image, [*WORKER]
    return UV_IMAGE, ["uv", "run", "--with", installation("hf-jobs"), *WORKER]


def _listed(
    api: Api, *path: str, action: str, query: Mapping[str, Any] | None = None
) -> tuple[list[Fields], Mapping[str, Any] | None]:
    """Return the objects of a list's page, and the query of the next page."""
    response = retry_read(lambda: api.request("GET", *path, action=action, params=query))
    with vendor_errors(response.vendor, action, ERRORS):
        content = Fields({"page": cast("JsonValue", read_json(response.content))})
    after = NEXT_PAGE.search(response.headers.get("link", ""))
    return content.items("page"), parse_qs(urlsplit(after[1]).query) if after else None


def _reason(job: Fields) -> str:
    status = job.fields("status")
    reason = (status.text("message") or "Hugging Face gave no reason").strip().rstrip(".")
    return f"{reason[:300]}. See the job's log: `hf jobs logs {job.text('id')}`."
