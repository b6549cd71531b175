"""What a tuning job of Vertex AI says of itself, in our words; pure functions over the SDK's types.

There is no list of events at Vertex AI. Events are made from what a job keeps: when it was created,
started and ended, what was counted in its data, epochs done, and checkpoints. Since all of these
stay in the job, a late look makes the same events as many early ones, and the cursor is the keys
that were seen. The finer words of a running job, which do not stay, are in `Status.raw`. Losses by
step are only in Vertex AI's console.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Literal, cast

from google.genai import types
from pydantic import JsonValue

from unitune.backends.capabilities import Checkpoint, JobDescription
from unitune.backends.protocol import Event, State, Status
from unitune.models import TunedModel
from unitune_providers.vertex.options import LABEL, NAME

STATES = {
    "JOB_STATE_QUEUED": State.QUEUED,
    "JOB_STATE_PENDING": State.QUEUED,
    "JOB_STATE_RUNNING": State.RUNNING,
    "JOB_STATE_UPDATING": State.RUNNING,
    "JOB_STATE_PAUSED": State.PAUSED,
    "JOB_STATE_CANCELLING": State.CANCELLING,
    "JOB_STATE_SUCCEEDED": State.SUCCEEDED,
    "JOB_STATE_PARTIALLY_SUCCEEDED": State.SUCCEEDED,
    "JOB_STATE_FAILED": State.FAILED,
    "JOB_STATE_EXPIRED": State.FAILED,
    "JOB_STATE_CANCELLED": State.CANCELLED,
}
FINER = {
    "TUNING_JOB_STATE_WAITING_FOR_QUOTA": State.QUEUED,
    "TUNING_JOB_STATE_WAITING_FOR_CAPACITY": State.QUEUED,
    "TUNING_JOB_STATE_PROCESSING_DATASET": State.VALIDATING,
}
"""What a running job is really doing, where that is not running."""
NO_WORD = "JOB_STATE_UNSPECIFIED"

DataStats = types.SupervisedTuningDataStats | types.PreferenceOptimizationDataStats
Kind = Literal["message", "checkpoint", "warning"]


def state_of(job: types.TuningJob) -> State:
    """Return a job's state; a word that we do not know is unknown."""
    state = STATES.get(_word(job.state), State.UNKNOWN)
    return FINER.get(_word(job.tuning_job_state), state) if state is State.RUNNING else state


def status_of(job: types.TuningJob, cursor: str) -> Status:
    """Return what one look at a job saw.

    Args:
        job: As read.
        cursor: Of the look before; empty at first.
    """
    state = state_of(job)
    model = tuned_model(job) if state is State.SUCCEEDED else None
    if state is State.SUCCEEDED and model is None:
        # Vertex AI has not named the model yet: polling goes on.
        state = State.UNKNOWN
    stats = data_stats(job)
    seen = set(cast("list[str]", json.loads(cursor))) if cursor else set[str]()
    events = events_of(job)
    finer = "" if state.ended else _word(job.tuning_job_state)
    return Status(
        state=state,
        raw=f"{_word(job.state) or NO_WORD} {finer}".strip(),
        events=tuple(event for event in events if event.key not in seen),
        cursor=json.dumps([event.key for event in events]),
        model=model,
        error=_failure(job) if state is State.FAILED else None,
        billed_tokens=stats.total_billable_token_count if stats else None,
    )


def events_of(job: types.TuningJob) -> list[Event]:
    """Return everything that has happened to a job, in its order."""
    parts = (_begun, _data_events, _epoch_events, _checkpoint_events, _end)
    return [event for part in parts for event in part(job)]


def base_of(job: types.TuningJob) -> str:
    """Return the base model's name: a published model's own, or a tuned model's resource."""
    tuned = job.pre_tuned_model
    name = job.base_model or (tuned and (tuned.tuned_model_name or tuned.base_model)) or ""
    return name.removeprefix("publishers/google/models/")


