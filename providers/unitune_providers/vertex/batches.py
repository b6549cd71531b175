"""Many questions to Gemini together: batch jobs over a file of rows, at half the price.

A row is a request as `chat` asks it, with a label: Vertex AI knows no id of a row, gives answers in
any order, and gives each request back beside its answer. Rows go to the bucket that training files
go to, and answers are written beside them. A job is found by its display name, which is the key.

A batch names a tuned model by its model resource, where `chat` uses an endpoint; the endpoint says
which model it answers with. A batch knows no checkpoints, so an endpoint that answers with
another than the model's default is refused.

Source: docs.cloud.google.com/gemini-enterprise-agent-platform, models/capabilities/batch-inference
(limits, tuned models, waiting, what is cancelled) and batch-prediction-from-cloud-storage (rows,
status, names of models); reference/rest/v1beta1, projects.locations.batchPredictionJobs/list
(filter); the batches of BerriAI/litellm (pull request 39668: an endpoint's model) and
maximhq/bifrost (that labels come back); read 2026-11-25.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import NamedTuple

from pydantic import JsonValue

from unitune.backends.capabilities import BatchStatus
from unitune.backends.formats import UnrepresentableRow
from unitune.backends.kit.api import created_id
from unitune.backends.kit.paging import by_token
from unitune.errors import BackendError, Unsupported
from unitune.models import Reply, Request, TunedModel
from unitune.security.json_fields import Fields, Unreadable, read_json
from unitune.security.redaction import redacted
from unitune_providers.vertex.chat import generation, least_thinking, question, read_answer
from unitune_providers.vertex.cloud import Cloud, location_of, upload_folder
from unitune_providers.vertex.jobs import LABEL, count

PAGE_SIZE = 100
JOB = re.compile(r"projects/[^/]+/locations/[^/]+/batchPredictionJobs/[^/]+")
NOT_FOUND, BAD_REQUEST = 404, 400
REQUESTS_MOST = 200_000
BYTES_MOST = 1_000_000_000
LABEL_VALUE = re.compile(r"[a-z0-9_-]{1,63}")
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
SHOWN_CHARACTERS = 1000


class _Target(NamedTuple):
    """What a batch asks: the model's name for Vertex AI, its base and its location."""

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
    name = f"unitune-batch-{key}-{hashlib.sha256(content).hexdigest()[:16]}"
    folder, parent = upload_folder(), cloud.parent(target.location)
    rows = folder.uri(f"{name}.jsonl")
    cloud.write(rows, BytesIO(content))
    body: dict[str, JsonValue] = {
        "displayName": key,
        "model": target.model,
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [rows]}},
        "outputConfig": {
            "predictionsFormat": "jsonl",
            "gcsDestination": {"outputUriPrefix": folder.uri(name)},
        },
    }
    api, path = cloud.api(parent), (*parent.split("/"), "batchPredictionJobs")
    created = api.post(*path, action="create the batch", body=body)
    return created_id(created, api.endpoint, "name")


def find(cloud: Cloud, key: str) -> list[str]:
    """Return the jobs whose display name is the key, wherever a batch is created.

    Should the service make something else of the filter than is documented, a job that is
    overlooked would be paid for twice: so names are compared here, over the whole list if need be.
    """
    for condition in (f'display_name="{key}"', None):
        listed = [
            job for location in _locations(cloud) for job in _named(cloud, location, key, condition)
        ]
        if listed:
            return listed
    return []


def poll(cloud: Cloud, batch_id: str) -> BatchStatus:
    """Return how a job stands; a word that is not known here is running.

    Raises:
        BackendError: There is no such job, or Vertex AI refused.
        Unreachable: It gave no answer.
    """
    return status_of(_job(cloud, batch_id))


