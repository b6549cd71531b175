"""Define the options of the bedrock backend, build its create call and read the job's state.

The bucket comes from ``UNITUNE_BEDROCK_BUCKET``, because files are uploaded before a job is known.
With `auto`, a hyperparameter is left out and Bedrock chooses it. Needs none of AWS's packages.

Bedrock has no event log, only a status of the job and of each of its three phases. Events are
derived from these, so every poll repeats them and adds more; an end has a time only once the job is
over. Losses are in a CSV file that Bedrock writes when the job has completed.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field, JsonValue

from unitune.backends import registry
from unitune.backends.protocol import Event, Launch, State
from unitune.documents import Spec
from unitune.errors import JobError, UserError
from unitune.job.job import Job
from unitune.security.json_fields import Fields
from unitune.workspace.user_settings import variable

NAME = "bedrock"
BUCKET = "UNITUNE_BEDROCK_BUCKET"
ROLE = "UNITUNE_BEDROCK_ROLE_ARN"
TAG = "unitune"  # tag with the launch key, on the job and on its model
# Folder of the bucket for Bedrock's metrics, unless `options.bedrock.output` is set
OUTPUT = "unitune-output"
ROLE_PATTERN = r"^arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+$"
S3_PATTERN = (  # source of both patterns: botocore 1.44.8, bedrock/2023-04-20, RoleArn and S3Uri
    r"^s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9]"
    r"(?:/[-!_*'().a-z0-9A-Z]+(?:/[-!_*'().a-z0-9A-Z]+)*)?/?$"
)
# Range of the learning rate of Nova Micro, Lite and Pro; that of Nova 2 is unknown. Source:
# docs.aws.amazon.com, bedrock/latest/userguide/cm-hp-nova-mm, read 2026-11-24.
NOVA_RATES = (1e-6, 1e-4)
NOVA_WARMUP_MOST = 100  # same source


class BedrockOptions(Spec):
    """Job options under ``options: {bedrock: …}``."""

    role_arn: Annotated[str, Field(pattern=ROLE_PATTERN)] | None = None
    """Role for Bedrock's access to the bucket; default UNITUNE_BEDROCK_ROLE_ARN."""
    output: Annotated[str, Field(pattern=S3_PATTERN)] | None = None
    """``s3://BUCKET/FOLDER`` for metrics; default a folder in the bucket of the training file."""
    kms_key: str | None = None
    """AWS KMS key that encrypts the tuned model."""


def bucket_uri(name: str) -> str:
    """Return the ``s3://`` address of a name in the user's bucket; raise `UserError` if not set."""
    given = variable(BUCKET)
    address = given if given.startswith("s3://") else f"s3://{given}"
    if not given or not re.match(S3_PATTERN, address):
        what = f"is {given!r}, which is not a bucket" if given else "is not set"
        raise UserError(
            f"{BUCKET} {what}. Set it to BUCKET or BUCKET/FOLDER: an S3 bucket in the region of "
            "the training, for training files and metrics."
        )
    return f"{address.rstrip('/')}/{name}"


def check_settings(job: Job) -> None:
    """Raise `JobError` for settings that the job's base model does not support."""
    rate, warmup = job.tuning.learning_rate, job.tuning.warmup
    base = offered_name(job.base_model)
    if warmup != "auto" and not base.startswith("amazon.nova"):
        raise JobError(
            f"Bedrock supports tuning.warmup only for Nova models, but the base model is {base}. "
            "Set it to auto."
        )
    if not base.startswith("amazon.nova-") or base.startswith("amazon.nova-2"):
        return
    least, most = NOVA_RATES
    if rate != "auto" and not least <= rate <= most:
        raise JobError(
            f"tuning.learning_rate is {rate:g}; for {base}, Bedrock accepts {least:g} to {most:g}, "
            "or auto."
        )
    if warmup != "auto" and warmup > NOVA_WARMUP_MOST:
        raise JobError(
            f"tuning.warmup is {warmup}; for {base}, Bedrock accepts at most {NOVA_WARMUP_MOST}."
        )


def job_name(launch_key: str) -> str:
    """Return the name of a launch's job, token and model."""
    return f"{TAG}-{launch_key}"


def create_request(launch: Launch, options: BedrockOptions) -> dict[str, Any]:
    """Return Bedrock's create call; its token has the launch key, so it is safe to repeat."""
    job, name = launch.job, job_name(launch.key)
    tags = [{"key": TAG, "value": launch.key}]
    request: dict[str, Any] = {
        "jobName": name,
        "customModelName": name,
        "clientRequestToken": name,
        "roleArn": _role(options),
        "baseModelIdentifier": offered_name(job.base_model),
        "customizationType": "FINE_TUNING",
        "trainingDataConfig": {"s3Uri": launch.training.ref},
        "outputDataConfig": {"s3Uri": options.output or bucket_uri(OUTPUT)},
        "hyperParameters": _hyperparameters(job),
        "jobTags": [*tags, {"key": f"{TAG}-job", "value": job.name}],
        "customModelTags": tags,
    }
    limits = registry.offer(NAME).terms(job.base_model).limits
    if launch.validation is not None and limits.validation_rows_most != 0:
        request["validationDataConfig"] = {"validators": [{"s3Uri": launch.validation.ref}]}
    if options.kms_key is not None:
        request["customModelKmsKeyId"] = options.kms_key
    return request


def offered_name(model: str) -> str:
    """Return the offer's name of a base model, which may be an alias."""
    offered = registry.offer(NAME).model(model)
    return offered.name if offered else model


