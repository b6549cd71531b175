"""Derive the state and the events of a Bedrock job.

Bedrock has no event log, only a status of the job and of each of its three phases. Events are
derived from these, so every poll repeats them and adds more; an end has a time only once the job is
over. Losses are in a CSV file that Bedrock writes when the job has completed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple, Self

from pydantic import JsonValue

from unitune.backends.protocol import Event, State
from unitune.security.json_fields import Fields

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
