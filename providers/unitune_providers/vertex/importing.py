"""A tuning job of Vertex AI that others launched, as a job of ours.

Not here: how the job is read (`vertex`), and its rows' format (`formats.vertex`).
"""

from __future__ import annotations

from collections.abc import Callable

from google.genai import types
from pydantic import JsonValue

from unitune.backends.capabilities import ImportedJob
from unitune.errors import Unsupported
from unitune_providers.vertex.jobs import base_of, tuned_model
from unitune_providers.vertex.options import ADAPTER_SIZES

TuningSpec = types.SupervisedTuningSpec | types.PreferenceOptimizationSpec
READABLE = "gs://"
"""Other training data is a data set of Vertex AI's own, which is no file."""


def imported(job: types.TuningJob, read: Callable[[str], bytes | None]) -> ImportedJob:
    """Return a job as it can be written down here.

    Args:
        job: As read.
        read: Returns an object's content, or None when it is gone.

    Raises:
        Unsupported: It was tuned by a method that is not ours.
    """
    spec = job.supervised_tuning_spec or job.preference_optimization_spec
    if spec is None:
        raise Unsupported(
            f"{job.name or 'the job'} is neither supervised nor preference tuning; nothing else "
            "can be imported. Write the job file by hand."
        )
    notes: list[str] = []
    return ImportedJob(
        base_model=base_of(job),
        method="sft" if isinstance(spec, types.SupervisedTuningSpec) else "dpo",
        training=_rows(spec.training_dataset_uri, "training", read, notes),
        validation=_rows(spec.validation_dataset_uri, "validation", read, notes),
        tuning=_tuning(spec),
        options=_options(job, spec, notes),
        model=tuned_model(job),
        notes=tuple(notes),
    )


def _rows(
    uri: str | None, use: str, read: Callable[[str], bytes | None], notes: list[str]
) -> bytes | None:
    if not uri:
        return None
    if not uri.startswith(READABLE):
        notes.append(f"The {use} data is {uri}, which is no file in Cloud Storage.")
        return None
    content = read(uri)
    if content is None:
        notes.append(f"The {use} file {uri} is gone.")
    return content


def _tuning(spec: TuningSpec) -> dict[str, JsonValue]:
    asked = spec.hyper_parameters
    tuning: dict[str, JsonValue] = {}
    if asked and asked.epoch_count:
        tuning["epochs"] = asked.epoch_count
    ranks = [rank for rank, size in ADAPTER_SIZES.items() if asked and size is asked.adapter_size]
    if ranks:
        tuning["lora"] = {"rank": ranks[0]}
    return tuning


def _options(job: types.TuningJob, spec: TuningSpec, notes: list[str]) -> dict[str, JsonValue]:
    asked, continued = spec.hyper_parameters, job.pre_tuned_model
    found: dict[str, JsonValue] = {
        "learning_rate_multiplier": asked.learning_rate_multiplier if asked else None,
        "export_last_checkpoint_only": spec.export_last_checkpoint_only,
        "pre_tuned_model_checkpoint_id": continued.checkpoint_id if continued else None,
    }
    if isinstance(asked, types.PreferenceOptimizationHyperParameters):
        found["beta"] = asked.beta
    elif asked and (asked.learning_rate or asked.batch_size):
        notes.append("Learning rate and batch size of open models are not carried over.")
    return {name: value for name, value in found.items() if value is not None}
