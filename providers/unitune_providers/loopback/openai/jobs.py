"""One job at OpenAI, as its server sees it: how far it is, what it says, what happened to it.

Everything is computed from the request, the conduct and the progress, so that looking twice shows
the same: events and checkpoints have ids made from the job's and their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from unitune.testing.loopback import Conduct, Progress, loss
from unitune_providers.loopback.openai.lists import Json


@dataclass(slots=True)
class LoopbackJob:
    """A job with its state.

    Args:
        id: As the vendor names it.
        number: Counted from 1; part of the tuned model's name.
        request: The create call's body.
        method: supervised, dpo or reinforcement.
        problem: What is wrong with its training file.
        metadata: Whether it is kept and given back.
        names_model: Whether the job says what its model is called.
        progress: How far it is.
        stopped: Steps that were done when it was cancelled; None unless it was.
        paused: Whether it waits to be resumed.
    """

    id: str
    number: int
    request: Mapping[str, Any]
    method: str
    problem: str | None = None
    metadata: bool = True
    names_model: bool = True
    progress: Progress = field(default_factory=Progress)
    stopped: int | None = None
    paused: bool = False

    @property
    def tuned(self) -> str:
        """Name of the model that comes out."""
        suffix = self.request.get("suffix") or ""
        return f"ft:{self.request['model']}:loopback:{suffix}:{self.number:08d}"

    def look(self, conduct: Conduct) -> None:
        """Let a poll's worth of time pass, unless the job stands still."""
        if not self.paused and not self.ended(conduct):
            self.progress.look()

    def steps(self, conduct: Conduct) -> int:
        """Return the steps that are done."""
        return self.progress.steps(conduct) if self.stopped is None else self.stopped

    def status(self, conduct: Conduct) -> str:
        """Return the vendor's word."""
        if self.stopped is not None:
            return "cancelled"
        if self._unusable(conduct):
            return "failed"
        if self.progress.done(conduct) and self.progress.started(conduct):
            return "failed" if conduct.fails else "succeeded"
        if self.paused:
            return "paused"
        return conduct.state or self._at_work(conduct)

    def ended(self, conduct: Conduct) -> bool:
        """Whether nothing more will happen."""
        return self.status(conduct) in ("succeeded", "failed", "cancelled")

    def as_json(self, conduct: Conduct) -> Json:
        """Return the job as the vendor tells it."""
        status = self.status(conduct)
        done = status == "succeeded"
        created, steps = int(self.progress.created), self.steps(conduct)
        told: Json = {
            "object": "fine_tuning.job",
            "id": self.id,
            "model": self.request["model"],
            "created_at": created,
            "finished_at": created + steps if self.ended(conduct) else None,
            "fine_tuned_model": self.tuned if done else None,
            "organization_id": "org-loopback",
            "result_files": [],
            "status": status,
            "training_file": self.request["training_file"],
            "validation_file": self.request.get("validation_file"),
            "hyperparameters": self.request.get("hyperparameters", {}),
            "trained_tokens": 100 * steps if done else None,
            "error": self._error(conduct) if status == "failed" else None,
            "user_provided_suffix": self.request.get("suffix"),
            "seed": self.request.get("seed", 1036326793),
            "estimated_finish": None,
            "integrations": self.request.get("integrations") or [],
            "method": self.request.get("method", {"type": "supervised", "supervised": {}}),
            "metadata": self.request.get("metadata") if self.metadata else None,
        }
        if not self.names_model:
            told["suffix"] = told.pop("user_provided_suffix")
            del told["fine_tuned_model"]
        return told

    def events(self, conduct: Conduct) -> list[Json]:
        """Return what happened, oldest first."""
        happened = list(self._happened(conduct))
        created = int(self.progress.created)
        return [
            {
                "object": "fine_tuning.job.event",
                "id": f"ftevent-{self.number:04d}-{number:04d}",
                "created_at": created + number,
                "level": level,
                "message": message,
                "type": "metrics" if data else "message",
                "data": data,
            }
            for number, (level, message, data) in enumerate(happened)
        ]

    def checkpoints(self, conduct: Conduct) -> list[Json]:
        """Return the models from on the way, the newest first."""
        if self.status(conduct) != "succeeded":
            return []
        half = conduct.steps // 2
        return [
            {
                "object": "fine_tuning.job.checkpoint",
                "id": f"ftckpt_{self.number:04d}_{step}",
                "created_at": int(self.progress.created) + step,
                "fine_tuned_model_checkpoint": f"{self.tuned}:ckpt-step-{step}",
                "fine_tuning_job_id": self.id,
                "step_number": step,
                "metrics": {"step": step, "train_loss": loss(step), "full_valid_loss": loss(step)},
            }
            for step in sorted({half, conduct.steps} - {0}, reverse=True)
        ]

    def _unusable(self, conduct: Conduct) -> bool:
        return bool(self.problem or conduct.rejects_files) and self.progress.polls > 0

    def _at_work(self, conduct: Conduct) -> str:
        if self.progress.started(conduct):
            return "running"
        return "queued" if self.progress.polls else "validating_files"

    def _error(self, conduct: Conduct) -> Json:
        bad = self.problem or conduct.rejects_files
        if bad:
            return {"code": "invalid_training_file", "message": bad, "param": "training_file"}
        return {"code": "server_error", "message": conduct.fails or "", "param": None}

    def _happened(self, conduct: Conduct) -> Iterator[tuple[str, str, Json]]:
        yield "info", f"Created fine-tuning job: {self.id}", {}
        yield "info", f"Validating training file: {self.request['training_file']}", {}
        status = self.status(conduct)
        if self._unusable(conduct):
            yield "error", str(self._error(conduct)["message"]), {}
            return
        if self.progress.started(conduct):
            yield "info", "Fine-tuning job started", {}
        for step in range(1, self.steps(conduct) + 1):
            yield (
                "info",
                f"Step {step}/{conduct.steps}: training loss={loss(step):.2f}",
                {
                    "step": step,
                    "total_steps": conduct.steps,
                    "train_loss": loss(step),
                    "train_mean_token_accuracy": round(1 - loss(step) / 2, 6),
                    **({"full_valid_loss": loss(step)} if step == conduct.steps else {}),
                },
            )
        if status == "succeeded":
            yield "info", f"New fine-tuned model created: {self.tuned}", {}
            yield "info", "The job has successfully completed", {}
        if status == "failed":
            yield "error", f"The job failed: {conduct.fails}", {}
        if status == "cancelled":
            yield "info", "Fine-tuning job cancelled", {}
