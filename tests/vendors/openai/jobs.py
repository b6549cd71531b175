"""One job at OpenAI, as its server sees it: how far it is, what it says, what happened to it.

Everything is computed from the request, its file, the behavior and the progress, so that looking
twice shows the same: events and checkpoints have ids made from the job's and their number. As at
the vendor, `hyperparameters` are shown of supervised jobs alone (null for dpo, absent for
reinforcement), are `auto` until the training begins, and steps of reinforcement have no loss.

Sources: OpenAI's published description (API 2.3.0), FineTuningJob and the examples of POST
/fine_tuning/jobs; its guide on reinforcement fine-tuning, a copy (data of events); openai/
openai-cookbook, Chat_finetuning_data_prep.ipynb (epochs).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from unitune.testing.vendor_setup import Progress, ServerBehavior, loss
from vendors.openai.lists import Json

AUTO = ("n_epochs", "batch_size", "learning_rate_multiplier")
TARGET_EPOCHS, FEWEST_EXAMPLES, MOST_EXAMPLES, MOST_EPOCHS = 3, 100, 25_000, 25


def epochs_for(rows: int) -> int:
    """Return the epochs that the vendor chooses by the rows of a file."""
    if rows * TARGET_EPOCHS < FEWEST_EXAMPLES:
        return min(MOST_EPOCHS, FEWEST_EXAMPLES // max(1, rows))
    if rows * TARGET_EPOCHS > MOST_EXAMPLES:
        return max(1, MOST_EXAMPLES // rows)
    return TARGET_EPOCHS


def reward(step: int) -> float:
    """Return the mean reward of a step, counted from 1: a rising curve."""
    return round(1 - 1 / (step + 1), 6)


@dataclass(slots=True)
class LoopbackJob:
    """A job with its state."""

    id: str
    number: int  # counted from 1; part of the tuned model's name
    request: Mapping[str, Any]  # the create call's body
    method: str  # supervised, dpo or reinforcement
    rows: int = 0  # rows of its training file
    tokens: int = 0  # tokens of an epoch
    problem: str | None = None  # what is wrong with its training file
    metadata: bool = True  # whether it is kept and given back
    names_model: bool = True  # whether the job says what its model is called
    progress: Progress = field(default_factory=Progress)
    stopped: int | None = None  # steps that were done when it was cancelled; None unless it was
    paused: bool = False  # whether it waits to be resumed

    @property
    def tuned(self) -> str:
        """Name of the model that comes out."""
        suffix = self.request.get("suffix") or ""
        base = str(self.request["model"]).removeprefix("ft:").partition(":")[0]
        return f"ft:{base}:loopback:{suffix}:{self.number:08d}"

    def look(self, behavior: ServerBehavior) -> None:
        """Let a poll's worth of time pass, unless the job stands still."""
        if not self.paused and not self.ended(behavior):
            self.progress.look()

    def steps(self, behavior: ServerBehavior) -> int:
        """Return the steps that are done."""
        return self.progress.steps(behavior) if self.stopped is None else self.stopped

    def status(self, behavior: ServerBehavior) -> str:
        """Return the vendor's word."""
        if self.stopped is not None:
            return "cancelled"
        if self._unusable(behavior):
            return "failed"
        if self.progress.done(behavior) and self.progress.started(behavior):
            return "failed" if behavior.fails else "succeeded"
        if self.paused:
            return "paused"
        return behavior.state or self._at_work(behavior)

    def ended(self, behavior: ServerBehavior) -> bool:
        """Whether nothing more will happen."""
        return self.status(behavior) in ("succeeded", "failed", "cancelled")

    def as_json(self, behavior: ServerBehavior) -> Json:
        """Return the job as the vendor shows it."""
        status = self.status(behavior)
        done = status == "succeeded"
        created, steps = int(self.progress.created), self.steps(behavior)
        shown: Json = {
            "object": "fine_tuning.job",
            "id": self.id,
            "model": self.request["model"],
            "created_at": created,
            "finished_at": created + steps if self.ended(behavior) else None,
            "fine_tuned_model": self.tuned if done else None,
            "organization_id": "org-loopback",
            "result_files": [self.results_id] if done else [],
            "status": status,
            "training_file": self.request["training_file"],
            "validation_file": self.request.get("validation_file"),
            "trained_tokens": self._trained_tokens() if done else None,
            "error": self._error(behavior) if status == "failed" else None,
            "user_provided_suffix": self.request.get("suffix"),
            "seed": self.request.get("seed", 1036326793),
            "estimated_finish": None,
            "integrations": self.request.get("integrations") or [],
            "method": self._method(behavior),
            "metadata": self.request.get("metadata") if self.metadata else None,
        }
        if self.method != "reinforcement":
            supervised = self.method == "supervised"
            shown["hyperparameters"] = self._hyperparameters(behavior) if supervised else None
        if "trainingType" in self.request:
            shown["trainingType"] = self.request["trainingType"]  # Azure's
        if not self.names_model:
            shown["suffix"] = shown.pop("user_provided_suffix")
            del shown["fine_tuned_model"]
        return shown

    @property
    def results_id(self) -> str:
        """Id of the file with its figures."""
        return f"file-results-{self.number:08d}"

    def results(self, behavior: ServerBehavior) -> bytes:
        """Return the file with its figures: CSV in base64, as the vendor has it."""
        steps = [self._data(step, behavior) for step in range(1, self.steps(behavior) + 1)]
        names = list(dict.fromkeys(name for data in steps for name in data))
        lines = [",".join(str(data.get(name, "")) for name in names) for data in steps]
        return base64.b64encode("\n".join([",".join(names), *lines, ""]).encode())

    def _given(self) -> Mapping[str, Any]:
        inner = self.request.get("method", {}).get(self.method, {}).get("hyperparameters")
        return inner or self.request.get("hyperparameters") or {}

    def _hyperparameters(self, behavior: ServerBehavior) -> Json:
        """Return what the request chose; what was `auto` is a number once the training runs."""
        chosen: Json = dict.fromkeys(AUTO, "auto")
        if self.progress.started(behavior):
            chosen = {
                "n_epochs": epochs_for(self.rows),
                "batch_size": max(1, math.ceil(0.002 * self.rows)),
                "learning_rate_multiplier": 1.8,
            }
        fixed = {name: value for name, value in self._given().items() if value != "auto"}
        return {**chosen, **fixed}

    def _method(self, behavior: ServerBehavior) -> Json:
        given = self.request.get("method", {}).get(self.method, {})
        inner: Json = {**given, "hyperparameters": self._hyperparameters(behavior)}
        return {"type": self.method, self.method: inner}

    def _trained_tokens(self) -> int | None:
        if self.method == "reinforcement":
            return None  # it is billed by the hour
        return self.tokens * int(self._given().get("n_epochs", epochs_for(self.rows)))

    def events(self, behavior: ServerBehavior) -> list[Json]:
        """Return what happened, oldest first."""
        happened = list(self._happened(behavior))
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

    def checkpoints(self, behavior: ServerBehavior) -> list[Json]:
        """Return the models from on the way, the newest first."""
        if self.status(behavior) != "succeeded":
            return []
        half = behavior.steps // 2
        return [
            {
                "object": "fine_tuning.job.checkpoint",
                "id": f"ftckpt_{self.number:04d}_{step}",
                "created_at": int(self.progress.created) + step,
                "fine_tuned_model_checkpoint": f"{self.tuned}:ckpt-step-{step}",
                "fine_tuning_job_id": self.id,
                "step_number": step,
                "metrics": {
                    name: value
                    for name, value in self._data(step, behavior, validated=True).items()
                    if name != "total_steps"
                },
            }
            for step in sorted({half, behavior.steps} - {0}, reverse=True)
        ]

    def _unusable(self, behavior: ServerBehavior) -> bool:
        return bool(self.problem or behavior.rejects_files) and self.progress.polls > 0

    def _at_work(self, behavior: ServerBehavior) -> str:
        if self.progress.started(behavior):
            return "running"
        return "queued" if self.progress.polls else "validating_files"

    def _error(self, behavior: ServerBehavior) -> Json:
        bad = self.problem or behavior.rejects_files
        if bad:
            return {"code": "invalid_training_file", "message": bad, "param": "training_file"}
        return {"code": "server_error", "message": behavior.fails or "", "param": None}

    def _data(self, step: int, behavior: ServerBehavior, *, validated: bool = False) -> Json:
        """Return the figures of a step."""
        data: Json = {"step": step, "total_steps": behavior.steps}
        if self.method == "reinforcement":
            data["train_mean_reward"] = reward(step)
            return {**data, **({"full_valid_mean_reward": reward(step)} if validated else {})}
        data |= {
            "train_loss": loss(step),
            "train_mean_token_accuracy": round(1 - loss(step) / 2, 6),
        }
        return {**data, **({"full_valid_loss": loss(step)} if validated else {})}

    def _happened(self, behavior: ServerBehavior) -> Iterator[tuple[str, str, Json]]:
        yield "info", f"Created fine-tuning job: {self.id}", {}
        yield "info", f"Validating training file: {self.request['training_file']}", {}
        status = self.status(behavior)
        if self._unusable(behavior):
            yield "error", str(self._error(behavior)["message"]), {}
            return
        if self.progress.started(behavior):
            yield "info", "Fine-tuning job started", {}
        for step in range(1, self.steps(behavior) + 1):
            figure = (
                f"train mean reward={reward(step):.2f}"
                if self.method == "reinforcement"
                else f"training loss={loss(step):.2f}"
            )
            message = f"Step {step}/{behavior.steps}: {figure}"
            yield "info", message, self._data(step, behavior, validated=step == behavior.steps)
        if status == "succeeded":
            yield "info", f"New fine-tuned model created: {self.tuned}", {}
            yield "info", "The job has successfully completed", {}
        if status == "failed":
            yield "error", f"The job failed: {behavior.fails}", {}
        if status == "cancelled":
            yield "info", "Fine-tuning job cancelled", {}