def status_of(job: Fields) -> BatchStatus:
    """Return a job's state in our words."""
    word, stats = job.text("state") or "JOB_STATE_UNSPECIFIED", job.fields("completionStats")
    answered = [count(stats, name) or 0 for name in ("successfulCount", "failedCount")]
    done = sum(answered) if stats.all else None
    if word in ENDED or (word == "JOB_STATE_EXPIRED" and _folder_of(job)):
        return BatchStatus("ended", word, done)
    if word == "JOB_STATE_EXPIRED":
        return BatchStatus("failed", word, done, EXPIRED)
    if word == "JOB_STATE_FAILED":
        reason = redacted(job.fields("error").text("message") or "", (), SHOWN_CHARACTERS)
        return BatchStatus("failed", word, done, reason or "Vertex AI gives no reason")
    return BatchStatus("running", word, done)


def fetch(cloud: Cloud, batch_id: str) -> dict[str, Reply]:
    """Return the answers of a job that has ended; one that was cancelled has only some.

    Raises:
        BackendError: The job goes on or failed, or its rows cannot be distinguished.
        Unreachable: Cloud Storage gave no answer, or not the whole of it.
    """
    job = _job(cloud, batch_id)
    status, folder = status_of(job), _folder_of(job)
    if status.state != "ended":
        why = f" ({status.error})" if status.error else ""
        raise BackendError(f"Batch {batch_id} has no answers: it is {status.raw}{why}.")
    replies: dict[str, Reply] = {}
    files = cloud.objects(folder) if folder else ()
    for content in (cloud.read(uri) for uri in files if uri.endswith(".jsonl")):
        for line in (content or b"").splitlines():
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
    name = f"{_resource(batch_id)}:cancel"
    try:
        cloud.api(name).post(*name.split("/"), action=f"cancel {batch_id}", body={})
    except BackendError as error:
        if error.status != BAD_REQUEST or poll(cloud, batch_id).state == "running":
            raise


def write_rows(requests: Mapping[str, Request], base: str) -> bytes:
    """Return a file of requests, by their ids.

    Args:
        requests: The requests.
        base: Name of the base, which decides how little it can think.

    Raises:
        Unsupported: Gemini cannot take a request, or there are too many.
    """
    content = b"".join(_row(name, request, base) for name, request in requests.items())
    if len(requests) > REQUESTS_MOST or len(content) > BYTES_MOST:
        raise Unsupported(
            f"A batch of Vertex AI's holds at most {REQUESTS_MOST:,} requests and "
            f"{BYTES_MOST / 1e6:,.0f} MB, and these are {len(requests):,} with "
            f"{len(content) / 1e6:,.1f} MB. Take fewer or shorter cases, or run without --batch."
        )
    return content


def _row(name: str, request: Request, base: str) -> bytes:
    if not LABEL_VALUE.fullmatch(name):
        raise Unsupported(
            f"A request's id is {name!r}; Vertex AI takes 1 to 63 lower-case letters, digits, _ "
            "and - for a label."
        )
    try:
        content = question(request)
    except UnrepresentableRow as problem:
        raise Unsupported(
            f"Gemini cannot take request {name}: {problem} Leave that case out, or run "
            "without --batch, where it alone fails."
        ) from problem
    settings = generation(request, least_thinking(base))
    body = {**content, "generationConfig": settings, "labels": {LABEL: name}}
    return json.dumps({"request": body}, ensure_ascii=False).encode() + b"\n"


def read_row(line: bytes, folder: str) -> tuple[str, Reply]:
    """Return the id of a request and its reply, from a line of the answers.

    Args:
        line: As Vertex AI wrote it.
        folder: Where, for people.

    Raises:
        BackendError: It does not say which request it answers.
    """
    try:
        row = Fields(read_json(line))
    except Unreadable:
        row = Fields({})
    name = row.fields("request").fields("labels").text(LABEL)
    if name is None:
        raise BackendError(
            f"A row in {folder} does not say which request it answers: Vertex AI should have given "
            f"back the label {LABEL!r}. The answers stay there; run without --batch."
        )
    if status := row.text("status"):
        error = f"Gemini could not answer: {_reason(status)}."
        return name, Reply(error=error, finish_reason="error")
    reply = read_answer(row.fields("response"))
    error = "Vertex AI could not answer: what it wrote is no response of a model."
    return name, reply or Reply(error=error, finish_reason="error")


