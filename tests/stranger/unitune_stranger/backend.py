"""Nearest neighbour by shared words: a training keeps the rows, an answer looks them up.

A job is a folder beside the run's data, named by the launch key: ``job.json`` with its options,
``cancelled`` once it is stopped. There is no worker; a job has succeeded when it is looked at,
unless it was told to `hold`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from unitune.backends.protocol import Event, Guarantee, Launch, State, Status, Upload
from unitune.data.example import Example, Message
from unitune.errors import BackendError, JobError, UnknownName
from unitune.models import Reply, Request, TunedModel


class StrangerOptions(BaseModel):
    """What a job may say under ``options: {stranger: …}``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    hold: bool = False
    """Stay at work until the job is cancelled."""


class StrangerBackend:
    """Trains in no time, by keeping the rows."""

    name: ClassVar[str] = "stranger"
    guarantee: ClassVar[Guarantee] = Guarantee.OWN_ID

    def upload(self, path: Path, sha256: str) -> Upload:
        """Leave the file where it is: this backend reads it there."""
        return Upload(str(path), sha256)

    def submit(self, launch: Launch) -> str:
        """Keep the rows under the launch key."""
        try:
            options = StrangerOptions.model_validate(launch.job.options.get(self.name, {}))
        except ValidationError as error:
            raise JobError(f"options.stranger: {error}") from error
        folder = launch.folder / launch.key
        folder.mkdir(exist_ok=True)
        kept = {
            "base": launch.job.base_model,
            "hold": options.hold,
            "sha256": launch.training.sha256,
            "rows": Path(launch.training.ref).read_text(encoding="utf-8"),
        }
        (folder / "job.json").write_text(json.dumps(kept), encoding="utf-8")
        return str(folder)

    def find(self, launch_key: str, folder: Path) -> list[str]:
        """Return the folder of the launch key, if there is one."""
        return [str(folder / launch_key)] if (folder / launch_key / "job.json").exists() else []

    def poll(self, job_id: str, cursor: str) -> Status:
        """Say that the rows are kept."""
        job = _job(job_id)
        done = Event("kept", "message", 0.0, {"rows": len(job["rows"].splitlines())})
        news = () if cursor else (done,)
        if (Path(job_id) / "cancelled").exists():
            return Status(State.CANCELLED, "stopped", news, "1")
        if job["hold"]:
            return Status(State.RUNNING, "holding", news, "1")
        model = TunedModel(
            backend=self.name, name=job_id, base=job["base"], data_fingerprint=job["sha256"]
        )
        return Status(State.SUCCEEDED, "kept", news, "1", model)

    def cancel(self, job_id: str) -> None:
        """Stop holding."""
        _job(job_id)
        (Path(job_id) / "cancelled").touch()

    def chat(self, model: str | TunedModel) -> Neighbour:
        """Return a model that looks answers up; the untuned one knows none."""
        if isinstance(model, str):
            return Neighbour(model, ())
        try:
            rows = _job(model.name)["rows"].splitlines()
        except BackendError as error:
            raise UnknownName("model", model.name, ()) from error
        return Neighbour(model.name, tuple(Example.model_validate_json(row) for row in rows))


class Neighbour:
    """Answers like the row whose prompt shares the most words with the question."""

    def __init__(self, name: str, rows: tuple[Example, ...]) -> None:
        self.fingerprint = f"stranger:{name}"
        self._rows = rows

    async def reply(self, request: Request) -> Reply:
        """Look the question up."""
        asked = _words(request.messages)
        nearest = max(self._rows, key=lambda row: len(asked & _words(row.prompt)), default=None)
        return Reply(text="" if nearest is None else nearest.answer or "")

    def close(self) -> None:
        """Free nothing."""


def _words(messages: tuple[Message, ...]) -> set[str]:
    return {word for message in messages for word in message.text.lower().split()}


def _job(job_id: str) -> dict[str, str]:
    try:
        return json.loads((Path(job_id) / "job.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise BackendError(f"there is no job {job_id!r}.", status=404) from error
