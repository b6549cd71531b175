"""What the vertex backend alone understands, and a job as Vertex AI's tuning configuration.

Options stand in ``options: {vertex: {…}}`` of a job; unknown keys are refused with the nearest
right one. The bucket is no option: files are handed over before a job is known, so it comes from
``UNITUNE_VERTEX_BUCKET``. `auto` means that a field is left out and Vertex AI chooses.
"""

from __future__ import annotations

from google.genai import types

from unitune.backends.options import job_options
from unitune.backends.protocol import Launch
from unitune.errors import JobError, Unsupported
from unitune.job.job import Auto, Job
from unitune_providers.vertex_options import VertexOptions

NAME = "vertex"
LABEL = "unitune"
"""Label that holds the launch key; also on the model and endpoint that come of it."""
METHODS = {
    "sft": types.TuningMethod.SUPERVISED_FINE_TUNING,
    "dpo": types.TuningMethod.PREFERENCE_TUNING,
}
ADAPTER_SIZES = {
    1: types.AdapterSize.ADAPTER_SIZE_ONE,
    2: types.AdapterSize.ADAPTER_SIZE_TWO,
    4: types.AdapterSize.ADAPTER_SIZE_FOUR,
    8: types.AdapterSize.ADAPTER_SIZE_EIGHT,
    16: types.AdapterSize.ADAPTER_SIZE_SIXTEEN,
    32: types.AdapterSize.ADAPTER_SIZE_THIRTY_TWO,
}
"""By rank. Not every model takes every size; Vertex AI says so when the job is created."""
LONGEST_NAME = 128


def vertex_options(job: Job) -> VertexOptions:
    """Return a job's options for this backend.

    Raises:
        JobError: A key is unknown, or a value not allowed.
    """
    options = job_options(job, "vertex", VertexOptions)
    if options.beta is not None and _method(job) is not types.TuningMethod.PREFERENCE_TUNING:
        raise JobError(f"options.vertex.beta is for method dpo, not {job.method}. Leave it out.")
    if options.pre_tuned_model_checkpoint_id is not None and not is_tuned(job.base_model):
        raise JobError(
            "options.vertex.pre_tuned_model_checkpoint_id is for tuning a tuned model on, whose "
            f"name is projects/…/models/…, and model is {job.base_model!r}. Leave it out."
        )
    return options


def vet_job(job: Job) -> None:
    """Refuse a job that could not be created.

    Raises:
        JobError: An option or the adapter's rank is not allowed.
        Unsupported: The method is not one of Vertex AI's.
    """
    vertex_options(job)
    _method(job)
    _adapter_size(job)


def is_tuned(model: str) -> bool:
    """Whether a base model is itself a tuned one, named by its resource."""
    return model.startswith("projects/")


def tuning_config(launch: Launch) -> types.CreateTuningJobConfig:
    """Return what a create call says beside the model and the training file.

    The display name is always given: without one, tuning a tuned model on would add a version to
    that model instead of making one.

    Raises:
        JobError: An option or the adapter's rank is not allowed.
        Unsupported: The method is not one of Vertex AI's.
    """
    job = launch.job
    options = vertex_options(job)
    held_out = launch.validation
    return types.CreateTuningJobConfig(
        method=_method(job),
        validation_dataset=types.TuningValidationDataset(gcs_uri=held_out.ref)
        if held_out
        else None,
        tuned_model_display_name=f"{job.name} {launch.key}"[:LONGEST_NAME],
        epoch_count=_explicit(job.tuning.epochs),
        adapter_size=_adapter_size(job),
        learning_rate_multiplier=options.learning_rate_multiplier,
        export_last_checkpoint_only=options.export_last_checkpoint_only or None,
        beta=options.beta,
        pre_tuned_model_checkpoint_id=options.pre_tuned_model_checkpoint_id,
        labels={LABEL: launch.key},
    )


def _method(job: Job) -> types.TuningMethod:
    method = METHODS.get(job.method)
    if method is None:
        raise Unsupported(
            f"backend vertex cannot tune by method {job.method!r}. Methods: {', '.join(METHODS)}."
        )
    return method


def _adapter_size(job: Job) -> types.AdapterSize | None:
    rank = _explicit(job.tuning.lora.rank)
    if rank is None:
        return None
    if rank not in ADAPTER_SIZES:
        allowed = ", ".join(str(size) for size in ADAPTER_SIZES)
        raise JobError(f"tuning.lora.rank is {rank}; Vertex AI's adapters have {allowed} or auto.")
    return ADAPTER_SIZES[rank]


def _explicit(value: int | Auto) -> int | None:
    return None if isinstance(value, str) else value
