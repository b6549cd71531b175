"""The backend's verbs on OpenAI's wire; each vendor's backend says what differs at its own.

Files are named by their hash and found by name. A job carries its launch key as metadata or suffix,
and is found by reading the whole list and comparing, so nothing depends on a server's filter. No
verb keeps state: ids of another server than the vendor's own carry its address.

What is not here: addresses, keys and what each vendor can do (`unitune_providers.openai.backend`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import ClassVar, cast

from openai import omit
from openai.types.fine_tuning import JobCreateParams

from unitune.backends.capabilities import Checkpoint, ImportedJob, JobDescription, JobPage
from unitune.backends.launch_keys import launch_key_in
from unitune.backends.protocol import Guarantee, Launch, State, Status, Upload
from unitune.errors import BackendError, NotFoundError, Unsupported
from unitune.job.job import Job
from unitune.models import ChatModel, TunedModel
from unitune.security.json_fields import Fields
from unitune_providers.openai import files
from unitune_providers.openai.importing import imported
from unitune_providers.openai.request import CreateCall
from unitune_providers.openai.server import (
    PAGE,
    Server,
    chat_model,
    client,
    everything,
    fields_of,
    id_of,
    key_of,
    once,
    split,
)
from unitune_providers.openai.status import state_of, status_of
from unitune_providers.unreadable import readable

CREATE_SECONDS = 60.0
"""Longest wait for the answer to a create call; after that its outcome is open."""
METADATA_KEY = "unitune"
NOT_FOUND = 404


class WireBackend(ABC):
    """Verbs and abilities that every vendor on this wire has."""

    name: ClassVar[str]
    guarantee: ClassVar[Guarantee]
    old_limit: ClassVar[bool] = False
    """Whether chat takes `max_tokens` alone."""

    @abstractmethod
    def server(self, url: str | None = None) -> Server:
        """Return the vendor's own server, or another that a job named.

        Args:
            url: Address that an id carries; None for the vendor's own.

        Raises:
            UserError: A key or address is missing in the environment.
        """
        ...

    @abstractmethod
    def request(self, launch: Launch) -> CreateCall:
        """Return what a create call says beside model and files.

        Args:
            launch: What to create.

        Raises:
            JobError: Options are not valid, or do not go with the method.
        """
        ...

    @abstractmethod
    def validate_options(self, job: Job) -> None:
        """Refuse a job whose options are not valid, or do not go with its method.

        Raises:
            JobError: An option is unknown, missing, or a value not allowed.
        """
        ...

    def filters(self, server: Server) -> bool:
        """Whether a server's list of jobs can be asked for one launch key.

        Args:
            server: The vendor's own, or another that a job named.
        """
        del server
        return False

    def address_near(self, folder: Path) -> str | None:
        """Return the server that the job of a run's folder names; None for the vendor's own.

        Args:
            folder: The run's folder, or one in it.
        """
        del folder  # only a backend whose jobs may name one looks

    def upload(self, path: Path, sha256: str) -> Upload:
        """Hand a file over, unless one with its hash is there.

        Raises:
            BackendError: The vendor refused, or failed.
            DataError: It looked through the file and cannot use it.
        """
        server = self.server(self.address_near(path.parent))
        return Upload(server.mark(files.hand_over(server, path, sha256)), sha256)

    def submit(self, launch: Launch) -> str:
        """Create the job; sent once, whatever happens.

        Raises:
            JobError: Options are not valid.
            BackendError: The vendor refused (4xx), or failed and may have created it (5xx).
            Unreachable: No answer came; it may have created it.
        """
        call = self.request(launch)
        training = split(launch.training.ref)
        server = self.server(training.url)
        params = {
            "model": launch.job.base_model,
            "training_file": training.ref,
            **({"validation_file": split(launch.validation.ref).ref} if launch.validation else {}),
            **call.params,
        }
        doing = "create the fine-tuning job"
        with server.errors(doing), readable(server.backend, doing):
            jobs = once(server, CREATE_SECONDS).fine_tuning.jobs.with_raw_response
            made = jobs.create(**cast("JobCreateParams", params), extra_body=call.extra)
            return server.mark(id_of(made))

    def find(self, launch_key: str, folder: Path) -> list[str]:
        """Return the jobs that carry a launch key as metadata or suffix.

        Raises:
            BackendError: The vendor could not list its jobs.
        """
        server = self.server(self.address_near(folder))
        wanted = launch_key if self.filters(server) else None
        listed = _jobs(server, wanted)
        found = [job.text("id") for job in listed if launch_key in _keys(job)]
        return [server.mark(job_id) for job_id in found if job_id]

    def shows_launch_keys(self, server: Server) -> bool:
        """Return whether a server's list shows the launch key of any job of ours.

        Raises:
            BackendError: It could not list its jobs.
        """
        return any(launch_key_in(str(key)) for job in _jobs(server, None) for key in _keys(job))

    def describe_job(self, job_id: str) -> JobDescription:
        """Return what is known of a job.

        Raises:
            BackendError: There is no such job (404), or the vendor failed.
        """
        at = split(job_id)
        server = self.server(at.url)
        with server.errors(f"show job {at.ref}"):
            job = _shown(server, at.ref)
        keys = " ".join(key for key in _keys(job) if key)
        training = job.text("training_file")
        return JobDescription(keys or None, job.text("model"), training and server.mark(training))

    def poll(self, job_id: str, cursor: str) -> Status:
        """Look at a job and at what happened since the cursor.

        Raises:
            BackendError: There is no such job (404), or the vendor failed.
        """
        at = split(job_id)
        server = self.server(at.url)
        with server.errors(f"show job {at.ref}"):
            # The job first: events that come after it are seen by the next poll.
            job = _shown(server, at.ref)
            events = list(_events_after(server, at.ref, cursor))
            return status_of(job, events, cursor, self._model_of(server, at.ref, job))

    def cancel(self, job_id: str) -> None:
        """Ask for a job's end.

        Raises:
            BackendError: There is no such job (404), or it has ended already.
        """
        at = split(job_id)
        server = self.server(at.url)
        with server.errors(f"cancel job {at.ref}"):
            client(server).fine_tuning.jobs.cancel(at.ref)

    def chat(self, model: str | TunedModel) -> ChatModel:
        """Return a model to ask; whether it exists shows when it is asked.

        Raises:
            UserError: There is no key.
        """
        at = split(model if isinstance(model, str) else model.name)
        server = self.server(at.url)
        return chat_model(server, at.ref, old_limit=self.old_limit or server.named)

    def list_jobs(self, cursor: str) -> JobPage:
        """Return one page of the vendor's own jobs, the newest first.

        Raises:
            BackendError: The vendor could not list its jobs.
        """
        server = self.server()
        with server.errors("list fine-tuning jobs"):
            jobs = client(server).fine_tuning.jobs.with_raw_response
            page = fields_of(jobs.list(after=cursor or omit, limit=PAGE))
        states = {name: state_of(job) for job in page.items("data") if (name := job.text("id"))}
        return JobPage(states, list(states)[-1] if states and page.all.get("has_more") else "")

    def delete_file(self, ref: str) -> None:
        """Remove an uploaded file; one that is gone is no error.

        Raises:
            BackendError: It could not be removed.
        """
        at = split(ref)
        files.remove(self.server(at.url), at.ref)

    def delete_model(self, model: TunedModel) -> None:
        """Say that the vendor has no call for it.

        Raises:
            Unsupported: Always.
        """
        raise Unsupported(
            f"{self.name} has no call that deletes a tuned model. Delete {model.name} in the "
            "vendor's console."
        )

    def checkpoints(self, job_id: str, base: str) -> list[Checkpoint]:
        """Return the checkpoints of a job, oldest first.

        Raises:
            BackendError: There is no such job (404), or the vendor failed.
        """
        at = split(job_id)
        server = self.server(at.url)
        with server.errors(f"list checkpoints of job {at.ref}"):
            saved = client(server).fine_tuning.jobs.checkpoints.with_raw_response
            listed = list(
                everything(lambda after: saved.list(at.ref, after=after or omit, limit=PAGE))
            )
        found = [
            Checkpoint(
                one.whole("step_number") or 0,
                self._tuned(server, name, base),
                {**one.fields("metrics").all},
            )
            for one in listed
            if (name := self.checkpoint_name(at.ref, one))
        ]
        return sorted(found, key=lambda checkpoint: checkpoint.step)

    def checkpoint_name(self, job_id: str, checkpoint: Fields) -> str | None:
        """Return how a checkpoint is called where it is asked or deployed.

        Args:
            job_id: Of its job.
            checkpoint: As the vendor tells it.
        """
        del job_id  # it is in some vendors' names
        return checkpoint.text("fine_tuned_model_checkpoint")

    def import_job(self, job_id: str) -> ImportedJob:
        """Return an existing job with its files.

        Raises:
            NotFoundError: There is no such job.
            BackendError: The vendor failed.
        """
        at = split(job_id)
        server = self.server(at.url)
        try:
            with server.errors(f"show job {at.ref}"):
                job = _shown(server, at.ref)
                model = self._model_of(server, at.ref, job)
        except BackendError as error:
            if error.status != NOT_FOUND:
                raise
            raise NotFoundError("job", job_id, (), hint=str(error)) from error
        both = (job.text("training_file"), job.text("validation_file"))
        names = [name for name in both if name]
        return imported(job, {name: files.content(server, name) for name in names}, model)

    def _tuned(self, server: Server, name: str, base: str) -> TunedModel:
        return TunedModel(backend=self.name, name=server.mark(name), base=base)

    def _model_of(self, server: Server, job_id: str, job: Fields) -> TunedModel | None:
        """Return what a job left behind; where it names no model, its last checkpoint."""
        if state_of(job) is not State.SUCCEEDED:
            return None
        base = job.text("model") or ""
        if name := job.text("fine_tuned_model"):
            return self._tuned(server, name, base)
        saved = self.checkpoints(server.mark(job_id), base)
        return saved[-1].model if saved else None


class PausingWire(WireBackend):
    """A vendor whose jobs can stop and go on."""

    def pause(self, job_id: str) -> None:
        """Ask a job to stop for now.

        Raises:
            BackendError: There is no such job (404), or it has ended.
        """
        at = split(job_id)
        server = self.server(at.url)
        with server.errors(f"pause job {at.ref}"):
            client(server).fine_tuning.jobs.pause(at.ref)

    def resume(self, job_id: str) -> None:
        """Let a paused job go on.

        Raises:
            BackendError: There is no such job (404), or it is not paused.
        """
        at = split(job_id)
        server = self.server(at.url)
        with server.errors(f"resume job {at.ref}"):
            client(server).fine_tuning.jobs.resume(at.ref)


def _shown(server: Server, job_id: str) -> Fields:
    return fields_of(client(server).fine_tuning.jobs.with_raw_response.retrieve(job_id))


def _jobs(server: Server, launch_key: str | None) -> Iterator[Fields]:
    """Yield the jobs of a server, those with a launch key alone where it filters by metadata.

    Raises:
        BackendError: It could not list them.
    """
    wanted = omit if launch_key is None else {METADATA_KEY: launch_key}
    jobs = client(server).fine_tuning.jobs.with_raw_response
    with server.errors("list fine-tuning jobs"):
        yield from everything(
            lambda after: jobs.list(after=after or omit, limit=PAGE, metadata=wanted)
        )


def _keys(job: Fields) -> Iterator[str | None]:
    """Yield everything in a job that may be its launch key."""
    yield job.fields("metadata").text(METADATA_KEY)
    yield job.text("user_provided_suffix")  # OpenAI's and Azure's name of it
    yield job.text("suffix")  # Nebius'


def _events_after(server: Server, job_id: str, cursor: str) -> Iterator[Fields]:
    """Yield a job's events, the newest first, down to the cursor."""
    jobs = client(server).fine_tuning.jobs.with_raw_response
    listed = everything(lambda after: jobs.list_events(job_id, after=after or omit, limit=PAGE))
    return takewhile(lambda event: key_of(event) != cursor, listed)
