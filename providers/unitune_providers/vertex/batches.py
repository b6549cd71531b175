"""Send batches of requests to Gemini: jobs over a file of rows, at half the price.

A row is a request of `chat` with a label, as rows have no id. A job is found by its display name,
the key. A batch cannot use another than a model's default checkpoint, so other endpoints are
refused.

Source: docs.cloud.google.com/gemini-enterprise-agent-platform, models/capabilities/batch-inference
(limits, tuned models, waiting, cancelling) and batch-prediction-from-cloud-storage (rows,
status, names of models); reference/rest/v1beta1, projects.locations.batchPredictionJobs/list
(filter); the batches of BerriAI/litellm (pull request 39668: an endpoint's model) and
maximhq/bifrost (that labels are returned); read 2026-11-25.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from io import BytesIO

from pydantic import JsonValue

from unitune.backends.capabilities import BatchStatus
from unitune.backends.formats import UnrepresentableRow
from unitune.backends.kit.api import created_id
from unitune.backends.kit.hosted import cancel_unless_ended, cannot_take, check_size
from unitune.errors import NOT_FOUND, BackendError, Unsupported
from unitune.models import Reply, Request, TunedModel
from unitune.security.json_fields import Fields, Unreadable, read_json
from unitune.security.redaction import redacted
from unitune_providers.vertex.chat import least_thinking, read_answer, request_body
from unitune_providers.vertex.cloud import (
    Cloud,
    connect,
    location_of,
    published_name,
    upload_uri,
    version_behind,
)
from unitune_providers.vertex.jobs import LABEL, count

BATCHES = "batchPredictionJobs"
JOB = re.compile(rf"projects/[^/]+/locations/[^/]+/{BATCHES}/[^/]+")
REQUESTS_MOST = 200_000
BYTES_MOST = 1_000_000_000
LABEL_VALUE = re.compile(r"[a-z0-9_-]{1,63}")
# States with written answers; any other state except FAILED and EXPIRED is running
ENDED = {
    "JOB_STATE_SUCCEEDED",
    "JOB_STATE_PARTIALLY_SUCCEEDED",
    "JOB_STATE_CANCELLED",
}
EXPIRED = (
    "Vertex AI did not process it within 72 hours, for lack of capacity. Send it again later or in "
    "another location, or run without --batch."
)
SHOWN_CHARACTERS = 1000


class VertexBatches:
    """Methods of `unitune.backends.capabilities.Batches`."""

    capabilities = ("Batches",)

    @cached_property
    def cloud(self) -> Cloud:
        """Project and location in the environment."""
        return connect()

    def submit_batch(
        self, key: str, model: str | TunedModel, requests: Mapping[str, Request]
    ) -> str:
        """Upload the rows and create the job with one call."""
        name, base = (model, model) if isinstance(model, str) else (model.name, model.base)
        location = self._location_of(name, is_tuned=name != base)
        target = _model_behind(self.cloud, name) if "/endpoints/" in name else published_name(name)
        content = b"".join(_row(id_, request, base) for id_, request in requests.items())
        size = len(content)
        check_size("Vertex AI", len(requests), size, most=REQUESTS_MOST, most_bytes=BYTES_MOST)
        file = f"unitune-batch-{key}-{hashlib.sha256(content).hexdigest()[:16]}"
        rows, answers = upload_uri(f"{file}.jsonl"), upload_uri(file)
        parent = self.cloud.parent(location)
        self.cloud.write(rows, BytesIO(content))
        body: dict[str, JsonValue] = {
            "displayName": key,
            "model": target,
            "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [rows]}},
            "outputConfig": {
                "predictionsFormat": "jsonl",
                "gcsDestination": {"outputUriPrefix": answers},
            },
        }
        api = self.cloud.api(parent)
        created = api.post(parent, BATCHES, action="create the batch", body=body)
        return created_id(created, api.endpoint, "name")

    def find_batch(self, key: str, since: float) -> list[str]:
        """Return the jobs with the key as display name, in all locations of batches."""
        del since
        parents = [self.cloud.parent(location) for location in self._locations()]
        return self.cloud.find_jobs(
            parents, BATCHES, f'display_name="{key}"', lambda job: job.text("displayName") == key
        )

    def poll_batch(self, batch_id: str) -> BatchStatus:
        """Return the status of a job; an unknown state is running."""
        return _status_of(self._batch(batch_id))

    def fetch_batch(self, batch_id: str) -> Mapping[str, Reply]:
        """Return the answers of an ended job; a cancelled one has only some."""
        job = self._batch(batch_id)
        status, folder = _status_of(job), _folder_of(job)
        if status.state != "ended":
            why = f" ({status.error})" if status.error else ""
            raise BackendError(f"Batch {batch_id} has no answers: it is {status.raw}{why}.")
        replies: dict[str, Reply] = {}
        files = self.cloud.objects(folder) if folder else ()
        for content in (self.cloud.read(uri) for uri in files if uri.endswith(".jsonl")):
            for line in (content or b"").splitlines():
                name, reply = _read_row(line, folder)
                # Vertex AI retries rows; an answer is preferred to an error.
                if name not in replies or replies[name].error:
                    replies[name] = reply
        return replies

    def cancel_batch(self, batch_id: str) -> None:
        name = f"{_checked(batch_id)}:cancel"
        cancel_unless_ended(
            lambda: self.cloud.api(name).post(name, action=f"cancel {batch_id}", body={}),
            lambda: self.poll_batch(batch_id).state == "running",
        )

    def _batch(self, batch_id: str) -> Fields:
        name = _checked(batch_id)
        return self.cloud.api(name).get(name, action=f"read {batch_id}")

    def _locations(self) -> list[str]:
        return list(dict.fromkeys([self.cloud.location, self.cloud.base_location]))

    def _location_of(self, name: str, *, is_tuned: bool) -> str:
        usual = self.cloud.location if is_tuned else self.cloud.base_location
        location = location_of(name) or usual
        if location not in self._locations():
            raise Unsupported(
                f"{name} is in {location}, where its batch could not be found after a failure, "
                f"because GOOGLE_CLOUD_LOCATION is {self.cloud.location}. Set it to {location}, or "
                "run without --batch."
            )
        return location


def _model_behind(cloud: Cloud, endpoint: str) -> str:
    """Return the version of the model behind an endpoint, if a batch would use the same."""
    deployed = cloud.api(endpoint).get(endpoint, action=f"read {endpoint}").items("deployedModels")
    if len(deployed) != 1:
        raise Unsupported(
            f"{endpoint} serves {len(deployed)} models, but a batch uses one. Run without --batch."
        )
    name = version_behind(deployed[0])
    model = cloud.api(name).get(name, action=f"read {name}")
    answers, default = deployed[0].text("checkpointId"), model.text("defaultCheckpointId")
    if len(model.items("checkpoints")) > 1 and (not answers or answers != default):
        raise Unsupported(
            f"{endpoint} serves checkpoint {answers or 'unknown'} of {name}, but a batch would use "
            f"its default checkpoint, {default or 'unknown'}. Run without --batch."
        )
    return name


def _checked(batch_id: str) -> str:
    if not JOB.fullmatch(batch_id):
        raise BackendError(
            f"Vertex AI has no batch {batch_id!r}; a batch is named "
            f"projects/…/locations/…/{BATCHES}/….",
            status=NOT_FOUND,
        )
    return batch_id


def _status_of(job: Fields) -> BatchStatus:
    word, stats = job.text("state") or "JOB_STATE_UNSPECIFIED", job.fields("completionStats")
    answered = [count(stats, name) or 0 for name in ("successfulCount", "failedCount")]
    done = sum(answered) if stats.all else None
    if word in ENDED or (word == "JOB_STATE_EXPIRED" and _folder_of(job)):
        return BatchStatus("ended", word, done)
    if word == "JOB_STATE_EXPIRED":
        return BatchStatus("failed", word, done, EXPIRED)
    if word == "JOB_STATE_FAILED":
        reason = redacted(job.fields("error").text("message") or "", (), SHOWN_CHARACTERS)
        return BatchStatus("failed", word, done, reason or "no reason given")
    return BatchStatus("running", word, done)


def _folder_of(job: Fields) -> str:
    return job.fields("outputInfo").text("gcsOutputDirectory") or ""


def _row(name: str, request: Request, base: str) -> bytes:
    if not LABEL_VALUE.fullmatch(name):
        raise Unsupported(
            f"The request id {name!r} is invalid; Vertex AI needs 1 to 63 lower-case letters, "
            "digits, _ and - for a label."
        )
    try:
        body = {**request_body(request, least_thinking(base)), "labels": {LABEL: name}}
    except UnrepresentableRow as problem:
        raise cannot_take("Gemini", name, problem) from problem
    return json.dumps({"request": body}, ensure_ascii=False).encode() + b"\n"


def _read_row(line: bytes, folder: str) -> tuple[str, Reply]:
    try:
        row = Fields(read_json(line))
    except Unreadable:
        row = Fields({})
    if (name := row.fields("request").fields("labels").text(LABEL)) is None:
        raise BackendError(
            f"A row in {folder} does not identify its request: Vertex AI did not return the label "
            f"{LABEL!r}. The answers remain there; run without --batch."
        )
    if status := row.text("status"):
        error = f"Gemini could not answer: {_reason(status)}."
        return name, Reply(error=error, finish_reason="error")
    reply = read_answer(row.fields("response"))
    error = "Vertex AI could not answer: the row is not a response of a model."
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
