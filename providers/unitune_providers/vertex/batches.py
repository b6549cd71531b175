"""Many questions to Gemini together: batch jobs over a file of rows, at half the price.

Rows (`batch_rows`) go to the bucket that training files go to, and answers are written beside them.
A job is found by its display name, which is the key.

Tuned models are asked by their model resource, where an endpoint is what `chat` asks; the endpoint
is asked which model it answers with. A batch knows no checkpoints, so an endpoint that answers with
another than the model's default is refused.

Source: docs.cloud.google.com/gemini-enterprise-agent-platform, models/capabilities/batch-inference
(tuned models, waiting, what is cancelled) and batch-prediction-from-cloud-storage (names of
models); reference/rest/v1beta1, projects.locations.batchPredictionJobs/list (filter);
BerriAI/litellm pull request 39668 (an endpoint's model); read 2026-11-25.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from google.genai import types

from unitune.backends.capabilities import BatchStatus
from unitune.errors import BackendError, Unreachable, Unsupported
from unitune.models import Reply, Request, TunedModel
from unitune_providers.unreadable import readable
from unitune_providers.vertex.batch_rows import read_row, write_rows
from unitune_providers.vertex.cloud import Cloud, Folder, location_of, upload_folder
from unitune_providers.vertex.errors import made_before_is_fine, read, safe, vendor_errors
from unitune_providers.vertex.rest import NOT_FOUND, Rest

PAGE_SIZE = 100
JOB = re.compile(r"projects/[^/]+/locations/[^/]+/batchPredictionJobs/[^/]+")
BAD_REQUEST = 400
ENDED = {
    "JOB_STATE_SUCCEEDED",
    "JOB_STATE_PARTIALLY_SUCCEEDED",
    "JOB_STATE_CANCELLED",
}
"""What was answered until then was written; any other word but FAILED and EXPIRED is running."""
EXPIRED = (
    "Vertex AI did not come to it within 72 hours, for want of capacity. Ask again later or in "
    "another location, or run without --batch."
)


class _Target(NamedTuple):
    """What a batch asks: the model's name for Vertex AI, its base and where it is asked."""

    model: str
    base: str
    location: str


def submit(cloud: Cloud, key: str, model: str | TunedModel, requests: Mapping[str, Request]) -> str:
    """Write the rows, create the job with one request that is never repeated, and return its name.

    Raises:
        Unsupported: The model, a request or their number; no job was created.
        BackendError: Google Cloud refused.
        Unreachable: It gave no answer; there may be a job, which `find` finds.
    """
    target = _target(cloud, model)
    content = write_rows(requests, target.base)
    folder = upload_folder()
    digest = hashlib.sha256(content).hexdigest()[:16]
    rows = _uri(folder, f"unitune-batch-{key}-{digest}.jsonl")
    _write(cloud, rows, content)
    config = types.CreateBatchJobConfig(
        display_name=key, dest=_uri(folder, f"unitune-batch-{key}-{digest}")
    )
    client = cloud.client(target.location)
    with vendor_errors("create the batch"), readable("vertex", "create the batch"):
        job = client.batches.create(model=target.model, src=rows, config=config)
    if not job.name:
        raise Unreachable("Vertex AI answered the create call without the batch's name.")
    return job.name


def find(cloud: Cloud, key: str) -> list[str]:
    """Return the jobs whose display name is the key, wherever a batch is created.

    Should the service make something else of the filter than is documented, a job that is
    overlooked would be paid for twice: so names are compared here, over the whole list if need be.
    """
    places = _places(cloud)
    found = [job for place in places for job in _named(cloud, place, key, f'display_name="{key}"')]
    return found or [job for place in places for job in _named(cloud, place, key, None)]


def poll(cloud: Cloud, batch_id: str) -> BatchStatus:
    """Return how a job stands; a word that is not known here is running.

    Raises:
        BackendError: There is no such job, or Vertex AI refused.
        Unreachable: It gave no answer.
    """
    return status_of(_job(cloud, batch_id))


def status_of(job: types.BatchJob) -> BatchStatus:
    """Return a job's state in our words."""
    word = str(job.state.value) if job.state else "JOB_STATE_UNSPECIFIED"
    counted = job.completion_stats
    done = (counted.successful_count or 0) + (counted.failed_count or 0) if counted else None
    if word in ENDED or (word == "JOB_STATE_EXPIRED" and _written(job)):
        return BatchStatus("ended", word, done)
    if word == "JOB_STATE_EXPIRED":
        return BatchStatus("failed", word, done, EXPIRED)
    if word == "JOB_STATE_FAILED":
        said = safe(job.error.message or "") if job.error else ""
        return BatchStatus("failed", word, done, said or "Vertex AI gives no reason")
    return BatchStatus("running", word, done)


def fetch(cloud: Cloud, batch_id: str) -> dict[str, Reply]:
    """Return the answers of a job that has ended; one that was cancelled has only some.

    Raises:
        BackendError: The job goes on or failed, or its rows cannot be told apart.
        Unreachable: Cloud Storage gave no answer, or not the whole of it.
    """
    job = _job(cloud, batch_id)
    status = status_of(job)
    if status.state != "ended":
        why = f" ({status.error})" if status.error else ""
        raise BackendError(f"Batch {batch_id} has no answers: it is {status.raw}{why}.")
    folder = _written(job)
    if not folder:
        return {}
    replies: dict[str, Reply] = {}
    for content in _files(cloud, folder):
        for line in content.splitlines():
            name, reply = read_row(line, folder)
            # Vertex AI tries a row again; what was answered counts.
            if name not in replies or replies[name].error:
                replies[name] = reply
    return replies


