"""Implement the methods of backends with OpenAI's API; subclasses define what differs.

Files are named by their hash and found by name. A job has its launch key as metadata or suffix and
is found by comparing the whole list, without relying on a server's filter. If a job names another
server than the vendor's own, ids include its address (``ftjob-1@https://example.com/v1``), because
methods only get ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import takewhile
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal

from pydantic import JsonValue

from unitune.backends.capabilities import Checkpoint, ImportedJob, JobDescription, JobPage
from unitune.backends.credentials import allowed_variables, not_allowed
from unitune.backends.kit.api import Api, Query, by_last_id, created_id, item_key, multipart
from unitune.backends.kit.chat_completions import Dialect, LimitName
from unitune.backends.kit.errors import Endpoint
from unitune.backends.kit.hosted import HostedBackend, content_name, wait_for_file, without_none
from unitune.backends.protocol import Launch, State, Status, Upload
from unitune.errors import DataError, JobError, NotFoundError, Unsupported, UserError
from unitune.job.job import Job
from unitune.models import ChatModel, TunedModel
from unitune.security.json_fields import Fields
from unitune.workspace.progress import counted_file
from unitune_providers.openai.jobs import (
    METADATA_KEY,
    STATES,
    error_of,
    events_of,
    hyperparameters_of,
    imported,
    launch_keys,
)
from unitune_providers.openai.options import Body, Options

JOBS = ("fine_tuning", "jobs")
BEING_VALIDATED = ("pending", "running")  # Azure's states of a file that is not ready
MARKED = re.compile(r"^(?P<name>.+?)@(?P<url>https?://\S+)$")


class Server(Api):
    """A server with this API; if a job `named` it, ids include its address."""

    page: ClassVar[int] = 100
    """Items per page."""
    files_page: ClassVar[int] = 1000

    def __init__(self, endpoint: Endpoint, *, named: bool = False) -> None:
        super().__init__(endpoint)
        self.named = named

    def mark(self, name: str) -> str:
        """Return an id for the ledger."""
        return f"{name}@{self.endpoint.url}" if self.named else name

    def listed(self, *path: str, action: str, query: Query | None = None) -> Iterator[Fields]:
        """Yield the items of a list, page by page."""
        query = {"limit": self.page, **(query or {})}
        return self.pages(*path, action=action, next_page=by_last_id(), query=query)

    def jobs(self, query: Query | None = None) -> Iterator[Fields]:
        """Yield the fine-tuning jobs."""
        return self.listed(*JOBS, action="list fine-tuning jobs", query=query)

    def job(self, name: str) -> Fields:
        """Return a fine-tuning job."""
        return self.get(*JOBS, name, action=f"show job {name}")

    def upload_once(
        self, name: str, content: BinaryIO, purpose: Literal["fine-tune", "batch"]
    ) -> str:
        """Return a file's id; upload it unless name and size exist. `DataError` if refused."""
        size = content.seek(0, SEEK_END)
        content.seek(0)
        if (file := self._uploaded(name, size, purpose)) is None:
            action, form = f"accept file {name}", {"purpose": purpose}
            sent = multipart(name, content)
            file = self.request("POST", "files", action=action, data=form, **sent).fields
        file_id = created_id(file, self.endpoint)
        if not self._is_validated(file):
            action, what = f"show file {file_id}", f"{self.endpoint.vendor.name}: file {file_id}"
            wait_for_file(
                lambda: self._is_validated(self.get("files", file_id, action=action)), what
            )
        return file_id

    def _uploaded(self, name: str, size: int, purpose: str) -> Fields | None:
        """Return the file of this name; one of another size was cut short."""
        query: Query = {"purpose": purpose, "limit": self.files_page}
        files = self.listed("files", action=f"look for file {name}", query=query)
        same = (
            file
            for file in files
            if (file.text("filename"), file.whole("bytes")) == (name, size)
            if file.text("id") and file.text("status") != "error"
        )
        return next(same, None)

    def _is_validated(self, file: Fields) -> bool:
        if file.text("status") == "error":
            reason = file.text("status_details") or "no reason given"
            name = file.text("filename") or file.text("id")
            raise DataError(f"{self.endpoint.vendor.name} cannot use file {name}: {reason}")
        return file.text("status") not in BEING_VALIDATED


