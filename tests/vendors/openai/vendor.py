"""OpenAI on loopback: files, fine-tuning jobs, models, chat completions and batches, on its wire.

Jobs and batches move with each look at them (`ServerBehavior`), files are checked as the
vendor's validation would, and what the vendor refuses is refused in its words.
Paths begin with ``/v1`` or, as on Azure, with ``/openai/v1``. Other vendors of the wire are
`MantleVendor`, `vendors.openai.nebius` and `vendors.openai.azure`, which differ in what
they know and give back.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest, VendorResponse
from unitune.testing.omissions import Shape
from unitune.testing.vendor_setup import Refused, route
from vendors import shapes, streams
from vendors.openai.batches import LoopbackBatch, open_batch
from vendors.openai.chat import THINKING, Finish, Manner, completion
from vendors.openai.checks import Body, Rules, check_create, method_of
from vendors.openai.files import Files
from vendors.openai.jobs import LoopbackJob
from vendors.openai.lists import Json, metadata_filter, paged, with_ends
from vendors.openai.rows import problem_in, rows_and_tokens

BASES = (
    "gpt-4.1-2025-04-14",
    "gpt-4.1-mini-2025-04-14",
    "gpt-4o-2024-08-06",
    "gpt-4o-mini-2024-07-18",
    "o4-mini-2025-04-16",
)
ANSWERING = ("gpt-6-luna",)
"""Models that answer and cannot be tuned."""
KEY = "sk-loopback-0123456789"


@dataclass
class OpenAIVendor(Files):
    """The server's state."""

    prefix = shapes.OPENAI_PATH
    wrong_key = "Incorrect API key provided."
    no_route = "Invalid URL ({method} {path})"
    unreadable = (
        "We could not parse the JSON body of your request. (HINT: This likely means you aren't "
        "using your HTTP library correctly. The OpenAI API expects a JSON payload, but what was "
        "sent was not valid JSON.)"
    )
    rules: ClassVar[Rules] = Rules()
    filters: ClassVar[bool] = True
    keeps_metadata: ClassVar[bool] = True
    names_models: ClassVar[bool] = True

    key: str = KEY  # key that requests need
    bases: Sequence[str] = BASES  # models that can be tuned
    answering: Sequence[str] = ANSWERING  # other models that answer
    # how many tokens a model that thinks spends on it before each answer
    reasoning_tokens: int = 320
    # unusual ends of answers by the last user message
    finishes: dict[str, Finish] = field(default_factory=dict[str, Finish])
    jobs: dict[str, LoopbackJob] = field(default_factory=dict[str, LoopbackJob])
    deleted: set[str] = field(default_factory=set[str])
    batches: dict[str, LoopbackBatch] = field(default_factory=dict[str, LoopbackBatch])
    # how many requests of a new batch are answered within its window, so that it expires; None: all
    batch_answers: int | None = None
    # when models stop, where that is announced
    shutdown_dates: dict[str, str] = field(default_factory=dict[str, str])
    lists: int = 0

    def error(self, refusal: Refused) -> JsonValue:
        code = "invalid_api_key" if refusal.status == 401 else refusal.details.get("code")
        error: JsonValue = {
            "message": refusal.message,
            "type": "invalid_request_error",
            "param": refusal.details.get("param"),
            "code": code,
        }
        return {"error": error}

    def shapes(self) -> Sequence[Shape]:
        return shapes.openai()

    def tuned(self) -> dict[str, LoopbackJob]:
        """Return the jobs by the name of each model that they left behind."""
        jobs: dict[str, LoopbackJob] = {}
        for job in self.jobs.values():
            if saved := self._saved(job):
                names = [str(checkpoint["fine_tuned_model_checkpoint"]) for checkpoint in saved]
                jobs |= dict.fromkeys([job.tuned, *names], job)
        return {name: job for name, job in jobs.items() if name not in self.deleted}

    def _saved(self, job: LoopbackJob) -> list[Json]:
        return job.checkpoints(self.behavior)

    @route("POST", "/fine_tuning/jobs")
    def create_job(self, request: VendorRequest) -> JsonValue:
        """Take a job, after the checks that the vendor makes at once."""
        body = request.json
        if isinstance(body.get("model"), str) and not self._can_tune(body["model"]):
            message = f"Model {body['model']} is not available for fine-tuning or does not exist."
            raise Refused(400, message, code="model_not_available", param="model")
        check_create(body, self.rules)
        for name in ("training_file", "validation_file"):
            file = self.files.get(str(body.get(name)))
            if body.get(name) is not None and (file is None or file.purpose != "fine-tune"):
                message = f"invalid {name}: {body[name]}"
                raise Refused(400, message, code="file_not_found", param=name)
        number, method = len(self.jobs) + 1, method_of(body)
        rows, tokens = rows_and_tokens(self.files[body["training_file"]].content)
        job = LoopbackJob(
            id=f"ftjob-{number:024d}",
            number=number,
            request=body,
            method=method,
            rows=rows,
            tokens=tokens,
            problem=self._problem(body, method),
            metadata=self.keeps_metadata,
            names_model=self.names_models,
        )
        self.jobs[job.id] = job
        return job.as_json(self.behavior)

    def _can_tune(self, model: str) -> bool:
        return model in self.bases or model in self.tuned()

    def _problem(self, body: Mapping[str, Any], method: str) -> str | None:
        problem = problem_in(self.files[body["training_file"]].content, method)
        if problem is None and body.get("validation_file") is not None:
            content = self.files[body["validation_file"]].content
            return problem_in(content, method, least=1)
        return problem

    @route("GET", "/fine_tuning/jobs")
    def list_jobs(self, request: VendorRequest) -> JsonValue:
        """List jobs, the newest first, filtered if the vendor can."""
        wanted = metadata_filter(request)
        listed = [
            job
            for job in reversed(self.jobs.values())
            if job.progress.listed(self.behavior)
            and (not self.filters or wanted.items() <= (job.request.get("metadata") or {}).items())
        ]
        return self._page(request, [job.as_json(self.behavior) for job in listed])

    def _page(self, request: VendorRequest, items: Sequence[Json]) -> JsonValue:
        self.lists += 1
        repeats = self.behavior.lists_repeat
        turned = repeats and self.lists % 2 == 1
        return paged(request, items, 20, overlap=int(repeats), turned=turned)

    @route("GET", "/fine_tuning/jobs/{job_id}")
    def show_job(self, _: VendorRequest, job_id: str) -> JsonValue:
        """Show a job; each look lets time pass."""
        job = self._job(job_id)
        job.look(self.behavior)
        return job.as_json(self.behavior)

    @route("POST", "/fine_tuning/jobs/{job_id}/cancel")
    def cancel_job(self, _: VendorRequest, job_id: str) -> JsonValue:
        """Stop a job that has not ended."""
        job = self._job(job_id)
        if job.ended(self.behavior):
            message = f"Job has already ended: {job.status(self.behavior)}"
            raise Refused(400, message, code="job_not_cancellable")
        job.stopped = job.steps(self.behavior)
        return job.as_json(self.behavior)

    @route("POST", "/fine_tuning/jobs/{job_id}/pause")
    def pause_job(self, _: VendorRequest, job_id: str) -> JsonValue:
        """Let a job stand still."""
        job = self._job(job_id)
        if job.ended(self.behavior):
            raise Refused(400, f"Job cannot be paused: {job.status(self.behavior)}")
        job.paused = True
        return job.as_json(self.behavior)

    @route("POST", "/fine_tuning/jobs/{job_id}/resume")
    def resume_job(self, _: VendorRequest, job_id: str) -> JsonValue:
        """Let a paused job go on."""
        job = self._job(job_id)
        if not job.paused:
            raise Refused(400, f"Job is not paused: {job.status(self.behavior)}")
        job.paused = False
        return job.as_json(self.behavior)

    @route("GET", "/fine_tuning/jobs/{job_id}/events")
    def list_events(self, request: VendorRequest, job_id: str) -> JsonValue:
        """List what happened to a job, the newest first."""
        happened = list(reversed(self._job(job_id).events(self.behavior)))
        return paged(request, happened, 20)

    @route("GET", "/fine_tuning/jobs/{job_id}/checkpoints")
    def list_checkpoints(self, request: VendorRequest, job_id: str) -> JsonValue:
        """List what was saved on the way, the newest first."""
        return with_ends(paged(request, self._saved(self._job(job_id)), 10))

    def content(self, file_id: str) -> bytes:
        """Return the content of a file, be it sent or a job's results."""
        results = {job.results_id: job for job in self.jobs.values() if job.ended(self.behavior)}
        if file_id in results:
            return results[file_id].results(self.behavior)
        return super().content(file_id)

    @route("GET", "/models")
    def list_models(self, _: VendorRequest) -> JsonValue:
        """List bases and tuned models."""
        return {"object": "list", "data": [self._model(name) for name in self._models()]}

    @route("GET", "/models/{name:.+}")
    def show_model(self, _: VendorRequest, name: str) -> JsonValue:
        if name not in self._models():
            raise _no_model(name)
        return self._model(name)

    def _models(self) -> tuple[str, ...]:
        return (*self.bases, *self.answering, *self.tuned())

    def _model(self, name: str) -> JsonValue:
        return {
            "id": name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "org-loopback" if name in self.tuned() else "system",
            "shutdown_date": self.shutdown_dates.get(name),
        }

    @route("DELETE", "/models/{name:.+}")
    def delete_model(self, _: VendorRequest, name: str) -> JsonValue:
        """Forget a tuned model."""
        if name in (*self.bases, *self.answering):
            raise Refused(403, "You have insufficient permissions for this operation.")
        if name not in self.tuned():
            raise _no_model(name)
        self.deleted.add(name)
        return {"id": name, "object": "model", "deleted": True}

    @route("POST", "/chat/completions")
    def chat(self, request: VendorRequest) -> JsonValue | VendorResponse:
        """Answer as a tuned model from the script, as a base always alike."""
        answer = self._completion(request.json)
        return streams.completion(request.json, answer) if request.json.get("stream") else answer

    def _completion(self, body: Body) -> JsonValue:
        model = self._behind(str(body.get("model")))
        if model not in self._models():
            message = f"The model `{model}` does not exist or you do not have access to it."
            raise Refused(404, message, code="model_not_found")
        manner = Manner(
            replies=self.behavior.replies if model in self.tuned() else {},
            otherwise=self.behavior.otherwise,
            finishes=self.finishes,
            thinks=self.reasoning_tokens if THINKING.match(model) else None,
        )
        return completion(body, manner)

    def _line_response(self, body: Body) -> Json:
        """Return the response to one request of a batch."""
        try:
            return {"status_code": 200, "body": self._completion(body)}
        except Refused as refusal:
            return {"status_code": refusal.status, "body": self.error(refusal)}

    def _behind(self, name: str) -> str:
        """Return the model that answers by a name."""
        return name

    @route("POST", "/batches")
    def create_batch(self, request: VendorRequest) -> JsonValue:
        """Take a batch; its file is looked through afterwards."""
        batch_id = f"batch_{len(self.batches) + 1:024d}"
        batch = open_batch(batch_id, request.json, self.files, {*self._models()})
        batch.answered = self.batch_answers
        self.batches[batch_id] = batch
        return batch.as_json(self.behavior)

    @route("GET", "/batches")
    def list_batches(self, request: VendorRequest) -> JsonValue:
        """List batches, the newest first; the vendor has no filter."""
        listed = [
            batch
            for batch in reversed(self.batches.values())
            if batch.progress.listed(self.behavior)
        ]
        return self._page(request, [self._batch_json(batch) for batch in listed])

    @route("GET", "/batches/{batch_id}")
    def show_batch(self, _: VendorRequest, batch_id: str) -> JsonValue:
        """Show a batch; each look lets time pass."""
        batch = self._batch(batch_id)
        batch.look(self.behavior)
        return self._batch_json(batch)

    @route("POST", "/batches/{batch_id}/cancel")
    def cancel_batch(self, _: VendorRequest, batch_id: str) -> JsonValue:
        """Stop a batch that has not ended."""
        batch = self._batch(batch_id)
        batch.stop(self.behavior)
        return self._batch_json(batch)

    def _batch_json(self, batch: LoopbackBatch) -> Json:
        batch.settle(
            self.behavior,
            self._line_response,
            lambda content: self.store_file(f"{batch.id}.jsonl", "batch_output", content),
        )
        return batch.as_json(self.behavior)

    def _batch(self, batch_id: str) -> LoopbackBatch:
        if batch_id not in self.batches:
            raise Refused(404, f"No batch found with id '{batch_id}'.")
        return self.batches[batch_id]

    def _job(self, job_id: str) -> LoopbackJob:
        if job_id not in self.jobs:
            message = f"Could not find fine tune: {job_id}"
            raise Refused(404, message, code="fine_tune_not_found", param="fine_tune_id")
        return self.jobs[job_id]


class MantleVendor(OpenAIVendor):
    """Bedrock: no suffix, and graders that are Lambda functions."""

    rules: ClassVar[Rules] = Rules(
        arguments=Rules().arguments - {"suffix", "integrations"},
        graders=("lambda",),
        reinforced="",
    )
    filters: ClassVar[bool] = False


def _no_model(name: str) -> Refused:
    message = f"The model '{name}' does not exist"
    return Refused(404, message, code="model_not_found", param="model")
