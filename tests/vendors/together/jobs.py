"""Trainings of the Together on loopback: jobs that go on when they are looked at."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unitune.testing.loopback import VendorRequest, VendorResponse
from unitune.testing.vendor_setup import Progress, Refused, ServerBehavior, loss, route
from vendors.together.checks import LIMITS, TRAININGS, check_create, check_rows
from vendors.together.files import Files
from vendors.together.parts import NAMESPACE, Fields, fresh, missing, moment, needed
from vendors.together.parts import field as read

DEFAULTS: Fields = {
    "n_epochs": 1,
    "n_evals": 0,
    "n_checkpoints": 1,
    "learning_rate": 1e-5,
    "warmup_ratio": 0.0,
    "max_grad_norm": 1.0,
    "weight_decay": 0.0,
    "packing": True,
    "random_seed": 42,
}
DOLLARS_PER_TOKEN = 0.48e-6
NANODOLLARS = 1_000_000_000
"""In one US dollar: what a job's total_price is counted in (together 3.1.1, lib/utils/tools.py)."""
MODELS = ("Qwen/Qwen3-8B", "Qwen/Qwen3-0.6B")
"""Base models that can be tuned, and answer without an endpoint."""
ENDED = ("completed", "cancelled", "error")


@dataclass(slots=True)
class Job:
    """A training."""

    id: str
    body: Fields
    name: str
    progress: Progress = field(default_factory=Progress)
    training: bytes = b""
    cancelled_at: int | None = None
    """Polls before the cancel."""
    steps_then: int = 0

    def steps(self, behavior: ServerBehavior) -> int:
        """Return the steps that are done; a cancelled job does no more."""
        done = self.progress.steps(behavior)
        return done if self.cancelled_at is None else min(done, self.steps_then)

    def status(self, behavior: ServerBehavior) -> str:
        """Return the vendor's word."""
        if self.cancelled_at is not None:
            return (
                "cancelled" if self.progress.polls > self.cancelled_at + 1 else "cancel_requested"
            )
        if not self.progress.started(behavior):
            return "pending" if self.progress.polls <= 1 else "queued"
        if not self.progress.done(behavior):
            return behavior.state or "running"
        return "error" if behavior.fails else "completed"


