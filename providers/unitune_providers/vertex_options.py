"""What a job may say under ``options.vertex``; read without Google's packages."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from unitune.backends.options import job_options
from unitune.errors import JobError, Unsupported
from unitune.job.job import Job
from unitune.security.spec import Spec

METHODS = ("sft", "dpo")
ADAPTER_SIZES = {
    1: "ADAPTER_SIZE_ONE",
    2: "ADAPTER_SIZE_TWO",
    4: "ADAPTER_SIZE_FOUR",
    8: "ADAPTER_SIZE_EIGHT",
    16: "ADAPTER_SIZE_SIXTEEN",
    32: "ADAPTER_SIZE_THIRTY_TWO",
}
"""By rank. Not every model takes every size; Vertex AI says so when the job is created."""


class VertexOptions(Spec):
    """Settings of Vertex AI's own."""

    learning_rate_multiplier: Annotated[float, Field(gt=0)] | None = None
    """Factor on the model's own learning rate; 1 when left out."""
    export_last_checkpoint_only: bool = False
    """Keep no checkpoints but the last; else each epoch's gets an endpoint."""
    beta: Annotated[float, Field(gt=0)] | None = None
    """For dpo: how closely the tuned model stays with its base."""
    pre_tuned_model_checkpoint_id: str | None = None
    """When a tuned model is tuned on: the checkpoint to begin with; its default when left out."""


def vertex_options(job: Job) -> VertexOptions:
    """Return a job's options for this backend, if the job could be created.

    Raises:
        JobError: A key is unknown, or a value not allowed.
        Unsupported: The method is not one of Vertex AI's.
    """
    options = job_options(job, "vertex", VertexOptions)
    rank = job.tuning.lora.rank
    if job.method not in METHODS:
        raise Unsupported(
            f"backend vertex cannot tune by method {job.method!r}. Methods: {', '.join(METHODS)}."
        )
    if options.beta is not None and job.method != "dpo":
        raise JobError(f"options.vertex.beta is for method dpo, not {job.method}. Leave it out.")
    if options.pre_tuned_model_checkpoint_id is not None and not is_tuned(job.base_model):
        raise JobError(
            "options.vertex.pre_tuned_model_checkpoint_id is for tuning a tuned model on, whose "
            f"name is projects/…/models/…, and model is {job.base_model!r}. Leave it out."
        )
    if rank != "auto" and rank not in ADAPTER_SIZES:
        allowed = ", ".join(str(size) for size in ADAPTER_SIZES)
        raise JobError(f"tuning.lora.rank is {rank}; Vertex AI's adapters have {allowed} or auto.")
    return options


def is_tuned(model: str) -> bool:
    """Whether a base model is itself a tuned one, named by its resource."""
    return model.startswith("projects/")