def description_of(job: types.TuningJob) -> JobDescription:
    """Return what a run must know of a job before it takes it for its own."""
    spec = job.supervised_tuning_spec or job.preference_optimization_spec
    key = (job.labels or {}).get(LABEL)
    return JobDescription(key, base_of(job) or None, spec and spec.training_dataset_uri)


def tuned_model(job: types.TuningJob) -> TunedModel | None:
    """Return what a job left behind: the endpoint that answers, which Vertex AI deploys itself."""
    made = job.tuned_model
    name = (made.endpoint or made.model) if made else None
    return TunedModel(backend=NAME, name=name, base=base_of(job)) if name else None


def checkpoints_of(job: types.TuningJob, base: str) -> list[Checkpoint]:
    """Return a job's checkpoints that can be asked, oldest first.

    Args:
        job: As read.
        base: Name of the base model.
    """
    kept = (job.tuned_model and job.tuned_model.checkpoints) or []
    made = [
        Checkpoint(
            step=one.step or 0,
            model=TunedModel(backend=NAME, name=one.endpoint, base=base),
            metrics={"checkpoint_id": one.checkpoint_id, "epoch": one.epoch},
        )
        for one in kept
        if one.endpoint
    ]
    return sorted(made, key=lambda checkpoint: checkpoint.step)


def _begun(job: types.TuningJob) -> Iterator[Event]:
    if job.create_time:
        yield _event("created", "message", job.create_time, "Vertex AI has the job")
    if job.start_time:
        yield _event("started", "message", job.start_time, "Vertex AI has started the job")


def _data_events(job: types.TuningJob) -> Iterator[Event]:
    stats = data_stats(job)
    if stats is None:
        return
    counts: dict[str, JsonValue] = {
        "rows": stats.tuning_dataset_example_count,
        "steps": stats.tuning_step_count,
        "billable_tokens": stats.total_billable_token_count,
    }
    text = (
        f"Vertex AI counts {counts['rows']} rows, {counts['billable_tokens']} billable tokens and "
        f"{counts['steps']} steps"
    )
    yield _event("data", "message", _latest(job), text, **counts)
    if reasons := list(dict.fromkeys(stats.dropped_example_reasons or ())):
        yield _event(
            "dropped", "warning", _latest(job), f"Vertex AI left rows out: {'; '.join(reasons)}"
        )


def data_stats(job: types.TuningJob) -> DataStats | None:
    """Return what Vertex AI counted in the training file, once it has."""
    stats = job.tuning_data_stats
    if stats is None:
        return None
    return stats.supervised_tuning_data_stats or stats.preference_optimization_data_stats


def _epoch_events(job: types.TuningJob) -> Iterator[Event]:
    done = (job.tuning_job_metadata and job.tuning_job_metadata.completed_epoch_count) or 0
    for epoch in range(1, done + 1):
        yield _event(f"epoch {epoch}", "message", _latest(job), f"epoch {epoch} done", epoch=epoch)


def _checkpoint_events(job: types.TuningJob) -> Iterator[Event]:
    for one in checkpoints_of(job, base_of(job)):
        yield _event(
            f"checkpoint {one.model.name}",
            "checkpoint",
            _latest(job),
            f"checkpoint of step {one.step}",
            step=one.step,
            epoch=one.metrics["epoch"],
            model=one.model.name,
        )


def _end(job: types.TuningJob) -> Iterator[Event]:
    if job.end_time:
        yield _event("ended", "message", job.end_time, f"the job has ended: {_word(job.state)}")


def _event(key: str, kind: Kind, time: datetime, text: str, **data: JsonValue) -> Event:
    return Event(key, kind, time.timestamp(), {"text": text, **data})


def _latest(job: types.TuningJob) -> datetime:
    """The time of what the job gives no time for: it was no later than this."""
    return job.update_time or job.create_time or datetime.fromtimestamp(0).astimezone()


def _failure(job: types.TuningJob) -> str:
    said = job.error.message if job.error else None
    return said or f"Vertex AI gives no reason ({_word(job.state)})"


def _word(state: types.JobState | types.TuningJobState | None) -> str:
    return str(state.value) if state else ""
