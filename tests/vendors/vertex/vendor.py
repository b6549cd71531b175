"""Vertex AI on loopback: tuning jobs and answers as its REST interface has them.

One server plays Vertex AI (jobs here, requests in `requests`, what jobs leave in `models`, batches
in `batches`) and Cloud Storage (`storage`), as the backend's two SDKs see them. It speaks
``v1beta1`` for tuning and asking, and ``v1`` too for models and endpoints; numbers of 64 bits are
strings, as Google's JSON has them.

    with serve(VertexVendor(ServerBehavior(steps=2))) as server:
        for name, value in environment(server.url).items():
            monkeypatch.setenv(name, value)

Source: the types of google-genai 3.6.1; googleapis/googleapis, google/cloud/aiplatform/v1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import JsonValue

from unitune.testing.loopback import UNREADABLE, VendorRequest, VendorResponse, thinned
from unitune.testing.vendor_setup import Progress, ServerBehavior
from vendors import shapes
from vendors.vertex.batches import BatchJobs
from vendors.vertex.models import PLACE, Models, Refused, invalid, missing, untimely
from vendors.vertex.requests import (
    ANSWERING,
    SPECS,
    answer_with,
    check_count,
    check_create,
    check_thinking,
    input_tokens,
    problem_of,
    question,
    read_body,
)
from vendors.vertex.storage import StorageVendor, storage_error

KEY = "loopback"
BUCKET = "unitune-test"
EPOCHS = 3
"""When none are asked for."""
FILTER = re.compile(r'labels\.([a-z0-9_-]+)="?([^"]*)"?')
RESOURCE = re.compile(rf"/v1beta1/{PLACE}/(endpoints|models)/[\d@]+")
CANCELLED_CODE, INVALID_CODE, INTERNAL_CODE = 1, 3, 13
"""google.rpc.Code of a job's error."""

Filters = Literal["honoured", "ignored", "refused", "blind"]


def environment(url: str) -> dict[str, str]:
    """Return the environment that leads the backend to a server of this kind."""
    return {
        "UNITUNE_VERTEX_BASE_URL": url,
        "STORAGE_EMULATOR_HOST": url,
        "UNITUNE_VERTEX_BUCKET": BUCKET,
        "GOOGLE_CLOUD_PROJECT": "my-project",
        "GOOGLE_CLOUD_LOCATION": "us-central1",
    }


@dataclass(slots=True)
class _Job:
    name: str
    body: dict[str, Any]
    rows: int
    tokens: int
    progress: Progress = field(default_factory=Progress)
    started: float | None = None
    cancel_looks: int | None = None
    ended: tuple[str, float] | None = None
    error: JsonValue = None
    left: JsonValue = None
    problem: str | None = None
    """Why its rows cannot be trained on."""

    @property
    def spec_name(self) -> str:
        return next(name for name in SPECS if name in self.body)

    @property
    def spec(self) -> dict[str, Any]:
        return self.body[self.spec_name]

    @property
    def epochs(self) -> int:
        return int(self.spec.get("hyperParameters", {}).get("epochCount", EPOCHS))