def cancel(cloud: Cloud, batch_id: str) -> None:
    """Ask for the end of a job; one that has ended is no error.

    Raises:
        BackendError: There is no such job, or Vertex AI refused.
        Unreachable: It gave no answer.
    """
    name = _resource(batch_id)
    client = cloud.client(location_of(name))
    try:
        with vendor_errors(f"cancel {batch_id}"):
            client.batches.cancel(name=name)
    except BackendError as error:
        if error.status != BAD_REQUEST or poll(cloud, batch_id).state == "running":
            raise


# What is asked


def _target(cloud: Cloud, model: str | TunedModel) -> _Target:
    name = model.name if isinstance(model, TunedModel) else model
    base = model.base if isinstance(model, TunedModel) else model
    asked = os.environ.get("UNITUNE_VERTEX_BASE_LOCATION") if name == base else None
    place = location_of(name) or asked or cloud.location
    if place not in _places(cloud):
        raise Unsupported(
            f"{name} is in {place}, where its batch would not be found again after a failure: "
            f"GOOGLE_CLOUD_LOCATION is {cloud.location}. Set it to {place}, or run without --batch."
        )
    if "/endpoints/" not in name:
        return _Target(name, base, place)
    with readable("vertex", f"describe {name}"):
        return _Target(_model_behind(cloud, name), base, place)


def _places(cloud: Cloud) -> list[str]:
    """Return the locations in which batches are created."""
    untuned = os.environ.get("UNITUNE_VERTEX_BASE_LOCATION") or cloud.location
    return list(dict.fromkeys([cloud.location, untuned]))


def _model_behind(cloud: Cloud, endpoint: str) -> str:
    """Return the version of a model that an endpoint answers with, if a batch asks the same.

    Raises:
        Unsupported: The endpoint answers with another checkpoint than a batch would.
    """
    with vendor_errors(f"read {endpoint}"), cloud.session() as session:
        # Only v1beta1 is known to name the checkpoint (DeployedModel.checkpoint_id).
        standing = Rest(cloud, session, "v1beta1").read(endpoint) or {}
    deployed = cast("list[dict[str, Any]]", standing.get("deployedModels") or [])
    if len(deployed) != 1:
        raise Unsupported(
            f"{endpoint} answers with {len(deployed)} models, and a batch asks one. "
            "Run without --batch."
        )
    version = deployed[0].get("modelVersionId")
    name = str(deployed[0]["model"]).partition("@")[0] + (f"@{version}" if version else "")
    client = cloud.client(location_of(name))
    config = types.GetModelConfig(http_options=cloud.patience.retries)
    model = read(f"read {name}", lambda: client.models.get(model=name, config=config))
    answers, several = deployed[0].get("checkpointId"), len(model.checkpoints or ()) > 1
    if several and (not answers or answers != model.default_checkpoint_id):
        raise Unsupported(
            f"{endpoint} answers with checkpoint {answers or 'unknown'} of {name}, and a batch "
            f"would ask checkpoint {model.default_checkpoint_id or 'unknown'}, its default. "
            "Run without --batch."
        )
    return name


def _uri(folder: Folder, name: str) -> str:
    return f"gs://{folder.bucket}/{folder.prefix}{name}"


def _write(cloud: Cloud, uri: str, content: bytes) -> None:
    with made_before_is_fine(), vendor_errors(f"write {uri}"), cloud.blob(uri) as blob:
        blob.upload_from_string(
            content,
            content_type="application/jsonl",
            if_generation_match=0,
            **cloud.patience.storage,
        )


# What came of it


def _resource(batch_id: str) -> str:
    if not JOB.fullmatch(batch_id):
        raise BackendError(
            f"There is no batch {batch_id!r} at Vertex AI; one is called "
            "projects/…/locations/…/batchPredictionJobs/….",
            status=NOT_FOUND,
        )
    return batch_id


def _job(cloud: Cloud, batch_id: str) -> types.BatchJob:
    name = _resource(batch_id)
    client = cloud.client(location_of(name))
    config = types.GetBatchJobConfig(http_options=cloud.patience.retries)
    return read(f"read {batch_id}", lambda: client.batches.get(name=name, config=config))


def _named(cloud: Cloud, place: str, key: str, query: str | None) -> list[str]:
    """Return the jobs of a location with the name, in the list that a filter leaves."""
    found: dict[str, None] = {}
    try:
        for job in _jobs(cloud, place, query):
            if job.name and job.display_name == key:
                found[job.name] = None
    except BackendError as error:
        if query is None or error.status != BAD_REQUEST:
            raise
    return list(found)


def _jobs(cloud: Cloud, place: str, query: str | None) -> Iterator[types.BatchJob]:
    client, token, seen = cloud.client(place), "", {""}
    while True:
        config = types.ListBatchJobsConfig(
            filter=query,
            page_size=PAGE_SIZE,
            page_token=token or None,
            http_options=cloud.patience.retries,
        )
        pager = read("list batches", lambda config=config: client.batches.list(config=config))
        yield from pager.page
        token = str(pager.config.get("page_token") or "")
        if token in seen:
            return
        seen.add(token)


def _written(job: types.BatchJob) -> str:
    return (job.output_info and job.output_info.gcs_output_directory) or ""


def _files(cloud: Cloud, folder: str) -> Iterable[bytes]:
    with vendor_errors(f"read {folder}"), cloud.blobs(folder) as blobs:
        for blob in blobs:
            if not blob.name.endswith(".jsonl"):
                continue
            content = blob.download_as_bytes(**cloud.patience.storage)
            if blob.size and not content:
                # A connection that is cut in the answer's head looks like an empty object.
                raise Unreachable(f"Cloud Storage gave no content of {blob.name}. Try again.")
            yield content
