"""How a Bedrock job stands, in our words: state, raw words, and what happened.

Bedrock has no log of events, only the present: one word for the job and one for each of its three
phases. The events are derived from that, so that every look gives the same ones again and more. A
job's losses stand in a CSV file that Bedrock writes when the job has completed, and not before.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

from pydantic import JsonValue

from unitune.backends.protocol import Event, State

if TYPE_CHECKING:
    from mypy_boto3_bedrock.type_defs import (
        GetModelCustomizationJobResponseTypeDef,
        ModelCustomizationJobSummaryTypeDef,
    )

METRICS = "model-customization-job-{id}/training_artifacts/step_wise_training_metrics.csv"
"""Where Bedrock writes the losses, in its output folder; columns step_number (from 0),
epoch_number, training_loss, perplexity.

Source: docs.aws.amazon.com, Analyze the results of a model customization job, read 2026-11-25.
"""
ENDED = {
    "Completed": State.SUCCEEDED,
    "Failed": State.FAILED,
    "Stopped": State.CANCELLED,
    "Stopping": State.CANCELLING,
}


class Phase(NamedTuple):
    """A part of a job's work, in order: as people call it, Bedrock's key, and our state in it."""

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


def state_of(
    job: GetModelCustomizationJobResponseTypeDef | ModelCustomizationJobSummaryTypeDef,
) -> State:
    """Return a job's state; a word that we do not know is `unknown`.

    Args:
        job: As Bedrock tells it, alone or in a list.
    """
    word: str = job.get("status", "")
    if word != "InProgress":
        return ENDED.get(word, State.UNKNOWN)
    phase, at = _current(job)
    if phase is None:
        return State.QUEUED
    return phase.state if at in BEGUN else State.UNKNOWN


def raw_of(
    job: GetModelCustomizationJobResponseTypeDef | ModelCustomizationJobSummaryTypeDef,
) -> str:
    """Return Bedrock's own words: the job's, and those of the phase that it is in."""
    phase, at = _current(job)
    word = job.get("status", "no status")
    return f"{word}: {phase.name} {at}" if word == "InProgress" and phase is not None else word


def events_of(job: GetModelCustomizationJobResponseTypeDef, table: str | None) -> list[Event]:
    """Return everything that has happened to a job, oldest first.

    Args:
        job: As Bedrock tells it.
        table: Content of the CSV file with the losses, where there is one.
    """
    events = [_message("created", job["creationTime"], "Bedrock created the job")]
    for phase in PHASES:
        events.extend(_of_phase(job, phase))
    word = job.get("status", "")
    if word in OVER:
        steps = _steps(job, table or "")
        last = steps[-1].data["steps"] if steps else None
        events += [*steps, *_metrics(job, last)]
        events.append(_message(word, _end(job), f"Bedrock's job is {word}"))
    return events


def _current(job: Any) -> tuple[Phase | None, str]:
    """Return the last phase that is not untouched, and its word; None when all are."""
    details = cast("Mapping[str, Mapping[str, str]]", job.get("statusDetails") or {})
    for phase in reversed(PHASES):
        word = (details.get(phase.key) or {}).get("status", "NotStarted")
        if word != "NotStarted":
            return phase, word
    return None, ""


def _of_phase(job: GetModelCustomizationJobResponseTypeDef, phase: Phase) -> Iterator[Event]:
    whole = cast("Mapping[str, Mapping[str, Any]]", job.get("statusDetails") or {})
    details = whole.get(phase.key, {})
    word = str(details.get("status", "NotStarted"))
    began: datetime = details.get("creationTime") or job["creationTime"]
    if word in BEGUN:
        yield _message(f"{phase.name} began", began, f"{phase.name} began")
    if word in OVER:
        text = f"{phase.name}: {word}"
        yield _message(f"{phase.name} ended", details.get("lastModifiedTime") or began, text)


def _steps(job: GetModelCustomizationJobResponseTypeDef, table: str) -> list[Event]:
    """Return the steps of a table; it has no times, so each has the time of the job's end."""
    rows = [_Row.read(row) for row in csv.DictReader(io.StringIO(table))]
    known = [row for row in rows if row is not None]
    last = max((row.step for row in known), default=0)
    time = _end(job).timestamp()
    # A step can have several rows, so that its number is no key.
    return [
        Event(f"step row {number}", "step", time, {**row._asdict(), "steps": last})
        for number, row in enumerate(known, start=1)
    ]


class _Row(NamedTuple):
    step: int
    loss: float
    epoch: int

    @classmethod
    def read(cls, row: Mapping[str, str]) -> Self | None:
        """Return what a line of the table says; None when it is not whole."""
        try:
            step, epoch = float(row["step_number"]), float(row["epoch_number"])
            return cls(int(step), float(row["training_loss"]), int(epoch))
        except (KeyError, TypeError, ValueError):
            return None


def _metrics(job: GetModelCustomizationJobResponseTypeDef, step: JsonValue) -> Iterator[Event]:
    """Yield the losses that Bedrock tells of the whole job; `step` is the last, where known."""
    losses = {"training loss": (job.get("trainingMetrics") or {}).get("trainingLoss")}
    measured = enumerate(job.get("validationMetrics") or [], start=1)
    losses |= {f"validation loss {number}": one.get("validationLoss") for number, one in measured}
    for name, loss in losses.items():
        if loss is None:
            continue
        if name.startswith("validation") and step is not None:
            data: dict[str, JsonValue] = {"step": step, "loss": loss}
            yield Event(name, "validation", _end(job).timestamp(), data)
        else:
            yield _message(name, _end(job), f"{name}: {loss:.4f}", {"loss": loss})


def _message(
    key: str, time: datetime, text: str, data: dict[str, JsonValue] | None = None
) -> Event:
    return Event(key, "message", time.timestamp(), {"text": text, **(data or {})})


def _end(job: GetModelCustomizationJobResponseTypeDef) -> datetime:
    return job.get("endTime") or job.get("lastModifiedTime") or job["creationTime"]
