"""Batch jobs of Vertex AI on loopback: rows from the bucket, answers into it.

A job answers each row as its model answers a question; a row that cannot be asked has its refusal
as a status. Answers are written in another order than rows, each beside its request, labels
included. A job that is cancelled has written what it had answered by then.

Source: docs.cloud.google.com/gemini-enterprise-agent-platform, models/capabilities/batch-inference
and batch-prediction-from-cloud-storage; reference/rest/v1beta1, projects.locations.
batchPredictionJobs; the batches of BerriAI/litellm (a row of an answer).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, cast

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest, VendorResponse
from unitune.testing.vendor_setup import Progress, ServerBehavior
from vendors.vertex.models import Refused, invalid, missing, untimely
from vendors.vertex.requests import camel, check_batch, read_body
from vendors.vertex.storage import StorageVendor

FILTER = re.compile(r'display_?[nN]ame="([^"]*)"')
CANCELLED_CODE, INTERNAL_CODE = 1, 13
"""google.rpc.Code of a job's error."""

Filters = Literal["honoured", "ignored", "refused", "blind"]
Row = dict[str, Any]


@dataclass(slots=True)
class BatchJob:
    """One job with its rows."""

    name: str
    body: Row
    rows: list[Row]
    progress: Progress = field(default_factory=Progress)
    cancel_looks: int | None = None
    ended: tuple[str, float] | None = None
    error: JsonValue = None
    written: str | None = None
    answered: int = 0
    failed: int = 0


