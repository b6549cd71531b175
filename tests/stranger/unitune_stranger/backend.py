"""Backend of a hosted vendor outside of unitune, written with its transport kit.

``STRANGER_URL`` is the vendor's address, ``STRANGER_API_KEY`` the key.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import JsonValue

from unitune.backends.capabilities import DeploymentStatus
from unitune.backends.kit.api import Query, created_id
from unitune.backends.kit.chat import JsonChatModel
from unitune.backends.kit.hosted import HostedBackend, NoOptions, explicit, without_none
from unitune.backends.protocol import Event, Guarantee, Launch, State, Status, Upload
from unitune.errors import Unsupported
from unitune.models import ChatModel, Reply, Request, TunedModel
from unitune.security.json_fields import Fields
from unitune.workspace.progress import counted_file

SETTINGS = ("epochs", "batch_size", "learning_rate", "seed")


class StrangerBackend(HostedBackend[NoOptions]):
    """Backend of the example vendor."""

    name: ClassVar[str] = "stranger"
    capabilities = ("Deletes", "Deploys")
    guarantee: ClassVar[Guarantee] = Guarantee.FINDABLE
    address = "https://api.stranger.example"
    address_variable = "STRANGER_URL"
    key_variable = "STRANGER_API_KEY"
    states: ClassVar[Mapping[str, State]] = {
        "waiting": State.QUEUED,
        "running": State.RUNNING,
        "done": State.SUCCEEDED,
        "failed": State.FAILED,
        "cancelled": State.CANCELLED,
    }

    def upload(self, path: Path, sha256: str) -> Upload:
        with path.open("rb") as file:
            content = counted_file(file, f"uploading {path.name}")
            self.api.request("POST", "files", sha256, action=f"take {path.name}", content=content)
        return Upload(sha256, sha256)

    def submit(self, launch: Launch) -> str:
        self.validate_options(launch.job)
        created = self.api.post("jobs", action="create the job", body=create_body(launch))
        return created_id(created, self.api.endpoint)

    def find(self, launch_key: str, folder: Path) -> list[str]:
        del folder
        jobs = self.api.pages("jobs", action="list jobs", next_page=next_page, items="jobs")
        ours = [job.text("id") for job in jobs if job.text("key") == launch_key]
        return [job_id for job_id in ours if job_id]

    def poll(self, job_id: str, cursor: str) -> Status:
        job = self.api.get("jobs", job_id, action=f"read job {job_id}")
        name = job.text("model")
        model = TunedModel(backend=self.name, name=name, base="base-words") if name else None
        return self.status(job.text("state"), events_of(job), cursor, model, job.text("error"))

    def cancel(self, job_id: str) -> None:
        self.api.post("jobs", job_id, "cancel", action=f"cancel job {job_id}")

    def chat(self, model: str | TunedModel) -> ChatModel:
        name = model if isinstance(model, str) else model.name
        return StrangerChatModel(self.endpoint(), "/chat", name, f"stranger:{name}")

    def delete_file(self, ref: str) -> None:
        self.api.delete("files", ref, action="delete the file")

    def delete_model(self, model: TunedModel) -> None:
        self.api.delete("models", model.name, action="delete the model")

    def deploy(self, model: TunedModel, name: str, options: Mapping[str, JsonValue]) -> str:
        if options:
            raise Unsupported("stranger has no options for deployments")
        body = {"model": model.name}
        self.api.request("PUT", "deployments", name, action="deploy the model", json=body)
        return name

    def find_deployment(self, name: str) -> str | None:
        return name if self.api.find("deployments", name, action="find the deployment") else None

    def deployment_status(self, ref: str, model: TunedModel) -> DeploymentStatus:
        if self.find_deployment(ref) is None:
            return DeploymentStatus("gone", model)
        return DeploymentStatus("ready", model.model_copy(update={"name": ref}))

    def undeploy(self, ref: str) -> None:
        self.api.delete("deployments", ref, action="end the deployment")


class StrangerChatModel(JsonChatModel):
    """Chat model of the example vendor, which has its own API."""

    def body(self, request: Request) -> dict[str, object]:
        return {**chat_body(self._model, request)}

    def read(self, body: dict[str, object], answer: object, seconds: float) -> Reply | None:
        del body
        fields = Fields(answer)
        if (text := fields.text("text")) is None:
            return None
        return Reply(
            text=text,
            prompt_tokens=fields.whole("input_tokens"),
            completion_tokens=fields.whole("output_tokens"),
            seconds=seconds,
        )


def create_body(launch: Launch) -> dict[str, JsonValue]:
    """Return the create call of a launch."""
    settings = {name: explicit(getattr(launch.job.tuning, name)) for name in SETTINGS}
    return without_none(
        {
            "key": launch.key,
            "base": launch.job.base_model,
            "start": launch.start and launch.start.model.name,
            "training": launch.training.ref,
            "validation": launch.validation and launch.validation.ref,
            **settings,
        }
    )


def chat_body(model: str, request: Request) -> dict[str, JsonValue]:
    """Return the body of a request to a model."""
    return {
        "model": model,
        "messages": [{"role": turn.role, "content": turn.text} for turn in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "stop": list(request.stop),
    }


def next_page(page: Fields) -> Query | None:
    """Return the query for the next page."""
    start = page.whole("next")
    return None if start is None else {"start": start}


def events_of(job: Fields) -> Iterator[Event]:
    """Yield all known events; each poll returns the new ones."""
    yield Event("created", "message", time.time(), {"text": "created", "progress": 0})
    for step in job.items("steps"):
        if (number := step.whole("step")) is not None:
            data = without_none({"step": number, "loss": step.number("loss")})
            yield Event(f"step-{number}", "step", time.time(), data)
