"""A training that was launched by other means, as a job of ours can say it.

Works on the job as Together tells it, fields that the SDK's types leave out included. What has no
place in a job of ours is told in a note.
"""

from __future__ import annotations

from typing import cast

from pydantic import JsonValue
from together.types import FinetuneResponse

from unitune.backends.capabilities import ImportedJob
from unitune.backends.protocol import State
from unitune.errors import BackendError, NotFoundError
from unitune_providers.together.client import Connection, is_gone, translated
from unitune_providers.together.events import state_of
from unitune_providers.together.models import job_by_id, tuned
from unitune_providers.together.options import TogetherOptions

Fields = dict[str, JsonValue]

TUNING = {
    "epochs": "n_epochs",
    "batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "sequence_length": "max_seq_length",
    "seed": "random_seed",
}
LORA = {"rank": "lora_r", "alpha": "lora_alpha", "dropout": "lora_dropout"}
UNCARRIED = {
    "from_checkpoint": "it went on from checkpoint",
    "from_hf_model": "it began from the Hugging Face model",
    "wandb_project_name": "it reported to the Weights & Biases project",
}
"""Fields of a job that a job of ours has no place for, and what they mean."""


def import_job(connection: Connection, job_id: str) -> ImportedJob:
    """Return an existing job with its files; see `unitune.backends.capabilities.Imports`.

    Raises:
        NotFoundError: There is no such job.
    """
    try:
        job = job_by_id(connection, job_id)
    except BackendError as error:
        if is_gone(error):
            hint = "`tg fine-tuning list` shows the trainings that there are."
            raise NotFoundError("training at together", job_id, (), hint) from error
        raise
    fields = cast("Fields", job.to_dict(mode="json", exclude_none=True, warnings=False))
    method = _part(fields, "training_method")
    return ImportedJob(
        base_model=job.model or "",
        method=str(method.get("method") or "sft"),
        training=_content(connection, job.training_file),
        validation=_content(connection, job.validation_file),
        tuning=_tuning(fields),
        options=_options(fields, method),
        model=tuned(job) if state_of(job.status) is State.SUCCEEDED else None,
        notes=_notes(job, fields),
    )


def _content(connection: Connection, file: str | None) -> bytes | None:
    if not file:
        return None
    try:
        with translated(f"hand out file {file}"):
            return connection.files.files.content(file).read()
    except BackendError as error:
        if is_gone(error):
            return None
        raise


def _tuning(fields: Fields) -> Fields:
    tuning: Fields = {
        ours: value
        for ours, theirs in TUNING.items()
        if isinstance(value := fields.get(theirs), int | float) and (value or ours == "seed")
    }
    lora = _part(fields, "training_type")
    if lora.get("type") != "Lora":
        return tuning
    adapter: Fields = {ours: lora[theirs] for ours, theirs in LORA.items() if theirs in lora}
    targets = lora.get("lora_trainable_modules")
    if isinstance(targets, str) and targets:
        adapter["targets"] = [name.strip() for name in targets.split(",")]
    return {**tuning, "lora": adapter} if adapter else tuning


def _options(fields: Fields, method: Fields) -> Fields:
    """Return what is set and is an option of ours; zeros are Together's way to say nothing."""
    scheduler = _part(fields, "lr_scheduler")
    told: Fields = {
        **fields,
        **method,
        **_part(scheduler, "lr_scheduler_args"),
        "lr_scheduler": scheduler.get("lr_scheduler_type"),
        "training": "full" if _part(fields, "training_type").get("type") == "Full" else None,
    }
    if method.get("method") == "dpo":
        told.pop("train_on_inputs", None)
    if not told["lr_scheduler"]:
        told.pop("min_lr_ratio", None)
    if told["lr_scheduler"] != "cosine":
        told.pop("num_cycles", None)
    return {name: told[name] for name in TogetherOptions.model_fields if told.get(name)}


def _notes(job: FinetuneResponse, fields: Fields) -> tuple[str, ...]:
    notes = [f"{what} {fields[name]}" for name, what in UNCARRIED.items() if fields.get(name)]
    if job.multimodal_params and job.multimodal_params.train_vision:
        notes.append("it trained the vision encoder too")
    return tuple(notes)


def _part(fields: Fields, name: str) -> Fields:
    part = fields.get(name)
    return part if isinstance(part, dict) else {}
