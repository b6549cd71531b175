"""What the bedrock backend alone understands, and a job as Bedrock's create call.

Options stand in ``options: {bedrock: {…}}`` of a job; unknown keys are refused with the nearest
right one. The bucket is no option: files are handed over before a job is known, so it comes from
``UNITUNE_BEDROCK_BUCKET``. `auto` means that a hyperparameter is left out and Bedrock chooses.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from unitune.backends import registry
from unitune.backends.options import job_options
from unitune.backends.protocol import Launch
from unitune.errors import JobError, UserError
from unitune.job.job import Job
from unitune_providers.bedrock.clients import split_uri
from unitune_providers.bedrock.schema import ROLE_PATTERN, S3_PATTERN, BedrockOptions

if TYPE_CHECKING:
    from mypy_boto3_bedrock.type_defs import (
        CreateModelCustomizationJobRequestTypeDef,
        TagTypeDef,
    )

NAME = "bedrock"
BUCKET = "UNITUNE_BEDROCK_BUCKET"
ROLE = "UNITUNE_BEDROCK_ROLE_ARN"
TAG = "unitune"
"""Tag that holds the launch key, on the job and on the model that comes of it."""
OUTPUT = "unitune-output"
"""Folder of the bucket where Bedrock writes metrics, unless `options.bedrock.output` is set."""


NOVA_RATES = (1e-6, 1e-4)
"""Least and most learning rate of Nova Micro, Lite and Pro; those of Nova 2 are not known.

Source: docs.aws.amazon.com, bedrock/latest/userguide/cm-hp-nova-mm, read 2026-11-24.
"""
NOVA_WARMUP_MOST = 100
"""Likewise."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where files are kept in S3.

    Args:
        bucket: Its name.
        folder: Within the bucket; empty, or ending in a slash.
    """

    bucket: str
    folder: str = ""

    def uri(self, name: str) -> str:
        """Return the address of a file or folder here."""
        return f"s3://{self.bucket}/{self.folder}{name}"


def bucket_place() -> Place:
    """Return where training files go, from the environment.

    Raises:
        UserError: The variable is missing or names no bucket.
    """
    given = os.environ.get(BUCKET, "")
    address = given if given.startswith("s3://") else f"s3://{given}"
    if not given or not re.match(S3_PATTERN, address):
        what = f"is {given!r}, which names no bucket" if given else "is not set"
        raise UserError(
            f"{BUCKET} {what}. Set it to BUCKET or BUCKET/FOLDER: an S3 bucket in the region of "
            "the training, which holds training files and metrics."
        )
    bucket, folder = split_uri(address.rstrip("/"))
    return Place(bucket, f"{folder}/" if folder else "")


def bedrock_options(job: Job) -> BedrockOptions:
    """Return a job's options for this backend.

    Raises:
        JobError: A key is unknown, or a value not allowed.
    """
    return job_options(job, NAME, BedrockOptions)


def vet_job(job: Job) -> None:
    """Refuse a job that could not be created.

    Raises:
        JobError: An option is unknown, a value not allowed, or not for the job's base model.
    """
    options, rate = bedrock_options(job), job.tuning.learning_rate
    warmup, base = options.learning_rate_warmup_steps, own_name(job.base_model)
    if warmup is not None and not base.startswith("amazon.nova"):
        raise JobError(
            f"options.{NAME}.learning_rate_warmup_steps is for Nova models, and the base model is "
            f"{base}. Leave it out."
        )
    if not base.startswith("amazon.nova-") or base.startswith("amazon.nova-2"):
        return
    least, most = NOVA_RATES
    if rate != "auto" and not least <= rate <= most:
        raise JobError(
            f"tuning.learning_rate is {rate:g}; Bedrock takes {least:g} to {most:g} for {base}, or "
            "auto."
        )
    if warmup is not None and warmup > NOVA_WARMUP_MOST:
        raise JobError(
            f"options.{NAME}.learning_rate_warmup_steps is {warmup}; Bedrock takes at most "
            f"{NOVA_WARMUP_MOST} for {base}."
        )


def job_name(launch_key: str) -> str:
    """Return the name of the job, its token and its model, all made of the launch key."""
    return f"{TAG}-{launch_key}"


def create_request(launch: Launch) -> CreateModelCustomizationJobRequestTypeDef:
    """Return Bedrock's create call for a launch.

    The same launch key gives the same token, which makes one job of several calls.

    Args:
        launch: What to train.

    Raises:
        JobError: An option is not allowed.
        UserError: Role or bucket are missing.
    """
    job, options, name = launch.job, bedrock_options(launch.job), job_name(launch.key)
    tags: list[TagTypeDef] = [{"key": TAG, "value": launch.key}]
    request: CreateModelCustomizationJobRequestTypeDef = {
        "jobName": name,
        "customModelName": name,
        "clientRequestToken": name,
        "roleArn": _role(options),
        "baseModelIdentifier": own_name(job.base_model),
        "customizationType": "FINE_TUNING",
        "trainingDataConfig": {"s3Uri": launch.training.ref},
        "outputDataConfig": {"s3Uri": options.output or bucket_place().uri(OUTPUT)},
        "hyperParameters": hyperparameters(job, options),
        "jobTags": [*tags, {"key": f"{TAG}-job", "value": job.name}],
        "customModelTags": tags,
    }
    if launch.validation is not None and takes_validation(job.base_model):
        request["validationDataConfig"] = {"validators": [{"s3Uri": launch.validation.ref}]}
    if options.kms_key is not None:
        request["customModelKmsKeyId"] = options.kms_key
    return request


def hyperparameters(job: Job, options: BedrockOptions) -> dict[str, str]:
    """Return the hyperparameters that are not `auto`, as Bedrock's strings.

    Args:
        job: Its tuning is read.
        options: What is Bedrock's own.
    """
    tuning = job.tuning
    values = {
        "epochCount": tuning.epochs,
        "batchSize": tuning.batch_size,
        "learningRate": tuning.learning_rate,
        "learningRateWarmupSteps": options.learning_rate_warmup_steps,
    }
    chosen = {name: value for name, value in values.items() if value not in ("auto", None)}
    # Bedrock's examples write 0.00001, and nothing says that it reads 1e-05.
    return {name: format(Decimal(str(value)), "f") for name, value in chosen.items()}


def own_name(model: str) -> str:
    """Return the offer's name of a base model, where it is known by an alias."""
    offered = registry.offer(NAME).model(model)
    return offered.name if offered else model


def takes_validation(model: str) -> bool:
    """Return whether a base model can be tuned with validation rows."""
    return registry.offer(NAME).limits_for(model).validation_rows_most != 0


def _role(options: BedrockOptions) -> str:
    role = options.role_arn or os.environ.get(ROLE, "")
    if not re.match(ROLE_PATTERN, role):
        what = f"{role!r} is not the ARN of one" if role else "none is named"
        raise UserError(
            f"Bedrock needs a role that may read and write the bucket, and {what}. Set {ROLE} or "
            "options.bedrock.role_arn to arn:aws:iam::ACCOUNT:role/NAME (docs.aws.amazon.com, "
            "Create a service role for model customization)."
        )
    return role
