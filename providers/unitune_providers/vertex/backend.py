"""Vertex AI, which Google now calls Gemini Enterprise Agent Platform: tuning of Gemini models.

Built on google-genai (`client.tunings`) and google-cloud-storage. Rows go to a bucket of the
user's; a job carries the launch key as a label, by which it is found again; a tuned model is
deployed by Vertex AI itself and answers at its endpoint. Beside this file: `vertex_cloud` (who
calls and where), `vertex_errors`, `vertex_options` (a job as a create call), `vertex_jobs` (states
and events), `vertex_chat`, `counting` (a question's tokens), `batches` (many questions together),
`vertex_deleting` and `vertex_importing`.

Create calls are never repeated. There are no losses by step: Vertex AI shows them in its console.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

from google.genai import types

from unitune.backends.capabilities import (
    BatchStatus,
    Checkpoint,
    ImportedJob,
    JobDescription,
    JobPage,
)
from unitune.backends.protocol import Guarantee, Launch, Status, Upload
from unitune.errors import BackendError, NotFoundError, Unreachable
from unitune.job.job import Job
from unitune.models import ChatModel, Reply, Request, TunedModel
from unitune_providers.unreadable import readable, reads_answers
from unitune_providers.vertex import batches, counting
from unitune_providers.vertex.chat import VertexChatModel
from unitune_providers.vertex.cloud import Cloud, connect, location_of, upload_folder
from unitune_providers.vertex.deleting import delete_tuned_model
from unitune_providers.vertex.errors import made_before_is_fine, read, vendor_errors
from unitune_providers.vertex.importing import imported
from unitune_providers.vertex.jobs import checkpoints_of, description_of, state_of, status_of
from unitune_providers.vertex.options import LABEL, NAME, tuning_config, vet_job
from unitune_providers.vertex.rest import NOT_FOUND

PAGE_SIZE = 100
BAD_REQUEST = 400


class _JobPage(NamedTuple):
    jobs: list[types.TuningJob]
    next_token: str


@reads_answers
class VertexBackend:
    """Tunes Gemini models at Vertex AI."""

    name: ClassVar[str] = NAME
    guarantee: ClassVar[Guarantee] = Guarantee.FINDABLE

    @cached_property
    def _cloud(self) -> Cloud:
        return connect()

    def validate_options(self, job: Job) -> None:
        """Refuse a job whose options are not valid, or do not go with its method.

        Raises:
            JobError: An option is unknown, or a value not allowed.
        """
        vet_job(job)

    def upload(self, path: Path, sha256: str) -> Upload:
        """Write a file to the bucket under its hash, unless it is there.

        Raises:
            UserError: The environment names no bucket, project, location or credentials.
            BackendError: Cloud Storage refused.
            Unreachable: It gave no answer; the upload can be repeated.
        """
        folder = upload_folder()
        uri = f"gs://{folder.bucket}/{folder.prefix}unitune-{sha256[:32]}.jsonl"
        waits = self._cloud.patience.storage
        with (
            made_before_is_fine(),
            vendor_errors(f"upload {path.name} to {uri}"),
            self._cloud.blob(uri) as blob,
        ):
            if not blob.exists(**waits):
                blob.upload_from_filename(
                    str(path), content_type="application/jsonl", if_generation_match=0, **waits
                )
        return Upload(uri, sha256)

    def submit(self, launch: Launch) -> str:
        """Create the tuning job, with one request that is never repeated.

        Raises:
            JobError: An option is not allowed.
            BackendError: Vertex AI refused.
            Unreachable: It gave no answer; there may be a job, which `find` finds.
        """
        config, client = tuning_config(launch), self._cloud.client()
        doing = "create the tuning job"
        with vendor_errors(doing), readable(self.name, doing):
            job = client.tunings.tune(
                base_model=launch.job.base_model,
                training_dataset=types.TuningDataset(gcs_uri=launch.training.ref),
                config=config,
            )
        if not job.name:
            raise Unreachable("Vertex AI answered the create call without the job's name.")
        return job.name

    def find(self, launch_key: str, folder: Path) -> list[str]:
        """Return the jobs that have the key as their label.

        Args:
            launch_key: As in `Launch.key`.
            folder: Not needed.
        """
        del folder
        # What the service makes of the filter is not documented for tuning jobs, and a job that is
        # overlooked is paid for twice: so labels are compared here, over the whole list if need be.
        found = self._labelled(launch_key, f'labels.{LABEL}="{launch_key}"')
        return found or self._labelled(launch_key, None)

    def describe_job(self, job_id: str) -> JobDescription:
        """Return what is known of a job; see `vertex_jobs`.

        Raises:
            BackendError: There is no such job.
        """
        return description_of(self._job(job_id))

    def poll(self, job_id: str, cursor: str) -> Status:
        """Return the state and what happened since the cursor.

        Raises:
            BackendError: There is no such job, or Vertex AI refused.
            Unreachable: It gave no answer.
        """
        return status_of(self._job(job_id), cursor)

    def cancel(self, job_id: str) -> None:
        """Ask for the end of a job.

        Raises:
            BackendError: There is no such job, or it has ended.
            Unreachable: Vertex AI gave no answer.
        """
        name = _resource(job_id)
        client = self._cloud.client(location_of(name))
        with vendor_errors(f"cancel {job_id}"):
            client.tunings.cancel(name=name)

    def chat(self, model: str | TunedModel) -> ChatModel:
        """Return a model to ask: a published model by its name, or a tuned model's endpoint.

        Untuned models are asked in ``UNITUNE_VERTEX_BASE_LOCATION`` when that is set, since some
        are served only globally while trainings run in a region.
        """
        place = self._place(model)
        if isinstance(model, TunedModel):
            return VertexChatModel(self._cloud, model.name, model.base, place)
        return VertexChatModel(self._cloud, model, model, place)

    def count_tokens(self, model: str | TunedModel, request: Request) -> int:
        """Return Google's own count of a request's input; see `counting.count`."""
        name = model.name if isinstance(model, TunedModel) else model
        return counting.count(self._cloud, name, self._place(model), request)

    def submit_batch(
        self, key: str, model: str | TunedModel, requests: Mapping[str, Request]
    ) -> str:
        """Create a batch job, with one request that is never repeated.

        Raises:
            Unsupported: The model, a request or their number; no job was created.
            BackendError: Google Cloud refused.
            Unreachable: It gave no answer; there may be a job, which `find_batch` finds.
        """
        return batches.submit(self._cloud, key, model, requests)

    def find_batch(self, key: str, since: float) -> list[str]:
        """Return the batch jobs that have the key as their name.

        Args:
            key: As `submit_batch` was given it.
            since: Not needed.
        """
        del since
        return batches.find(self._cloud, key)

    def poll_batch(self, batch_id: str) -> BatchStatus:
        """Return how a batch job stands; see `batches.poll`."""
        return batches.poll(self._cloud, batch_id)

    def fetch_batch(self, batch_id: str) -> Mapping[str, Reply]:
        """Return the answers of a batch job that has ended; see `batches.fetch`."""
        return batches.fetch(self._cloud, batch_id)

    def cancel_batch(self, batch_id: str) -> None:
        """Ask for the end of a batch job; one that has ended is no error."""
        batches.cancel(self._cloud, batch_id)

    def list_jobs(self, cursor: str) -> JobPage:
        """Return one page of jobs with their states.

        Args:
            cursor: Of the page before; empty for the first.
        """
        page = self._page(None, cursor)
        return JobPage({job.name: state_of(job) for job in page.jobs if job.name}, page.next_token)

    def checkpoints(self, job_id: str, base: str) -> Sequence[Checkpoint]:
        """Return a job's checkpoints, each with an endpoint of its own; see `vertex_jobs`."""
        return checkpoints_of(self._job(job_id), base)

    def import_job(self, job_id: str) -> ImportedJob:
        """Return an existing job with its files.

        Raises:
            NotFoundError: There is no such job.
            Unsupported: It was tuned by a method that is not ours.
        """
        try:
            job = self._job(job_id)
        except BackendError as error:
            if error.status != NOT_FOUND:
                raise
            raise NotFoundError("tuning job", job_id, (), hint=str(error)) from error
        return imported(job, self._content)

    def delete_file(self, ref: str) -> None:
        """Remove an uploaded file; one that is gone is no error.

        Raises:
            BackendError: Cloud Storage refused.
        """
        try:
            with vendor_errors(f"delete {ref}"), self._cloud.blob(ref) as blob:
                blob.delete(**self._cloud.patience.storage)
        except BackendError as error:
            if error.status != NOT_FOUND:
                raise

    def delete_model(self, model: TunedModel) -> None:
        """Remove a tuned model and its endpoints; one that is gone is no error.

        Raises:
            BackendError: Vertex AI refused.
        """
        delete_tuned_model(self._cloud, model.name)

    def _place(self, model: str | TunedModel) -> str:
        """Return the location where a model is asked."""
        if isinstance(model, TunedModel):
            return location_of(model.name) or self._cloud.location
        chosen = os.environ.get("UNITUNE_VERTEX_BASE_LOCATION")
        return location_of(model) or chosen or self._cloud.location

    def _job(self, job_id: str) -> types.TuningJob:
        name = _resource(job_id)
        client = self._cloud.client(location_of(name))
        config = types.GetTuningJobConfig(http_options=self._cloud.patience.retries)
        return read(f"read job {job_id}", lambda: client.tunings.get(name=name, config=config))

    def _content(self, uri: str) -> bytes | None:
        try:
            with vendor_errors(f"read {uri}"), self._cloud.blob(uri) as blob:
                content = blob.download_as_bytes(**self._cloud.patience.storage)
        except BackendError as error:
            if error.status != NOT_FOUND:
                raise
            return None
        if not content:
            # A connection that is cut in the answer's head looks like an empty object.
            raise Unreachable(f"Cloud Storage gave no content of {uri}. Try again.")
        return content

    def _labelled(self, launch_key: str, query: str | None) -> list[str]:
        """Return the jobs with the key, in the list that a filter leaves; none if it is refused."""
        found: dict[str, None] = {}
        try:
            for job in self._jobs(query):
                if job.name and (job.labels or {}).get(LABEL) == launch_key:
                    found[job.name] = None
        except BackendError as error:
            if query is None or error.status != BAD_REQUEST:
                raise
        return list(found)

    def _jobs(self, query: str | None) -> Iterator[types.TuningJob]:
        token, seen = "", {""}
        while True:
            page = self._page(query, token)
            yield from page.jobs
            token = page.next_token
            if token in seen:
                return
            seen.add(token)

    def _page(self, query: str | None, token: str) -> _JobPage:
        config = types.ListTuningJobsConfig(
            filter=query,
            page_size=PAGE_SIZE,
            page_token=token or None,
            http_options=self._cloud.patience.retries,
        )
        client = self._cloud.client()
        pager = read("list tuning jobs", lambda: client.tunings.list(config=config))
        return _JobPage(pager.page, str(pager.config.get("page_token") or ""))


def _resource(job_id: str) -> str:
    """The resource of a job: its full name, or the last part of one in the location in use."""
    return job_id if job_id.startswith("projects/") else f"tuningJobs/{job_id.rpartition('/')[2]}"