class Jobs(Files):
    """All trainings of the account."""

    def __init__(self, behavior: ServerBehavior | None = None) -> None:
        super().__init__(behavior)
        self.jobs: dict[str, Job] = {}

    @route("GET", "/v1/fine-tunes/models/limits")
    def limits(self, request: VendorRequest) -> Fields:
        """Answer what a base model takes."""
        name = request.first("model_name")
        if name not in MODELS:
            raise Refused(404, f"Model {name} is not available for fine-tuning")
        return {"model_name": name, **LIMITS}

    @route("POST", "/v1/fine-tunes/estimate-price")
    def estimate(self, request: VendorRequest) -> Fields:
        """Answer what a training would cost."""
        body = request.json
        training = self.usable(needed(body, "training_file", str))
        if training is None:
            reason = "train_file_not_validated"
            return {"estimation_available": False, "unavailable_reason": reason}
        tokens = _tokens(training, body)
        return {
            "estimation_available": True,
            "estimated_total_price": tokens * DOLLARS_PER_TOKEN,
            "allowed_to_proceed": True,
            "user_limit": 100.0,
            "estimated_train_token_count": tokens,
            "estimated_eval_token_count": 0,
        }

    @route("POST", "/v1/fine-tunes")
    def create_job(self, request: VendorRequest) -> Fields:
        """Create a training, if the request is in order."""
        body = {**request.json, "model": self._base_of(request.json)}
        check_create(body)
        model = body["model"]
        needed(body, "training_file", str)
        for name in ("training_file", "validation_file"):
            if file := read(body, name, str):  # the SDK sends "" where there is none
                content = self.usable(file)
                if content is None:
                    raise Refused(400, f"{name} {file} is not a valid file for fine-tuning")
                check_rows(content, body, name)
        suffix = read(body, "suffix", str)
        parts = (model.rpartition("/")[2], suffix, fresh("")[:8])
        name = f"{NAMESPACE}/{'-'.join(part for part in parts if part)}"
        training = self.usable(body["training_file"]) or b""
        job = Job(fresh("ft-"), body, name, training=training)
        self.jobs[job.id] = job
        return self._job_json(job)

    def _base_of(self, body: Fields) -> str:
        """Return the base model that a create call trains, or whose checkpoint it goes on from."""
        model, checkpoint = (read(body, name, str) for name in ("model", "from_checkpoint"))
        if bool(model) == bool(checkpoint):  # together 3.1.1, fine_tuning.create
            raise Refused(400, "You must specify either a model or a checkpoint, not both")
        if checkpoint:
            whole = checkpoint.partition(":")[0]
            made = (job for job in self.jobs.values() if whole in (job.id, job.name))
            if (job := next(made, None)) is None or job.status(self.behavior) != "completed":
                raise Refused(404, f"Checkpoint {checkpoint} not found")
            return str(job.body["model"])
        if model not in MODELS:
            raise Refused(400, f"Model {model} is not available for fine-tuning")
        return str(model)

    @route("GET", "/v1/fine-tunes")
    def list_jobs(self, _: VendorRequest) -> Fields:
        """Answer all jobs in one piece, the newest last, or as the behavior says."""
        shown = [
            self._job_json(job) for job in self.jobs.values() if job.progress.listed(self.behavior)
        ]
        if self.behavior.lists_repeat:
            shown = random.sample(shown * 2, len(shown) * 2)
        return {"data": shown}

    @route("GET", "/v1/fine-tunes/{job_id}")
    def job(self, _: VendorRequest, job_id: str) -> Fields:
        """Answer one job; looking lets its time pass."""
        job = self._job(job_id)
        job.progress.look()
        status = job.status(self.behavior)
        shown = {**self._job_json(job), "job_id": job.id}
        if status == "completed":
            tokens = _tokens(job.training, job.body)
            shown |= {
                "model_output_path": f"s3://loopback/{job.id}",
                "model_object_id": _merged_id(job),
                "model_object_name": job.name,
                "adapter_object_id": _adapter_id(job),
                "adapter_object_name": f"{job.name}-adapter",
                "token_count": tokens,
                "total_price": int(tokens * DOLLARS_PER_TOKEN * NANODOLLARS),
            }
        return shown

    @route("POST", "/v1/fine-tunes/{job_id}/cancel")
    def cancel_job(self, _: VendorRequest, job_id: str) -> Fields:
        """Ask a job to end."""
        job = self._job(job_id)
        status = job.status(self.behavior)
        if status in ENDED:
            raise Refused(400, f"Job {job_id} is {status} and cannot be cancelled")
        if job.cancelled_at is None:
            job.cancelled_at = job.progress.polls
            job.steps_then = job.progress.steps(self.behavior)
        return self._job_json(job)

    @route("DELETE", "/v1/fine-tunes/{job_id}")
    def delete_job(self, _: VendorRequest, job_id: str) -> Fields:
        """Remove a job with its model."""
        del self.jobs[self._job(job_id).id]
        return {"message": f"Fine-tune job {job_id} deleted"}

    @route("GET", "/v1/fine-tunes/{job_id}/events")
    def events(self, _: VendorRequest, job_id: str) -> Fields:
        """Answer what has happened, oldest first."""
        job = self._job(job_id)
        status, steps = job.status(self.behavior), job.steps(self.behavior)
        happened = [("job_pending", "Job is pending", 0)]
        if job.progress.started(self.behavior):
            happened += [("job_start", "Job started", 0), ("training_start", "Training started", 0)]
        if steps >= self.behavior.steps:
            happened += [("epoch_complete", f"Epoch completed, at step {steps}", steps)]
        if status == "error":
            happened += [("job_error", self.behavior.fails or "", steps)]
        if status == "completed" and job.body.get("early_stopping_enabled"):
            happened += [("early_stopped", "Validation loss stopped improving", steps)]
        if status == "completed":
            happened += [
                ("checkpoint_save", "Checkpoint saved", steps),
                ("training_complete", "Training completed", steps),
                ("job_complete", "Job completed", steps),
            ]
        if job.cancelled_at is not None:
            happened += [("cancel_requested", "Cancel requested", steps)]
        start = job.progress.created
        return {"data": [self._event(event, start + n) for n, event in enumerate(happened)]}

    @route("GET", "/v1/fine-tunes/{job_id}/metrics")
    def metrics(self, request: VendorRequest, job_id: str) -> Fields:
        """Answer the losses of a range of steps."""
        job = self._job(job_id)
        least = request.number("global_step_from", 0)
        most = request.number("global_step_to", 10**9)
        rows: list[Any] = []
        for step in range(1, job.steps(self.behavior) + 1):
            if least <= step <= most:
                row = {"train/loss": loss(step), "train/learning_rate": 1e-5}
                rows.append({**row, "train/global_step": step})
        if job.body.get("n_evals") and rows and job.progress.done(self.behavior):
            rows[-1] |= {"eval/loss": loss(self.behavior.steps) + 0.1}
        return {"metrics": rows}

    @route("GET", "/v1/fine-tunes/{job_id}/checkpoints")
    def checkpoints(self, _: VendorRequest, job_id: str) -> Fields:
        """Answer the checkpoints: of a LoRA job each step as an adapter and merged."""
        job = self._job(job_id)
        if job.status(self.behavior) != "completed":
            return {"data": []}
        step = self.behavior.steps
        kinds = {"Final (adapter)": _adapter_id(job), "Final (merged)": _merged_id(job)}
        return {
            "data": [
                {
                    "step": step,
                    "path": f"s3://loopback/{job.id}/{object_id}",
                    "created_at": moment(time.time()),
                    "checkpoint_type": kind,
                    "object_id": object_id,
                    "object_name": job.name,
                }
                for kind, object_id in kinds.items()
            ]
        }

    @route("GET", "/v1/finetune/download")
    def download(self, request: VendorRequest) -> VendorResponse:
        """Answer the weights of a job."""
        job = self._job(request.first("ft_id") or "")
        which = request.first("checkpoint")
        if which not in ("merged", "adapter", "model_output_path") and not request.first(
            "checkpoint_step"
        ):
            raise Refused(400, "checkpoint is required when checkpoint_step is not set")
        if job.status(self.behavior) != "completed":
            raise Refused(400, f"Job {job.id} has no weights yet")
        return VendorResponse(f"weights of {job.id} ({which})".encode())

    def weights(self, model_id: str) -> Job | None:
        """Return the job whose weights have an id in the registry."""
        for job in self.jobs.values():
            if model_id in (_merged_id(job), _adapter_id(job)):
                return job
        return None

    def _job(self, job_id: str) -> Job:
        if job_id not in self.jobs:
            raise missing("Fine-tune job", job_id)
        return self.jobs[job_id]

    def _event(self, happened: tuple[str, str, int], when: float) -> Fields:
        kind, message, step = happened
        return {
            "object": "fine-tune-event",
            "created_at": moment(when),
            "level": "error" if kind == "job_error" else "info",
            "message": message,
            "type": kind,
            "param_count": 0,
            "token_count": 0,
            "total_steps": self.behavior.steps,
            "wandb_url": "",
            "step": step,
            "checkpoint_path": "",
            "model_path": "",
            "training_offset": 0,
            "hash": "",
            **({"early_stopping_best_step": 1} if kind == "early_stopped" else {}),
        }

    def _job_json(self, job: Job) -> Fields:
        """A job as ``FinetuneResponseTruncated`` of the description."""
        copied = ("model", "training_file", "validation_file", "suffix", "max_seq_length")
        kind = job.body.get("training_type") or _lora()
        sizes: Mapping[str, int] = LIMITS[TRAININGS[kind["type"]]]
        batch = job.body.get("batch_size", "max")
        return {
            **{name: job.body[name] for name in copied if name in job.body},
            **{name: job.body.get(name, default) for name, default in DEFAULTS.items()},
            "id": job.id,
            "status": job.status(self.behavior),
            "created_at": moment(job.progress.created),
            "updated_at": moment(time.time()),
            "user_id": "user_loopback",
            "owner_address": "owner@loopback.test",
            "model_output_name": job.name,
            "batch_size": sizes["max_batch_size"] if batch == "max" else batch,
            "training_type": kind,
            "training_method": job.body.get("training_method")
            or {"method": "sft", "train_on_inputs": "auto"},
            "lr_scheduler": job.body.get("lr_scheduler")
            or {
                "lr_scheduler_type": "cosine",
                "lr_scheduler_args": {"min_lr_ratio": 0.0, "num_cycles": 0.5},
            },
            "events": [],
        }


def _merged_id(job: Job) -> str:
    return f"ml_{job.id.removeprefix('ft-')}-merged"


def _adapter_id(job: Job) -> str:
    return f"ml_{job.id.removeprefix('ft-')}-adapter"


def _tokens(training: bytes, body: Fields) -> int:
    """Return the tokens of a training, one for each four bytes of its rows."""
    return len(training) // 4 * int(body.get("n_epochs") or DEFAULTS["n_epochs"])


def _lora() -> Fields:
    rank = LIMITS["lora_training"]["default_rank"]
    return {
        "type": "Lora",
        "lora_r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "lora_trainable_modules": "all-linear",
    }
