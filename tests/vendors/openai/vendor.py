"""OpenAI on loopback: files, fine-tuning jobs, models, chat completions and batches, on its wire.

Jobs and batches move with each look at them (`ServerBehavior`), files are checked as the
vendor's validation would, and what the vendor refuses is refused in its words.
Paths may begin with ``/v1`` or, as on Azure, with ``/openai/v1``. Other vendors of the wire are
`MantleVendor`, `NebiusVendor` and `vendors.openai.azure`, which differ in what
they know and give back.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest, VendorResponse, thinned
from unitune.testing.vendor_setup import ServerBehavior
from vendors import shapes
from vendors.openai.batches import LoopbackBatch, open_batch
from vendors.openai.chat import THINKING, Finish, Manner, completion
from vendors.openai.checks import Body, Refused, Rules, body_of, check_create, method_of
from vendors.openai.files import FileShelf
from vendors.openai.jobs import LoopbackJob
from vendors.openai.lists import Json, Paged, metadata_asked_for, paged
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
PREFIX = re.compile(r"^(/openai)?/v1")
JOBS = r"/fine_tuning/jobs"
A_JOB = JOBS + r"/(?P<name>[^/]+)"


@dataclass(slots=True)
class OpenAIVendor:
    """The server's state.

    Args:
        behavior: How jobs, lists and models behave.
        key: The one that is taken.
        bases: Models that can be tuned.
        answering: Others that answer.
        reasoning_tokens: How many tokens a model that thinks spends on it before each answer.
        finishes: How answers end that are no plain ones, by the last user message.
        batch_answers: How many requests of a new batch are answered within its window, so that it
            expires; None: all.
        shutdown_dates: When models stop, where that is announced.
    """

    rules: ClassVar[Rules] = Rules()
    key_header: ClassVar[str] = "authorization"
    filters: ClassVar[bool] = True
    keeps_metadata: ClassVar[bool] = True
    names_models: ClassVar[bool] = True

    behavior: ServerBehavior = field(default_factory=ServerBehavior)
    key: str = KEY
    bases: Sequence[str] = BASES
    answering: Sequence[str] = ANSWERING
    reasoning_tokens: int = 320
    finishes: dict[str, Finish] = field(default_factory=dict[str, Finish])
    files: FileShelf = field(default_factory=FileShelf)
    jobs: dict[str, LoopbackJob] = field(default_factory=dict[str, LoopbackJob])
    deleted: set[str] = field(default_factory=set[str])
    batches: dict[str, LoopbackBatch] = field(default_factory=dict[str, LoopbackBatch])
    batch_answers: int | None = None
    shutdown_dates: dict[str, str] = field(default_factory=dict[str, str])
    lists: int = 0

    def answer(self, asked: VendorRequest) -> VendorResponse:
        """Answer a request, changing state as the vendor would."""
        try:
            self._check_key(asked)
            return thinned(
                self.behavior.omits, VendorResponse(self._act(asked)), asked, shapes.openai
            )
        except Refused as refusal:
            return refusal.answer

    def _act(self, asked: VendorRequest) -> JsonValue | bytes:
        path = PREFIX.sub("", asked.path)
        for method, pattern, act in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and method == asked.method:
                return act(self, asked, found.groupdict().get("name", ""))
        raise Refused(f"Invalid URL ({asked.method} {asked.path})", 404)

    def tuned(self) -> dict[str, LoopbackJob]:
        """Return the jobs by the name of each model that they left behind."""
        found: dict[str, LoopbackJob] = {}
        for job in self.jobs.values():
            names = [str(one["fine_tuned_model_checkpoint"]) for one in self._saved(job)]
            found |= dict.fromkeys([job.tuned, *names] if names else [], job)
        return {name: job for name, job in found.items() if name not in self.deleted}

    def _saved(self, job: LoopbackJob) -> list[Json]:
        return job.checkpoints(self.behavior)

    def _check_key(self, asked: VendorRequest) -> None:
        given = asked.headers.get(self.key_header, "").removeprefix("Bearer ")
        if not hmac.compare_digest(given, self.key):
            raise Refused("Incorrect API key provided.", 401, "invalid_api_key")

    def create_job(self, asked: VendorRequest, _: str) -> JsonValue:
        """Take a job, after the checks that the vendor makes at once."""
        body = body_of(asked)
        if isinstance(body.get("model"), str) and not self._can_tune(body["model"]):
            words = f"Model {body['model']} is not available for fine-tuning or does not exist."
            raise Refused(words, code="model_not_available", param="model")
        check_create(body, self.rules)
        for name in ("training_file", "validation_file"):
            file = self.files.stored.get(str(body.get(name)))
            if body.get(name) is not None and (file is None or file.purpose != "fine-tune"):
                raise Refused(f"invalid {name}: {body[name]}", code="file_not_found", param=name)
        number, method = len(self.jobs) + 1, method_of(body)
        rows, tokens = rows_and_tokens(self.files.stored[body["training_file"]].content)
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
        problem = problem_in(self.files.stored[body["training_file"]].content, method)
        if problem is None and body.get("validation_file") is not None:
            content = self.files.stored[body["validation_file"]].content
            return problem_in(content, method, least=1)
        return problem

    def list_jobs(self, asked: VendorRequest, _: str) -> JsonValue:
        """List jobs, the newest first, filtered if the vendor can."""
        wanted = metadata_asked_for(asked)
        listed = [
            job
            for job in reversed(self.jobs.values())
            if job.progress.listed(self.behavior)
            and (not self.filters or wanted.items() <= (job.request.get("metadata") or {}).items())
        ]
        return self._page(asked, [job.as_json(self.behavior) for job in listed])

    def _page(self, asked: VendorRequest, told: Sequence[Json]) -> JsonValue:
        page = paged(asked, told, 20, overlap=int(self.behavior.lists_repeat))
        self.lists += 1
        if self.behavior.lists_repeat and self.lists % 2:
            page = Paged(page.items[::-1], page.more)
        return page.without_ends

    def show_job(self, _: VendorRequest, name: str) -> JsonValue:
        """Show a job; each look lets time pass."""
        job = self._job(name)
        job.look(self.behavior)
        return job.as_json(self.behavior)

    def cancel_job(self, _: VendorRequest, name: str) -> JsonValue:
        """Stop a job that has not ended."""
        job = self._job(name)
        if job.ended(self.behavior):
            words = f"Job has already ended: {job.status(self.behavior)}"
            raise Refused(words, code="job_not_cancellable")
        job.stopped = job.steps(self.behavior)
        return job.as_json(self.behavior)

    def pause_job(self, _: VendorRequest, name: str) -> JsonValue:
        """Let a job stand still."""
        job = self._job(name)
        if job.ended(self.behavior):
            raise Refused(f"Job cannot be paused: {job.status(self.behavior)}")
        job.paused = True
        return job.as_json(self.behavior)

    def resume_job(self, _: VendorRequest, name: str) -> JsonValue:
        """Let a paused job go on."""
        job = self._job(name)
        if not job.paused:
            raise Refused(f"Job is not paused: {job.status(self.behavior)}")
        job.paused = False
        return job.as_json(self.behavior)

    def list_events(self, asked: VendorRequest, name: str) -> JsonValue:
        """List what happened to a job, the newest first."""
        happened = list(reversed(self._job(name).events(self.behavior)))
        return paged(asked, happened, 20).without_ends

    def list_checkpoints(self, asked: VendorRequest, name: str) -> JsonValue:
        """List what was saved on the way, the newest first."""
        return paged(asked, self._saved(self._job(name)), 10).as_json()

    def create_file(self, asked: VendorRequest, _: str) -> JsonValue:
        """Keep a file."""
        return self.files.keep(asked)

    def list_files(self, asked: VendorRequest, _: str) -> JsonValue:
        """List files, the newest first."""
        listed = self.files.listed(asked.first("purpose"))
        return paged(asked, listed, 10_000, most=10_000).as_json(empty="")

    def show_file(self, _: VendorRequest, name: str) -> JsonValue:
        """Show a file."""
        return self.files.shown(name)

    def read_file(self, _: VendorRequest, name: str) -> bytes:
        """Hand a file out, be it sent or a job's results."""
        results = {job.results_id: job for job in self.jobs.values() if job.ended(self.behavior)}
        if name in results:
            return results[name].results(self.behavior)
        return self.files.at(name).content

    def delete_file(self, _: VendorRequest, name: str) -> JsonValue:
        """Forget a file."""
        return self.files.forget(name)

    def list_models(self, _: VendorRequest, __: str) -> JsonValue:
        """List bases and tuned models."""
        return {"object": "list", "data": [self._model(name) for name in self._models()]}

    def show_model(self, _: VendorRequest, name: str) -> JsonValue:
        """Show a model."""
        if name not in self._models():
            raise Refused(f"The model '{name}' does not exist", 404, "model_not_found", "model")
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

    def delete_model(self, _: VendorRequest, name: str) -> JsonValue:
        """Forget a tuned model."""
        if name in (*self.bases, *self.answering):
            raise Refused("You have insufficient permissions for this operation.", 403)
        if name not in self.tuned():
            raise Refused(f"The model '{name}' does not exist", 404, "model_not_found", "model")
        self.deleted.add(name)
        return {"id": name, "object": "model", "deleted": True}

    def chat(self, asked: VendorRequest, _: str) -> JsonValue:
        """VendorResponse as a tuned model from the script, as a base always alike."""
        return self._completion(body_of(asked))

    def _completion(self, body: Body) -> JsonValue:
        model = self._behind(str(body.get("model")))
        if model not in self._models():
            words = f"The model `{model}` does not exist or you do not have access to it."
            raise Refused(words, 404, "model_not_found")
        said = Manner(
            replies=self.behavior.replies if model in self.tuned() else {},
            otherwise=self.behavior.otherwise,
            finishes=self.finishes,
            thinks=self.reasoning_tokens if THINKING.match(model) else None,
        )
        return completion(body, said)

    def _behind(self, name: str) -> str:
        """Return the model that answers by a name."""
        return name

    def create_batch(self, asked: VendorRequest, _: str) -> JsonValue:
        """Take a batch; its file is looked through afterwards."""
        batch_id = f"batch_{len(self.batches) + 1:024d}"
        batch = open_batch(batch_id, body_of(asked), self.files, {*self._models()})
        batch.answered = self.batch_answers
        self.batches[batch_id] = batch
        return batch.as_json(self.behavior)

    def list_batches(self, asked: VendorRequest, _: str) -> JsonValue:
        """List batches, the newest first; the vendor has no filter."""
        listed = [
            batch
            for batch in reversed(self.batches.values())
            if batch.progress.listed(self.behavior)
        ]
        return self._page(asked, [self._told(batch) for batch in listed])

    def show_batch(self, _: VendorRequest, name: str) -> JsonValue:
        """Show a batch; each look lets time pass."""
        batch = self._batch(name)
        batch.look(self.behavior)
        return self._told(batch)

    def cancel_batch(self, _: VendorRequest, name: str) -> JsonValue:
        """Stop a batch that has not ended."""
        batch = self._batch(name)
        batch.stop(self.behavior)
        return self._told(batch)

    def _told(self, batch: LoopbackBatch) -> Json:
        batch.settle(
            self.behavior,
            self._completion,
            lambda content: self.files.put(f"{batch.id}.jsonl", "batch_output", content),
        )
        return batch.as_json(self.behavior)

    def _batch(self, name: str) -> LoopbackBatch:
        if name not in self.batches:
            raise Refused(f"No batch found with id '{name}'.", 404)
        return self.batches[name]

    def _job(self, name: str) -> LoopbackJob:
        if name not in self.jobs:
            words = f"Could not find fine tune: {name}"
            raise Refused(words, 404, "fine_tune_not_found", "fine_tune_id")
        return self.jobs[name]