class VertexVendor:
    """Vertex AI with one bucket.

    Args:
        behavior: How it behaves.
        key: The token that it takes.
        filters: What it makes of a list's filter: as asked, nothing, a refusal, or no job ever.
    """

    def __init__(
        self,
        behavior: ServerBehavior | None = None,
        *,
        key: str = KEY,
        filters: Filters = "honoured",
    ) -> None:
        self.behavior = behavior or ServerBehavior()
        self.key = key
        self.filters: Filters = filters
        self.storage = StorageVendor((BUCKET,))
        self.models = Models()
        self.jobs: dict[str, _Job] = {}
        self.batches = BatchJobs(self.behavior, self.storage, self._answered)
        self._lists = 0

    def answer(self, asked: VendorRequest) -> VendorResponse:
        """Answer a request to Vertex AI or Cloud Storage."""
        of_storage = "/storage/v1/" in asked.path
        if asked.headers.get("authorization") != f"Bearer {self.key}":
            said = "Request had invalid authentication credentials."
            refused = Refused(401, "UNAUTHENTICATED", said).answer
            return storage_error(401, said) if of_storage else refused
        if of_storage:
            return self.storage.answer(asked)
        try:
            return thinned(self.behavior.omits, self._answer(asked), asked, shapes.vertex)
        except Refused as refused:
            return refused.answer
        except UNREADABLE as problem:
            return invalid(f"Invalid JSON payload received. {problem}").answer

    def _answer(self, asked: VendorRequest) -> VendorResponse:
        if asked.path.startswith("/v1/") or RESOURCE.fullmatch(asked.path):
            return self.models.answer(asked)
        return self._routed(asked)

    def _routed(self, asked: VendorRequest) -> VendorResponse:
        routes: Sequence[tuple[str, str, Callable[..., VendorResponse]]] = (
            ("POST", rf"({PLACE})/tuningJobs", self._create),
            ("GET", rf"({PLACE})/tuningJobs", self._list),
            ("GET", rf"({PLACE}/tuningJobs/[^/:]+)", self._get),
            ("POST", rf"({PLACE}/tuningJobs/[^/:]+):cancel", self._cancel),
            ("POST", rf"({PLACE}/(?:endpoints|publishers)/[^:]+):generateContent", self._ask),
            ("POST", rf"({PLACE}/(?:endpoints|publishers)/[^:]+):countTokens", self._count),
            ("POST", rf"({PLACE})/batchPredictionJobs", self.batches.create),
            ("GET", rf"({PLACE})/batchPredictionJobs", self.batches.list),
            ("GET", rf"({PLACE}/batchPredictionJobs/[^/:]+)", self.batches.get),
            ("POST", rf"({PLACE}/batchPredictionJobs/[^/:]+):cancel", self.batches.cancel),
        )
        for method, pattern, answer in routes:
            found = re.fullmatch(rf"/v1beta1/{pattern}", asked.path)
            if found and method == asked.method:
                return answer(asked, found[1])
        raise missing(asked.path)

    def _create(self, asked: VendorRequest, place: str) -> VendorResponse:
        body = read_body(asked)
        check_create(body)
        spec = body[next(name for name in SPECS if name in body)]
        for uri in (spec["trainingDatasetUri"], spec.get("validationDatasetUri")):
            if uri is not None and uri not in self.storage.objects:
                raise invalid(f"Dataset {uri} does not exist.")
        stored = self.storage.objects[spec["trainingDatasetUri"]]
        continued = body.get("preTunedModel", {}).get("tunedModelName")
        if continued and continued.partition("@")[0] not in self.models.versions:
            raise missing(f"The Model {continued}")
        name = f"{place}/tuningJobs/{4_000_001 + len(self.jobs)}"
        lines, words = stored.content.splitlines(), stored.content.split()
        self.jobs[name] = job = _Job(name, body, len(lines), len(words))
        job.problem = problem_of(stored.content, job.spec_name)
        return VendorResponse(self._shown(job))

    def _get(self, asked: VendorRequest, name: str) -> VendorResponse:
        del asked
        job = self._job(name)
        job.progress.look()
        if job.cancel_looks is not None:
            job.cancel_looks += 1
        return VendorResponse(self._shown(job))

    def _cancel(self, asked: VendorRequest, name: str) -> VendorResponse:
        del asked
        job = self._job(name)
        self._settle(job)
        if job.ended:
            raise untimely(f"The job is in state {job.ended[0]} and cannot be cancelled.")
        job.cancel_looks = job.cancel_looks or 0
        return VendorResponse({})

    def _list(self, asked: VendorRequest, place: str) -> VendorResponse:
        jobs = [
            job
            for job in reversed(self.jobs.values())
            if job.name.startswith(f"{place}/") and job.progress.listed(self.behavior)
        ]
        jobs = self._filtered(jobs, asked.first("filter") or "")
        start = asked.number("pageToken", 0)
        end = start + asked.number("pageSize", 100)
        page = jobs[max(0, start - self.behavior.lists_repeat) : end]
        self._lists += 1
        if self.behavior.lists_repeat and self._lists % 2:
            page.reverse()
        shown: dict[str, JsonValue] = {"tuningJobs": [self._shown(job) for job in page]}
        return VendorResponse({**shown, "nextPageToken": str(end)} if end < len(jobs) else shown)

    def _filtered(self, jobs: list[_Job], query: str) -> list[_Job]:
        if not query or self.filters == "ignored":
            return jobs
        found = FILTER.fullmatch(query)
        if self.filters == "refused" or not found:
            raise invalid(f"Invalid filter: {query}")
        if self.filters == "blind":
            return []
        return [job for job in jobs if job.body.get("labels", {}).get(found[1]) == found[2]]

    def _job(self, name: str) -> _Job:
        if name not in self.jobs:
            raise missing(f"The TuningJob {name}")
        return self.jobs[name]

    def _settle(self, job: _Job) -> tuple[str, str | None]:
        """Let a job come to the end that is due, and return its state with the finer one."""
        now = datetime.now(UTC).timestamp()
        if job.ended is None and job.progress.started(self.behavior):
            job.started = job.started or now
        if job.ended is None and (state := self._end(job)):
            job.ended = (state, now)
        if job.ended:
            return job.ended[0], None
        if job.cancel_looks is not None:
            return "JOB_STATE_CANCELLING", None
        if self.behavior.state:
            return self.behavior.state, None
        if not job.started:
            return "JOB_STATE_PENDING", None
        busy = "TUNING" if job.progress.steps(self.behavior) else "PROCESSING_DATASET"
        return "JOB_STATE_RUNNING", f"TUNING_JOB_STATE_{busy}"

    def _end(self, job: _Job) -> str | None:
        if (job.cancel_looks or 0) > 1:
            job.error = {"code": CANCELLED_CODE, "message": "The job was cancelled."}
            return "JOB_STATE_CANCELLED"
        if job.cancel_looks is not None or not job.started:
            return None
        if problem := self.behavior.rejects_files or job.problem:
            job.error = {"code": INVALID_CODE, "message": problem}
            return "JOB_STATE_FAILED"
        if not job.progress.done(self.behavior):
            return None
        if self.behavior.fails:
            job.error = {"code": INTERNAL_CODE, "message": self.behavior.fails}
            return "JOB_STATE_FAILED"
        job.left = self._leave(job)
        return "JOB_STATE_SUCCEEDED"

    def _leave(self, job: _Job) -> JsonValue:
        """The tuned model: an endpoint for each epoch's checkpoint, the last is the model's."""
        only_last = job.spec.get("exportLastCheckpointOnly")
        epochs = range(job.epochs if only_last else 1, job.epochs + 1)
        before = job.body.get("preTunedModel", {}).get("tunedModelName", "").partition("@")[0]
        of = before if before and not job.body.get("tunedModelDisplayName") else None
        place = job.name.partition("/tuningJobs/")[0]
        model, endpoints = self.models.add(place, of, len(epochs))
        checkpoints: list[JsonValue] = [
            {
                "checkpointId": str(number),
                "epoch": str(epoch),
                "step": str(max(1, self.behavior.steps * epoch // job.epochs)),
                "endpoint": endpoint,
            }
            for number, (epoch, endpoint) in enumerate(zip(epochs, endpoints, strict=True), 1)
        ]
        return {"model": model, "endpoint": endpoints[-1], "checkpoints": checkpoints}

    def _shown(self, job: _Job) -> JsonValue:
        state, finer = self._settle(job)
        steps = job.progress.steps(self.behavior)
        counted = job.started and not (self.behavior.rejects_files or job.problem)
        done = steps * job.epochs // max(1, self.behavior.steps) if counted else 0
        shown: dict[str, JsonValue] = {
            **job.body,
            "name": job.name,
            "state": state,
            "tuningJobState": finer,
            "createTime": _time(job.progress.created),
            "updateTime": _time(job.ended[1] if job.ended else job.started or job.progress.created),
            "startTime": _time(job.started) if job.started else None,
            "endTime": _time(job.ended[1]) if job.ended else None,
            "tuningDataStats": self._stats(job) if counted else None,
            "tuningJobMetadata": {"completedEpochCount": str(done)} if done else None,
            "error": job.error,
            "tunedModel": job.left,
        }
        return {name: value for name, value in shown.items() if value is not None}

    def _stats(self, job: _Job) -> JsonValue:
        return {
            f"{SPECS[job.spec_name]}{'Tuning' if 'super' in job.spec_name else ''}DataStats": {
                "tuningDatasetExampleCount": str(job.rows),
                "totalBillableTokenCount": str(job.tokens * job.epochs),
                "tuningStepCount": str(self.behavior.steps),
            }
        }

    def _ask(self, asked: VendorRequest, model: str) -> VendorResponse:
        return self._answered(model, read_body(asked))

    def _count(self, asked: VendorRequest, model: str) -> VendorResponse:
        self._answered(model, None)
        body = read_body(asked)
        check_count(body)
        return VendorResponse({"totalTokens": input_tokens(body)})

    def _answered(self, model: str, body: dict[str, Any] | None) -> VendorResponse:
        """Answer a question to any model; no question asks for the model alone."""
        tuned = "/publishers/" not in model
        if tuned and not self.models.stands(model):
            raise missing(model)
        if not tuned and not ANSWERING.fullmatch(model.rpartition("/")[2]):
            raise missing(f"Publisher Model `{model}`")
        if body is None:
            return VendorResponse()
        check_thinking(body, model.rpartition("/")[2])
        asked_last, otherwise = question(body), self.behavior.otherwise
        said = self.behavior.replies.get(asked_last, otherwise) if tuned else otherwise
        return answer_with(body, said)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