class WireBackend(HostedBackend[Options]):
    """Methods of all backends with this API."""

    capabilities = ("DescribesJobs", "ListsJobs", "Deletes", "Imports", "Checkpoints")

    chat_path = ""
    states: ClassVar[Mapping[str, State]] = STATES
    # First name of the output limit in chat: OpenAI has deprecated `max_tokens`, but other servers
    # support only that
    limit_name: ClassVar[LimitName] = "max_completion_tokens"

    def settings(self, job: Job) -> Body:
        """Return the settings of a create call, without model and files, or raise `JobError`."""
        raise NotImplementedError

    def key_fields(self, launch: Launch, server: Server) -> Body:
        """Return the fields of a create call with the launch key."""
        del server
        return {"suffix": launch.job.name, "metadata": {METADATA_KEY: launch.key}}

    def filters(self, server: Server) -> bool:
        """Return whether a server's list of jobs can be filtered by launch key."""
        del server
        return False

    def address_near(self, folder: Path) -> str | None:
        """Return the server named by the job in a run's folder; None for the vendor's own."""
        del folder

    def checkpoint_name(self, job_id: str, checkpoint: Fields) -> str | None:
        """Return the name of a checkpoint for requests or deployments."""
        del job_id
        return checkpoint.text("fine_tuned_model_checkpoint")

    def server(self, url: str | None = None) -> Server:
        """Return the vendor's server, or one named in a job; raise `UserError` without a key."""
        if url is None:
            return Server(self.endpoint())
        return Server(self.endpoint_at(url.rstrip("/"), self.variable_for(url)), named=True)

    def variable_for(self, url: str) -> str:
        """Return the first allowed key variable for an address in a job, or raise `UserError`."""
        if not (allowed := allowed_variables(url)):
            raise UserError(not_allowed(None, url, f"another server than {self.name}'s"))
        return allowed[0]

    def job_options(self, job: Job) -> Options:
        """Return a job's options; also refuse keys of another method."""
        options = super().job_options(job)
        for key in options.model_fields_set:
            method = options.only_for.get(key, job.method)
            if method != job.method:
                raise JobError(
                    f"options.{self.name}.{key} is for method {method}, but the job's method is "
                    f"{job.method}. Remove it or change the method."
                )
        return options

    def validate_options(self, job: Job) -> None:
        self.settings(job)

    def upload(self, path: Path, sha256: str) -> Upload:
        server = self.server(self.address_near(path.parent))
        with path.open("rb") as file:
            content = counted_file(file, f"uploading {path.name}")
            name = server.upload_once(f"{content_name(sha256)}.jsonl", content, "fine-tune")
        return Upload(server.mark(name), sha256)

    def submit(self, launch: Launch) -> str:
        server, training = self._at(launch.training.ref)
        body: dict[str, JsonValue] = {
            "model": self._base_of(launch, server),
            "training_file": training,
            "validation_file": self._at(launch.validation.ref)[1] if launch.validation else None,
            **self.settings(launch.job),
            **self.key_fields(launch, server),
        }
        created = server.post(*JOBS, action="create the fine-tuning job", body=without_none(body))
        return server.mark(created_id(created, server.endpoint))

    def find(self, launch_key: str, folder: Path) -> list[str]:
        """Return the jobs with a launch key as metadata or suffix."""
        server = self.server(self.address_near(folder))
        query = {f"metadata[{METADATA_KEY}]": launch_key} if self.filters(server) else None
        names = [job.text("id") for job in server.jobs(query) if launch_key in launch_keys(job)]
        return [server.mark(name) for name in names if name]

    def describe_job(self, job_id: str) -> JobDescription:
        server, name = self._at(job_id)
        job = server.job(name)
        training = job.text("training_file")
        keys = " ".join(launch_keys(job)) or None
        return JobDescription(keys, job.text("model"), training and server.mark(training))

    def poll(self, job_id: str, cursor: str) -> Status:
        """Return the status of a job; the cursor is the newest event of the previous poll."""
        server, name = self._at(job_id)
        # The job first: the next poll sees later events.
        job = server.job(name)
        newest_first = server.listed(*JOBS, name, "events", action=f"list events of job {name}")
        new = list(takewhile(lambda event: item_key(event) != cursor, newest_first))
        model = self._model_of(server, name, job)
        return replace(
            self.status(job.text("status"), (), "", model, error_of(job)),
            events=tuple(ours for event in reversed(new) for ours in events_of(event)),
            cursor=item_key(new[0]) if new else cursor,
            billed_tokens=job.whole("trained_tokens"),
            epochs=hyperparameters_of(job).whole("n_epochs"),
        )

    def cancel(self, job_id: str) -> None:
        self._tell(job_id, "cancel")

    def chat(self, model: str | TunedModel) -> ChatModel:
        from unitune.backends.kit.chat import ChatCompletions  # noqa: PLC0415 - loads aiohttp

        ref = model if isinstance(model, str) else model.name
        server, name = self._at(ref)
        return ChatCompletions(
            server.endpoint, name, fingerprint=f"{self.name}:{ref}", dialect=self.dialect(ref)
        )

    def dialect(self, model: str) -> Dialect:
        server, name = self._at(model)
        return _dialect(
            server.endpoint.url, name, "max_tokens" if server.named else self.limit_name
        )

    def list_jobs(self, cursor: str) -> JobPage:
        query: Query = {"limit": Server.page, **({"after": cursor} if cursor else {})}
        page = self.server().get(*JOBS, action="list fine-tuning jobs", query=query)
        jobs = {name: job for job in page.items("data") if (name := job.text("id"))}
        states = {name: self.state_of(job.text("status")) for name, job in jobs.items()}
        return JobPage(states, list(states)[-1] if states and page.all.get("has_more") else "")

    def delete_file(self, ref: str) -> None:
        server, name = self._at(ref)
        server.delete("files", name, action=f"delete file {name}")

    def delete_model(self, model: TunedModel) -> None:
        raise Unsupported(
            f"{self.name} cannot delete a tuned model through its API. Delete {model.name} in the "
            "vendor's console."
        )

    def checkpoints(self, job_id: str, base: str) -> list[Checkpoint]:
        server, name = self._at(job_id)
        action = f"list checkpoints of job {name}"
        checkpoints = [
            Checkpoint(
                saved.whole("step_number") or 0,
                self._tuned(server, model, base),
                {**saved.fields("metrics").all},
            )
            for saved in server.listed(*JOBS, name, "checkpoints", action=action)
            if (model := self.checkpoint_name(name, saved))
        ]
        return sorted(checkpoints, key=lambda checkpoint: checkpoint.step)

    def import_job(self, job_id: str) -> ImportedJob:
        server, name = self._at(job_id)
        if (job := server.find(*JOBS, name, action=f"show job {name}")) is None:
            raise NotFoundError("job", job_id, (), hint=f"{self.name} has no job with this id.")
        files = [job.text("training_file"), job.text("validation_file")]
        contents = {
            file: server.find_content("files", file, "content", action=f"send file {file}")
            for file in files
            if file
        }
        return imported(job, contents, self._model_of(server, name, job))

    def _at(self, ref: str) -> tuple[Server, str]:
        match = MARKED.match(ref)
        return (self.server(match["url"]), match["name"]) if match else (self.server(), ref)

    def _base_of(self, launch: Launch, server: Server) -> str:
        if launch.start is None:
            return launch.job.base_model
        name = launch.start.model.name
        match = MARKED.match(name)
        if (match["url"] if match else None) != (server.endpoint.url if server.named else None):
            raise JobError(
                f"start is {name}, but the job is sent to {server.endpoint.url}, which cannot "
                "continue from a model on another server."
            )
        return match["name"] if match else name

    def _tell(self, job_id: str, verb: str) -> None:
        server, name = self._at(job_id)
        server.post(*JOBS, name, verb, action=f"{verb} job {name}")

    def _tuned(self, server: Server, name: str, base: str) -> TunedModel:
        return TunedModel(backend=self.name, name=server.mark(name), base=base)

    def _model_of(self, server: Server, job_id: str, job: Fields) -> TunedModel | None:
        if self.state_of(job.text("status")) is not State.SUCCEEDED:
            return None
        base = job.text("model") or ""
        if name := job.text("fine_tuned_model"):
            return self._tuned(server, name, base)
        saved = self.checkpoints(server.mark(job_id), base)
        return saved[-1].model if saved else None


class PausingBackend(WireBackend[Options]):
    """A vendor that can pause and resume jobs."""

    capabilities = ("Pauses",)

    def pause(self, job_id: str) -> None:
        self._tell(job_id, "pause")

    def resume(self, job_id: str) -> None:
        self._tell(job_id, "resume")


@lru_cache(maxsize=256)
def _dialect(url: str, model: str, limit: LimitName) -> Dialect:
    del url, model
    return Dialect(limit)
