"""A Bedrock job that was launched by other means, in our words.

Pure, but for reading its files. What has no place in a job of ours is told in the notes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import JsonValue

from unitune.backends.capabilities import ImportedJob
from unitune.errors import Unsupported
from unitune.models import TunedModel
from unitune_providers.bedrock.options import own_name

if TYPE_CHECKING:
    from mypy_boto3_bedrock.type_defs import GetModelCustomizationJobResponseTypeDef

TUNING: dict[str, tuple[str, type[int | float]]] = {
    "epochCount": ("epochs", int),
    "learningRate": ("learning_rate", float),
}
OPTIONS = {"learningRateWarmupSteps": "learning_rate_warmup_steps"}


def imported(
    job: GetModelCustomizationJobResponseTypeDef,
    model: TunedModel | None,
    read: Callable[[str], bytes | None],
) -> ImportedJob:
    """Return an existing job with its files.

    Args:
        job: As Bedrock tells it.
        model: What it left behind.
        read: Gives the content of an ``s3://`` address, or None.

    Raises:
        Unsupported: It is no training on examples.
    """
    kind = job.get("customizationType", "FINE_TUNING")
    if kind != "FINE_TUNING":
        raise Unsupported(
            f"Bedrock's job {job['jobName']} is {kind}; only FINE_TUNING can be imported."
        )
    training = job["trainingDataConfig"].get("s3Uri")
    validators = (job.get("validationDataConfig") or {}).get("validators", [])
    held_out = [one["s3Uri"] for one in validators if "s3Uri" in one]
    given = job.get("hyperParameters") or {}
    tuning: dict[str, JsonValue] = {
        ours: read_as(given[theirs])
        for theirs, (ours, read_as) in TUNING.items()
        if theirs in given
    }
    options: dict[str, JsonValue] = {
        ours: int(given[theirs]) for theirs, ours in OPTIONS.items() if theirs in given
    }
    return ImportedJob(
        base_model=own_name(job["baseModelArn"].rpartition("foundation-model/")[2]),
        method="sft",
        training=read(training) if training else None,
        validation=read(held_out[0]) if held_out else None,
        tuning=tuning,
        options=options,
        model=model,
        notes=tuple(_notes(given, held_out)),
    )


def _notes(given: dict[str, str], held_out: list[str]) -> list[str]:
    left = [name for name in given if name not in TUNING and name not in OPTIONS]
    notes = [f"Bedrock's {name} = {given[name]} is not carried over" for name in sorted(left)]
    if len(held_out) > 1:
        notes.append(f"only the first of {len(held_out)} validation files is carried over")
    return notes