class MantleVendor(OpenAIVendor):
    """Bedrock: no suffix, and graders that are Lambda functions."""

    rules: ClassVar[Rules] = Rules(
        arguments=Rules().arguments - {"suffix", "integrations"},
        graders=("lambda",),
        reinforced="",
    )
    filters: ClassVar[bool] = False


class NebiusVendor(OpenAIVendor):
    """Nebius: hyperparameters of its own at the top level, no metadata, models without names."""

    rules: ClassVar[Rules] = Rules(
        arguments=Rules().arguments - {"metadata"},
        own_hyperparameters=frozenset(
            {
                "n_epochs",
                "batch_size",
                "learning_rate",
                "warmup_ratio",
                "weight_decay",
                "packing",
                "max_grad_norm",
                "context_length",
                "lora",
                "lora_r",
                "lora_alpha",
                "lora_dropout",
            }
        ),
    )
    filters: ClassVar[bool] = False
    keeps_metadata: ClassVar[bool] = False
    names_models: ClassVar[bool] = False


Act = Callable[[OpenAIVendor, VendorRequest, str], "JsonValue | bytes"]
ROUTES: tuple[tuple[str, str, Act], ...] = (
    ("POST", JOBS, OpenAIVendor.create_job),
    ("GET", JOBS, OpenAIVendor.list_jobs),
    ("GET", A_JOB, OpenAIVendor.show_job),
    ("POST", A_JOB + "/cancel", OpenAIVendor.cancel_job),
    ("POST", A_JOB + "/pause", OpenAIVendor.pause_job),
    ("POST", A_JOB + "/resume", OpenAIVendor.resume_job),
    ("GET", A_JOB + "/events", OpenAIVendor.list_events),
    ("GET", A_JOB + "/checkpoints", OpenAIVendor.list_checkpoints),
    ("POST", r"/files", OpenAIVendor.create_file),
    ("GET", r"/files", OpenAIVendor.list_files),
    ("GET", r"/files/(?P<name>[^/]+)", OpenAIVendor.show_file),
    ("GET", r"/files/(?P<name>[^/]+)/content", OpenAIVendor.read_file),
    ("DELETE", r"/files/(?P<name>[^/]+)", OpenAIVendor.delete_file),
    ("GET", r"/models", OpenAIVendor.list_models),
    ("GET", r"/models/(?P<name>.+)", OpenAIVendor.show_model),
    ("DELETE", r"/models/(?P<name>.+)", OpenAIVendor.delete_model),
    ("POST", r"/chat/completions", OpenAIVendor.chat),
    ("POST", r"/batches", OpenAIVendor.create_batch),
    ("GET", r"/batches", OpenAIVendor.list_batches),
    ("GET", r"/batches/(?P<name>[^/]+)", OpenAIVendor.show_batch),
    ("POST", r"/batches/(?P<name>[^/]+)/cancel", OpenAIVendor.cancel_batch),
)