@dataclass(slots=True)
class BatchJobs:
    """Batch jobs, in all locations.

    Args:
        behavior: How they go on.
        storage: Where rows are and answers go.
        ask: Answers a model's question, or raises `Refused`; without a question it says whether
            there is such a model.
        filters: What is made of a list's filter.
    """

    behavior: ServerBehavior
    storage: StorageVendor
    ask: Callable[[str, Row | None], VendorResponse]
    filters: Filters = "honoured"
    all: dict[str, BatchJob] = field(default_factory=dict[str, BatchJob])
    _lists: int = 0

    def create(self, asked: VendorRequest, place: str) -> VendorResponse:
        """Take a job whose rows are there."""
        body = read_body(asked)
        check_batch(body)
        uri = body["inputConfig"]["gcsSource"]["uris"][0]
        stored = self.storage.objects.get(uri)
        if stored is None:
            raise invalid(f"The file {uri} does not exist.")
        self.ask(f"{place}/{body['model']}" if _published(body) else body["model"], None)
        rows = [cast("Row", json.loads(line)) for line in stored.content.splitlines()]
        name = f"{place}/batchPredictionJobs/{6_000_001 + len(self.all)}"
        self.all[name] = BatchJob(name, body, rows)
        return VendorResponse(self._shown(self.all[name]))

    def get(self, asked: VendorRequest, name: str) -> VendorResponse:
        """Show a job; each look lets it go on."""
        del asked
        job = self._job(name)
        job.progress.look()
        if job.cancel_looks is not None:
            job.cancel_looks += 1
        return VendorResponse(self._shown(job))

    def cancel(self, asked: VendorRequest, name: str) -> VendorResponse:
        """Take the wish to end a job that goes on."""
        del asked
        job = self._job(name)
        self._settle(job)
        if job.ended:
            raise untimely(f"The job is in state {job.ended[0]} and cannot be cancelled.")
        job.cancel_looks = job.cancel_looks or 0
        return VendorResponse({})

    def list(self, asked: VendorRequest, place: str) -> VendorResponse:
        """Show a page of a location's jobs, the newest first."""
        jobs = [
            job
            for job in reversed(self.all.values())
            if job.name.startswith(f"{place}/") and job.progress.listed(self.behavior)
        ]
        jobs = self._filtered(jobs, asked.first("filter") or "")
        start = asked.number("pageToken", 0)
        end = start + asked.number("pageSize", 100)
        page = jobs[max(0, start - self.behavior.lists_repeat) : end]
        self._lists += 1
        if self.behavior.lists_repeat and self._lists % 2:
            page.reverse()
        shown: dict[str, JsonValue] = {"batchPredictionJobs": [self._shown(job) for job in page]}
        return VendorResponse({**shown, "nextPageToken": str(end)} if end < len(jobs) else shown)

    def _filtered(self, jobs: list[BatchJob], query: str) -> list[BatchJob]:
        if not query or self.filters == "ignored":
            return jobs
        found = FILTER.fullmatch(query)
        if self.filters == "refused" or not found:
            raise invalid(f"Invalid filter: {query}")
        if self.filters == "blind":
            return []
        return [job for job in jobs if job.body["displayName"] == found[1]]

    def _job(self, name: str) -> BatchJob:
        if name not in self.all:
            raise missing(f"The BatchPredictionJob {name}")
        return self.all[name]

    def _settle(self, job: BatchJob) -> str:
        """Let a job come to the end that is due, and return its state."""
        if job.ended is None and (state := self._end(job)):
            job.ended = (state, datetime.now(UTC).timestamp())
        if job.ended:
            return job.ended[0]
        if job.cancel_looks is not None:
            return "JOB_STATE_CANCELLING"
        if self.behavior.state:
            return self.behavior.state
        started = job.progress.started(self.behavior)
        return "JOB_STATE_RUNNING" if started else "JOB_STATE_PENDING"

    def _end(self, job: BatchJob) -> str | None:
        steps = job.progress.steps(self.behavior)
        if job.cancel_looks is not None:
            if job.cancel_looks < 2:
                return None
            job.error = {"code": CANCELLED_CODE, "message": "The job was cancelled."}
            self._write(job, len(job.rows) * steps // self.behavior.steps)
            return "JOB_STATE_CANCELLED"
        if self.behavior.state or not job.progress.done(self.behavior):
            return None
        if self.behavior.fails:
            job.error = {"code": INTERNAL_CODE, "message": self.behavior.fails}
            return "JOB_STATE_FAILED"
        self._write(job, len(job.rows))
        return "JOB_STATE_SUCCEEDED"

    def _write(self, job: BatchJob, count: int) -> None:
        """VendorResponse so many rows, and write the answers, the last first."""
        if not count:
            return
        lines = [self._answered(job, row) for row in job.rows[:count]]
        job.failed = sum(bool(line["status"]) for line in lines)
        job.answered = len(lines) - job.failed
        prefix = job.body["outputConfig"]["gcsDestination"]["outputUriPrefix"].rstrip("/")
        job.written = f"{prefix}/prediction-model-{_time(job.progress.created)}"
        content = "".join(json.dumps(line) + "\n" for line in reversed(lines)).encode()
        self.storage.put(f"{job.written}/predictions.jsonl", content)

    def _answered(self, job: BatchJob, row: Row) -> Row:
        place = job.name.partition("/batchPredictionJobs/")[0]
        model = f"{place}/{job.body['model']}" if _published(job.body) else job.body["model"]
        told = {"processed_time": _time(datetime.now(UTC).timestamp()), "request": row["request"]}
        try:
            answer = self.ask(model, cast("Row", camel(row["request"])))
        except Refused as refused:
            said = json.dumps(refused.answer.content)
            return {"status": f"Bad Request: {said}", **told, "response": {}}
        return {"status": "", **told, "response": answer.content}

    def _shown(self, job: BatchJob) -> JsonValue:
        state = self._settle(job)
        started = job.progress.created if job.progress.started(self.behavior) else None
        ended = job.ended[1] if job.ended else None
        counts: JsonValue = {
            "successfulCount": str(job.answered),
            "failedCount": str(job.failed),
            "incompleteCount": str(len(job.rows) - job.answered - job.failed),
        }
        shown: dict[str, JsonValue] = {
            **job.body,
            "name": job.name,
            "state": state,
            "createTime": _time(job.progress.created),
            "updateTime": _time(ended or job.progress.created),
            "startTime": _time(started) if started else None,
            "endTime": _time(ended) if ended else None,
            "completionStats": counts if job.written else None,
            "outputInfo": {"gcsOutputDirectory": job.written} if job.written else None,
            "error": job.error,
        }
        return {name: value for name, value in shown.items() if value is not None}


def _published(body: Row) -> bool:
    return body["model"].startswith("publishers/")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
