"""Tuned models at Together: the job behind a name, its checkpoints and its weights.

Together has a job (``ft-…``), the name of the model that it makes, and an entry for the weights in
the project's registry (``ml_…``). A `TunedModel` carries the name, which the list of jobs shows
too. A checkpoint is called NAME:STEP, as Together itself calls it where a training starts from one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from together import omit
from together.types import FinetuneResponse
from together.types.fine_tuning_list_response import Data as ListedJob
from together.types.fine_tuning_list_response import FineTuningListResponse

from unitune.backends.capabilities import Checkpoint
from unitune.errors import BackendError, NotFoundError, Unsupported
from unitune.models import TunedModel
from unitune_providers.together.client import Connection, is_gone, translated

BACKEND = "together"


def jobs(connection: Connection) -> list[ListedJob]:
    """Return all jobs of the account, each once; Together gives them in one answer."""
    with translated("list the trainings"):
        listed = connection.training(FineTuningListResponse).data
    return list({job.id: job for job in listed or [] if job.id}.values())


def job_by_id(connection: Connection, job_id: str) -> FinetuneResponse:
    """Return a job.

    Raises:
        BackendError: There is none; its status is 404.
    """
    with translated(f"look at training {job_id}"):
        return connection.training(FinetuneResponse, job_id)


def tuned(job: FinetuneResponse) -> TunedModel | None:
    """Return the model that a job makes; None when Together has not named it."""
    name = job.x_model_output_name or job.api_model_object_name or job.adapter_object_name
    if not name:
        return None
    return TunedModel(backend=BACKEND, name=name, base=job.model or "")


def checkpoints(connection: Connection, job_id: str, base: str) -> Sequence[Checkpoint]:
    """Return the checkpoints of a job, oldest first; see `Checkpoints`."""
    model = tuned(job_by_id(connection, job_id))
    with translated(f"list the checkpoints of training {job_id}"):
        listed = connection.reads.fine_tuning.list_checkpoints(job_id).data
    name = model.name if model else job_id
    # A LoRA job lists each step twice, as an adapter and merged; it is one model.
    told = [entry for entry in listed or [] if cast("int | None", entry.step) is not None]
    kinds = {entry.step: entry.checkpoint_type for entry in told}
    return [
        Checkpoint(
            step=step,
            model=TunedModel(backend=BACKEND, name=f"{name}:{step}", base=base),
            metrics={"checkpoint_type": kinds[step]},
        )
        for step in sorted(kinds)
    ]


def registry_id(connection: Connection, model: TunedModel) -> str:
    """Return the id of a model's weights in the project's registry.

    Raises:
        NotFoundError: No job made such a model, or its weights are not there.
    """
    name, step = _parts(model.name)
    job = _job_named(connection, name)
    if job is None:
        raise _unknown(model)
    found = _final_id(connection, job) if step is None else _step_id(connection, job, step)
    if found is None:
        raise _unknown(model)
    return found


def delete(connection: Connection, model: TunedModel) -> None:
    """Remove a model with its job; one that is gone is no error.

    Raises:
        Unsupported: It is a checkpoint, which goes with its job.
    """
    name, step = _parts(model.name)
    if step is not None:
        raise Unsupported(
            f"together cannot remove checkpoint {model.name} alone. It goes with model {name}."
        )
    job = _job_named(connection, name)
    if job is None:
        return
    try:
        with translated(f"remove {model.name}"):
            connection.writes.fine_tuning.delete(job)
    except BackendError as error:
        if not is_gone(error):
            raise


def download(connection: Connection, model: TunedModel, folder: Path) -> Path:
    """Write a model's weights into a folder and return the file.

    For a LoRA training that is the adapter, which there always is; merged weights are kept for
    some base models only.

    Raises:
        NotFoundError: No job made such a model.
        Unreachable: The file did not come whole.
    """
    name, step = _parts(model.name)
    job_id = _job_named(connection, name)
    if job_id is None:
        raise _unknown(model)
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{secrets.token_hex(8)}.part"
    try:
        kind = _stream(connection, job_id, step, draft)
        # The two archives that the SDK tells apart, by content type.
        ending = ".tar.gz" if "x-tar" in kind else ".tar.zst"
        place = folder / (model.name.replace("/", "--").replace(":", "-step-") + ending)
        return draft.rename(place)
    finally:
        draft.unlink(missing_ok=True)


def _stream(connection: Connection, job_id: str, step: int | None, draft: Path) -> str:
    """Write the archive as it comes and return its content type."""
    job = job_by_id(connection, job_id)
    full = job.training_type is not None and job.training_type.type == "Full"
    which: Any = "model_output_path" if full else "adapter"
    with (
        translated(f"hand out the weights of training {job_id}"),
        connection.files.fine_tuning.with_streaming_response.content(
            ft_id=job_id,
            checkpoint=which if step is None else omit,
            checkpoint_step=omit if step is None else step,
        ) as answer,
        draft.open("xb") as file,
    ):
        for piece in answer.iter_bytes():
            file.write(piece)
        return str(answer.headers.get("content-type", ""))


def _parts(name: str) -> tuple[str, int | None]:
    """Return a model's name and, of a checkpoint, its step."""
    model, _, step = name.rpartition(":")
    return (model, int(step)) if model and step.isdigit() else (name, None)


def _job_named(connection: Connection, name: str) -> str | None:
    """Return the id of the job that made a model."""
    return next((job.id for job in jobs(connection) if job.x_model_output_name == name), None)


def _final_id(connection: Connection, job_id: str) -> str | None:
    job = job_by_id(connection, job_id)
    # Together merges an adapter into its base when it is deployed on its own.
    return job.api_model_object_id or job.adapter_object_id


def _step_id(connection: Connection, job_id: str, step: int) -> str | None:
    with translated(f"list the checkpoints of training {job_id}"):
        listed = connection.reads.fine_tuning.list_checkpoints(job_id).data
    found: Iterator[str | None] = (one.object_id for one in listed if one.step == step)
    return next((one for one in found if one), None)


def _unknown(model: TunedModel) -> NotFoundError:
    hint = "It may have been deleted; `tg fine-tuning list` shows what is there."
    return NotFoundError("model at together", model.name, (), hint)
