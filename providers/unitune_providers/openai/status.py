"""What a poll saw on OpenAI's wire, in our words: states, events and the model.

Pure functions over the SDK's types, which hand unknown words through. Events come newest first from
the vendor and leave here oldest first; the cursor is the id of the newest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import cast

from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from pydantic import JsonValue

from unitune.backend import Event, State, Status
from unitune.models import TunedModel

STATES = {
    "validating_files": State.VALIDATING,
    "queued": State.QUEUED,
    "pending": State.QUEUED,  # Azure's older word
    "running": State.RUNNING,
    "paused": State.PAUSED,
    "succeeded": State.SUCCEEDED,
    "failed": State.FAILED,
    "cancelled": State.CANCELLED,
}
"""Our words by the vendor's; any other is `State.UNKNOWN`."""
OF_STEPS = re.compile(r"Step (?P<step>\d+)/(?P<steps>\d+)")
TRAIN_LOSSES = ("train_loss", "training_loss")
VALIDATION_LOSSES = ("full_valid_loss", "valid_loss", "validation_loss")
"""The first that is there is told: the whole file says more than one batch of it."""


def state_of(job: FineTuningJob) -> State:
    """Return a job's state in our words."""
    return STATES.get(job.status, State.UNKNOWN)


def status_of(
    job: FineTuningJob,
    newest_first: Sequence[FineTuningJobEvent],
    cursor: str,
    model: TunedModel | None,
) -> Status:
    """Return what one poll saw.

    Args:
        job: As the vendor tells it.
        newest_first: Its events after the cursor.
        cursor: Of the poll before.
        model: What it left behind, if it succeeded.
    """
    state = state_of(job)
    if state is State.SUCCEEDED and model is None:
        # The vendor has not named the model yet: polling goes on.
        state = State.UNKNOWN
    return Status(
        state=state,
        raw=job.status,
        events=tuple(our for event in reversed(newest_first) for our in _events(event)),
        cursor=newest_first[0].id if newest_first else cursor,
        model=model if state is State.SUCCEEDED else None,
        error=error_of(job) if state is State.FAILED else None,
        billed_tokens=job.trained_tokens,
        epochs=_epochs(job),
    )


def _epochs(job: FineTuningJob) -> int | None:
    """Return the passes that a job makes, once the vendor has chosen them."""
    chosen = job.hyperparameters.n_epochs
    return chosen if isinstance(chosen, int) else None


def error_of(job: FineTuningJob) -> str:
    """Return why a job failed, in the vendor's words."""
    if job.error is None or not (job.error.message or job.error.code):
        return "the vendor gives no reason"
    code = f" [{job.error.code}]" if job.error.code else ""
    return f"{job.error.message}{code}"


def _events(event: FineTuningJobEvent) -> Iterator[Event]:
    time = float(event.created_at)
    told = event.data
    data = cast("dict[str, JsonValue]", told) if isinstance(told, dict) else dict[str, JsonValue]()
    step = _step(event, data)
    if step is None:
        kind = "message" if event.level == "info" else "warning"
        yield Event(event.id, kind, time, {"text": event.message, **data})
        return
    losses = _first(data, TRAIN_LOSSES), _first(data, VALIDATION_LOSSES)
    named = {"step", "total_steps", *TRAIN_LOSSES}
    others = {key: value for key, value in data.items() if key not in named}
    trained = {"loss": losses[0]} if losses[0] is not None else {}
    yield Event(event.id, "step", time, {**step, **trained, **others})
    if losses[1] is not None:
        yield Event(f"{event.id}:validation", "validation", time, {**step, "loss": losses[1]})


def _step(event: FineTuningJobEvent, data: dict[str, JsonValue]) -> dict[str, JsonValue] | None:
    """Return step and steps of a metrics event; None when the event is no such."""
    if event.type != "metrics" or data.get("step") is None:
        return None
    told = OF_STEPS.search(event.message)
    steps = data.get("total_steps", int(told["steps"]) if told else None)
    return {"step": data["step"], **({"steps": steps} if steps is not None else {})}


def _first(data: dict[str, JsonValue], names: Sequence[str]) -> JsonValue:
    return next((data[name] for name in names if data.get(name) is not None), None)
