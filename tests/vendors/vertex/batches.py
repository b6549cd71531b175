"""Batch jobs of Vertex AI on loopback: rows from the bucket, answers into it.

A job answers each row as its model answers a question; a row that cannot be answered has its
refusal as a status. Answers are written in another order than rows, each beside its request, labels
included. A job that is cancelled has written what it had answered by then.

Source: docs.cloud.google.com/gemini-enterprise-agent-platform, models/capabilities/batch-inference
and batch-prediction-from-cloud-storage; reference/rest/v1beta1, projects.locations.
batchPredictionJobs; the batches of BerriAI/litellm (a row of an answer).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest
from unitune.testing.vendor_setup import Refused, ServerBehavior, route
from vendors.vertex.jobs import CANCELLED, SUCCEEDED, Job, TuningJobs, existing_job, timestamp
from vendors.vertex.requests import LOCATION, camel, check_batch, invalid, read_body

BATCHES = f"/v1beta1/{{location:{LOCATION}}}/batchPredictionJobs"
BATCH = f"/v1beta1/{{name:{LOCATION}/batchPredictionJobs/[^/:]+}}"
FILTER = re.compile(r'display_?[nN]ame="([^"]*)"')

Row = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class BatchJob(Job):
    """A job that answers rows."""

    rows: list[Row]
    written: str | None = None
    """Folder of its answers."""
    answered: int = 0
    failed: int = 0

    @property
    def model(self) -> str:
        """Full name of its model."""
        name = str(self.body["model"])
        return f"{self.location}/{name}" if name.startswith("publishers/") else name


class BatchJobs(TuningJobs):
    """Answers rows in batches."""

    def __init__(self, behavior: ServerBehavior | None = None) -> None:
        super().__init__(behavior)
        self.batches: dict[str, BatchJob] = {}

    @route("POST", BATCHES)
    def create_batch(self, request: VendorRequest, location: str) -> JsonValue:
        body = read_body(request)
        check_batch(body)
        uri = body["inputConfig"]["gcsSource"]["uris"][0]
        stored = self.storage.objects.get(uri)
        if stored is None:
            raise invalid(f"The file {uri} does not exist.")
        rows = [cast("Row", json.loads(line)) for line in stored.content.splitlines()]
        name = f"{location}/batchPredictionJobs/{6_000_001 + len(self.batches)}"
        batch = BatchJob(name=name, body=body, rows=rows)
        self.is_tuned(batch.model)
        self.batches[name] = batch
        return self._batch_json(batch)

    @route("GET", BATCHES)
    def list_batches(self, request: VendorRequest, location: str) -> JsonValue:
        """Show a page of a location's jobs, the newest first."""
        condition = self.condition(request, FILTER)
        batches = [
            batch
            for batch in self.batches.values()
            if not condition or batch.body["displayName"] == condition[1]
        ]
        page, token = self.page(request, location, batches)
        return {"batchPredictionJobs": [self._batch_json(batch) for batch in page], **token}

    @route("GET", BATCH)
    def batch(self, _: VendorRequest, name: str) -> JsonValue:
        """Show a job; each look lets it go on."""
        batch = existing_job(self.batches, name)
        batch.look()
        return self._batch_json(batch)

    @route("POST", f"{BATCH}:cancel")
    def cancel_batch(self, _: VendorRequest, name: str) -> JsonValue:
        batch = existing_job(self.batches, name)
        self._advance_batch(batch)
        batch.cancel()
        return {}

    def write_answers(self, batch: BatchJob, count: int) -> None:
        """Answer so many rows, and write the answers, the last first."""
        if not count:
            return
        lines = [self._answer_row(batch, row) for row in batch.rows[:count]]
        batch.failed = sum(bool(line["status"]) for line in lines)
        batch.answered = len(lines) - batch.failed
        prefix = batch.body["outputConfig"]["gcsDestination"]["outputUriPrefix"].rstrip("/")
        batch.written = f"{prefix}/prediction-model-{timestamp(batch.progress.created)}"
        content = "".join(json.dumps(line) + "\n" for line in reversed(lines)).encode()
        self.storage.put(f"{batch.written}/predictions.jsonl", content)

    def _advance_batch(self, batch: BatchJob) -> None:
        end_state, rows = batch.advance(self.behavior), len(batch.rows)
        if end_state == CANCELLED:
            rows = rows * batch.progress.steps(self.behavior) // self.behavior.steps
        if end_state in (SUCCEEDED, CANCELLED):
            self.write_answers(batch, rows)

    def _answer_row(self, batch: BatchJob, row: Row) -> Row:
        now = timestamp(datetime.now(UTC).timestamp())
        line: Row = {"processed_time": now, "request": row["request"]}
        try:
            response = self.respond(batch.model, cast("Row", camel(row["request"])))
        except Refused as refusal:
            status = f"Bad Request: {json.dumps(self.error(refusal))}"
            return {"status": status, **line, "response": {}}
        return {"status": "", **line, "response": response}

    def _batch_json(self, batch: BatchJob) -> JsonValue:
        self._advance_batch(batch)
        counts: JsonValue = {
            "successfulCount": str(batch.answered),
            "failedCount": str(batch.failed),
            "incompleteCount": str(len(batch.rows) - batch.answered - batch.failed),
        }
        details: dict[str, JsonValue] = {
            "completionStats": counts if batch.written else None,
            "outputInfo": {"gcsOutputDirectory": batch.written} if batch.written else None,
        }
        return batch.as_json(self.behavior, details)
