"""A hosted vendor's backend, over httpx: what somebody writes who knows unitune from outside.

``STRANGER_URL`` says where the vendor is, ``STRANGER_API_KEY`` has the key.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import httpx
from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError

from unitune.backends.capabilities import DeploymentStatus
from unitune.backends.options import job_options
from unitune.backends.protocol import Event, Guarantee, Launch, State, Status, Upload
from unitune.backends.retry import parse_retry_after
from unitune.errors import BackendError, Unreachable, Unsupported
from unitune.models import ChatModel, Reply, Request, TunedModel

TIMEOUT_SECONDS = 30.0
STATES = {
    "waiting": State.QUEUED,
    "running": State.RUNNING,
    "done": State.SUCCEEDED,
    "failed": State.FAILED,
    "cancelled": State.CANCELLED,
}
SETTINGS = ("epochs", "batch_size", "learning_rate", "seed")


class StrangerOptions(BaseModel):
    """What a job may say under ``options: {stranger: …}``."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(BaseModel):
    step: int
    loss: float | None = None


class VendorJob(BaseModel):
    """A job in the vendor's responses, any field of which may be missing."""

    id: str | None = None
    key: str | None = None
    state: str | None = None
    steps: tuple[Step | Any, ...] | None = None
    model: str | None = None
    error: str | None = None


class JobList(BaseModel):
    jobs: tuple[VendorJob | Any, ...] | None = None
    next: int | None = None


class Answer(BaseModel):
    text: str
    input_tokens: int | None = None
    output_tokens: int | None = None


def map_error(response: httpx.Response, action: str) -> BackendError:
    """Return a refusal as unitune's error; the status says what it means for a launch."""
    return BackendError(
        f"could not {action}: HTTP {response.status_code}: {response.text[:200]}",
        status=response.status_code,
        retry_after=parse_retry_after(response.headers),
    )


def call(method: str, path: str, action: str, **content: Any) -> bytes:
    """Send one request, never repeated here."""
    url = os.environ["STRANGER_URL"] + path
    headers = {"Authorization": f"Bearer {os.environ['STRANGER_API_KEY']}"}
    try:
        response = httpx.request(method, url, headers=headers, timeout=TIMEOUT_SECONDS, **content)
    except httpx.HTTPError as error:
        raise Unreachable(f"could not {action}: {error!r}") from error
    if not response.is_success:
        raise map_error(response, action)
    return response.content


def read(kind: type[Any], body: bytes, action: str) -> Any:
    """Read a response; one that cannot be read leaves open what has happened."""
    try:
        return TypeAdapter(kind).validate_json(body)
    except ValidationError as error:
        raise Unreachable(f"could not {action}: the response cannot be read") from error


def create_body(launch: Launch) -> dict[str, JsonValue]:
    """Return the create call of a launch."""
    tuning = launch.job.tuning
    settings = {name: getattr(tuning, name) for name in SETTINGS}
    return {
        "key": launch.key,
        "base": launch.job.base_model,
        "training": launch.training.ref,
        "validation": launch.validation.ref if launch.validation else None,
        **{name: value for name, value in settings.items() if value not in (None, "auto")},
    }


def chat_body(model: str, request: Request) -> dict[str, JsonValue]:
    """Return the body of a question."""
    messages = [{"role": turn.role, "content": turn.text} for turn in request.messages]
    return {
        "model": model,
        "messages": messages,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "stop": list(request.stop),
    }


class StrangerBackend:
    """Trains at the example vendor."""

    name: ClassVar[str] = "stranger"
    guarantee: ClassVar[Guarantee] = Guarantee.FINDABLE

    def upload(self, path: Path, sha256: str) -> Upload:
        call("PUT", f"/files/{sha256}", "upload the file", content=path.read_bytes())
        return Upload(sha256, sha256)

    def submit(self, launch: Launch) -> str:
        job_options(launch.job, self.name, StrangerOptions)
        body = call("POST", "/jobs", "create the job", json=create_body(launch))
        job = read(VendorJob, body, "create the job")
        if not job.id:
            raise Unreachable("could not create the job: the response names none")
        return job.id

    def find(self, launch_key: str, folder: Path) -> list[str]:
        del folder
        jobs, start = dict[str, None](), 0
        while True:
            page = read(JobList, call("GET", f"/jobs?start={start}", "list jobs"), "list jobs")
            for job in page.jobs or ():
                if isinstance(job, VendorJob) and job.key == launch_key and job.id:
                    jobs[job.id] = None
            if page.next is None or page.next <= start:
                return list(jobs)
            start = page.next

    def poll(self, job_id: str, cursor: str) -> Status:
        job = read(VendorJob, call("GET", f"/jobs/{job_id}", "read the job"), "read the job")
        created = Event("created", "message", time.time(), {"text": "created"})
        events = [created] + [
            Event(f"step-{step.step}", "step", time.time(), {"step": step.step, "loss": step.loss})
            for step in job.steps or ()
            if isinstance(step, Step)
        ]
        seen = set(cursor.split())
        news = tuple(event for event in events if event.key not in seen)
        state = STATES.get(job.state or "", State.UNKNOWN)
        if state is State.SUCCEEDED and not job.model:
            state = State.UNKNOWN
        return Status(
            state=state,
            raw=job.state or "no state",
            events=news,
            cursor=" ".join(sorted(seen | {event.key for event in events})),
            model=TunedModel(backend=self.name, name=job.model, base="base-words")
            if state is State.SUCCEEDED and job.model
            else None,
            error=job.error or "the vendor gives no reason" if state is State.FAILED else None,
        )

    def cancel(self, job_id: str) -> None:
        call("POST", f"/jobs/{job_id}/cancel", "cancel the job")

    def chat(self, model: str | TunedModel) -> StrangerChatModel:
        return StrangerChatModel(model if isinstance(model, str) else model.name)

    def delete_file(self, ref: str) -> None:
        delete(f"/files/{ref}", "delete the file")

    def delete_model(self, model: TunedModel) -> None:
        delete(f"/models/{model.name}", "delete the model")

    def deploy(self, model: TunedModel, name: str, options: Mapping[str, JsonValue]) -> str:
        if options:
            raise Unsupported("stranger has no options for deployments")
        call("PUT", f"/deployments/{name}", "deploy the model", json={"model": model.name})
        return name

    def find_deployment(self, name: str) -> str | None:
        try:
            call("GET", f"/deployments/{name}", "find the deployment")
        except BackendError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise
        return name

    def deployment_status(self, ref: str, model: TunedModel) -> DeploymentStatus:
        if self.find_deployment(ref) is None:
            return DeploymentStatus("gone", model)
        return DeploymentStatus("ready", model.model_copy(update={"name": ref}))

    def undeploy(self, ref: str) -> None:
        delete(f"/deployments/{ref}", "end the deployment")


def delete(path: str, action: str) -> None:
    """Delete something; what is gone is no error."""
    try:
        call("DELETE", path, action)
    except BackendError as error:
        if error.status != httpx.codes.NOT_FOUND:
            raise


class StrangerChatModel(ChatModel):
    """A model of the example vendor."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fingerprint = f"stranger:{name}"

    async def reply(self, request: Request) -> Reply:
        try:
            body = call("POST", "/chat", "answer", json=chat_body(self.name, request))
            answer = read(Answer, body, "answer")
            return Reply(
                text=answer.text,
                prompt_tokens=answer.input_tokens,
                completion_tokens=answer.output_tokens,
            )
        except (BackendError, ValidationError) as error:
            return Reply(error=str(error), finish_reason="error")