def _hyperparameters(job: Job) -> dict[str, str]:
    values = {
        "epochCount": job.tuning.epochs,
        "batchSize": job.tuning.batch_size,
        "learningRate": job.tuning.learning_rate,
        "learningRateWarmupSteps": job.tuning.warmup,
    }
    chosen = {name: value for name, value in values.items() if value != "auto"}
    # Bedrock's examples write 0.00001; it is not documented that 1e-05 is accepted.
    return {name: format(Decimal(str(value)), "f") for name, value in chosen.items()}


def _role(options: BedrockOptions) -> str:
    role = options.role_arn or variable(ROLE)
    if not re.match(ROLE_PATTERN, role):
        what = f"{role!r} is not the ARN of one" if role else "none is set"
        raise UserError(
            f"Bedrock needs a role that may read and write the bucket, but {what}. Set {ROLE} or "
            "options.bedrock.role_arn to arn:aws:iam::ACCOUNT:role/NAME (docs.aws.amazon.com, "
            "Create a service role for model customization)."
        )
    return role


# Path of the losses in the output folder; columns step_number (from 0), epoch_number,
# training_loss, perplexity. Source: docs.aws.amazon.com, Analyze the results of a model
# customization job, read 2026-11-25.
METRICS = "model-customization-job-{id}/training_artifacts/step_wise_training_metrics.csv"


class Phase(NamedTuple):
    """A phase of a job: name for people, Bedrock's key, and our state."""

    name: str
    key: str
    state: State


PHASES = (
    Phase("validation", "validationDetails", State.VALIDATING),
    Phase("data processing", "dataProcessingDetails", State.VALIDATING),
    Phase("training", "trainingDetails", State.RUNNING),
)
BEGUN = ("InProgress", "Completed", "Failed", "Stopping", "Stopped")
OVER = ("Completed", "Failed", "Stopped")
STATES: Mapping[str, State] = {  # by the values of `raw_of`
    "Completed": State.SUCCEEDED,
    "Failed": State.FAILED,
    "Stopped": State.CANCELLED,
    "Stopping": State.CANCELLING,
    "InProgress": State.QUEUED,
    **{f"InProgress: {phase.name} {word}": phase.state for phase in PHASES for word in BEGUN},
}


def raw_of(job: Fields) -> str | None:
    """Return Bedrock's status of the job and of its current phase."""
    word = job.text("status")
    if word == "InProgress":
        for phase in reversed(PHASES):
            at = job.fields("statusDetails").fields(phase.key).text("status")
            if at not in (None, "NotStarted"):
                return f"{word}: {phase.name} {at}"
    return word


def events_of(job: Fields, losses: str) -> Iterator[Event]:
    """Yield all events of a job, with times that never go back; `losses` is the CSV file."""
    time = 0.0
    for event in _events(job, losses):
        time = max(time, event.time)
        yield replace(event, time=time)


def _events(job: Fields, losses: str) -> Iterator[Event]:
    created = _time(job, "creationTime")
    yield _message("created", created, "Bedrock created the job")
    phases = [(phase, job.fields("statusDetails").fields(phase.key)) for phase in PHASES]
    for phase, details in phases:
        if details.text("status") in BEGUN:
            began = _time(details, "creationTime") or created
            yield _message(f"{phase.name} began", began, f"{phase.name} began")
    word = job.text("status")
    if word in OVER:
        ended = _time(job, "endTime") or _time(job, "lastModifiedTime") or created
        for phase, details in phases:
            if (outcome := details.text("status")) in OVER:
                yield _message(f"{phase.name} ended", ended, f"{phase.name}: {outcome}")
        rows = [row for line in csv.DictReader(io.StringIO(losses)) if (row := _Row.read(line))]
        last = max((row.step for row in rows), default=None)
        for number, row in enumerate(rows, start=1):
            # A step can have several rows, so its number is not a key.
            yield Event(f"step row {number}", "step", ended, {**row._asdict(), "steps": last})
        yield from _final_losses(job, ended, last)
        yield _message(word, ended, f"Bedrock's job is {word}")


class _Row(NamedTuple):
    step: int
    loss: float
    epoch: int

    @classmethod
    def read(cls, row: Mapping[str, str]) -> Self | None:
        """Parse a line of the table; return None if it is incomplete."""
        try:
            step, epoch = float(row["step_number"]), float(row["epoch_number"])
            return cls(int(step), float(row["training_loss"]), int(epoch))
        except (KeyError, OverflowError, TypeError, ValueError):
            return None


def _final_losses(job: Fields, time: float, step: int | None) -> Iterator[Event]:
    if (loss := job.fields("trainingMetrics").number("trainingLoss")) is not None:
        yield _message("training loss", time, f"training loss: {loss:.4f}", {"loss": loss})
    for number, metric in enumerate(job.items("validationMetrics"), start=1):
        name, loss = f"validation loss {number}", metric.number("validationLoss")
        if loss is None:
            continue
        if step is not None:
            yield Event(name, "validation", time, {"step": step, "loss": loss})
        else:
            yield _message(name, time, f"{name}: {loss:.4f}", {"loss": loss})


def _message(key: str, time: float, text: str, data: dict[str, JsonValue] | None = None) -> Event:
    return Event(key, "message", time, {"text": text, **(data or {})})


def _time(fields: Fields, name: str) -> float:
    """Return a time parsed by botocore, in seconds since 1970; 0 without one."""
    value: object = fields.all.get(name)
    return value.timestamp() if isinstance(value, datetime) else 0.0