def _reason(status: str) -> str:
    """Return the message of a row's status, such as ``Bad Request: {"error": {…}}``."""
    head, brace, tail = status.partition("{")
    try:
        message = Fields(read_json(brace + tail)).fields("error").text("message")
    except Unreadable:
        message = None
    words = status if message is None else f"{head}{message}"
    return redacted(words, (), SHOWN_CHARACTERS).strip().rstrip(".")


def _target(cloud: Cloud, model: str | TunedModel) -> _Target:
    name, base = (model, model) if isinstance(model, str) else (model.name, model.base)
    untuned = os.environ.get("UNITUNE_VERTEX_BASE_LOCATION") if name == base else None
    location = location_of(name) or untuned or cloud.location
    if location not in _locations(cloud):
        raise Unsupported(
            f"{name} is in {location}, where its batch would not be found again after a failure: "
            f"GOOGLE_CLOUD_LOCATION is {cloud.location}. Set it to {location}, or run without "
            "--batch."
        )
    if "/endpoints/" in name:
        return _Target(_model_behind(cloud, name), base, location)
    is_full = name.startswith(("projects/", "publishers/"))
    return _Target(name if is_full else f"publishers/google/models/{name}", base, location)


def _locations(cloud: Cloud) -> list[str]:
    """Return the locations in which batches are created."""
    untuned = os.environ.get("UNITUNE_VERTEX_BASE_LOCATION") or cloud.location
    return list(dict.fromkeys([cloud.location, untuned]))


def _model_behind(cloud: Cloud, endpoint: str) -> str:
    """Return the version of a model that an endpoint answers with, if a batch asks the same.

    Raises:
        Unsupported: The endpoint answers with another checkpoint than a batch would.
    """
    api = cloud.api(endpoint)
    deployed = api.get(*endpoint.split("/"), action=f"read {endpoint}").items("deployedModels")
    if len(deployed) != 1:
        raise Unsupported(
            f"{endpoint} answers with {len(deployed)} models, and a batch asks one. "
            "Run without --batch."
        )
    version = deployed[0].text("modelVersionId")
    whole = (deployed[0].text("model") or "").partition("@")[0]
    name = f"{whole}@{version}" if version else whole
    model = cloud.api(name).get(*name.split("/"), action=f"read {name}")
    answers, default = deployed[0].text("checkpointId"), model.text("defaultCheckpointId")
    if len(model.items("checkpoints")) > 1 and (not answers or answers != default):
        raise Unsupported(
            f"{endpoint} answers with checkpoint {answers or 'unknown'} of {name}, and a batch "
            f"would ask checkpoint {default or 'unknown'}, its default. Run without --batch."
        )
    return name


def _resource(batch_id: str) -> str:
    if not JOB.fullmatch(batch_id):
        raise BackendError(
            f"There is no batch {batch_id!r} at Vertex AI; one is called "
            "projects/…/locations/…/batchPredictionJobs/….",
            status=NOT_FOUND,
        )
    return batch_id


def _job(cloud: Cloud, batch_id: str) -> Fields:
    name = _resource(batch_id)
    return cloud.api(name).get(*name.split("/"), action=f"read {batch_id}")


def _named(cloud: Cloud, location: str, key: str, condition: str | None) -> Iterator[str]:
    """Yield the jobs of a location with the name, in the list that a filter leaves."""
    parent = cloud.parent(location)
    query = {"pageSize": PAGE_SIZE, **({"filter": condition} if condition else {})}
    listed = cloud.api(parent).pages(
        *parent.split("/"),
        "batchPredictionJobs",
        action="list batches",
        next_page=by_token(),
        items="batchPredictionJobs",
        query=query,
    )
    try:
        for job in listed:
            if job.text("displayName") == key and (name := job.text("name")):
                yield name
    except BackendError as error:
        if condition is None or error.status != BAD_REQUEST:
            raise


def _folder_of(job: Fields) -> str:
    return job.fields("outputInfo").text("gcsOutputDirectory") or ""
