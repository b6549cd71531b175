"""What a poll saw on OpenAI's wire, in our words: states, events and the model.

Pure functions over the vendor's JSON (`unitune.security.json_fields`), in which any field may be
missing: the description itself gives hyperparameters for supervised jobs alone, and steps of
reinforcement have a reward and no loss. Events come newest first from the vendor and leave here
oldest first; the cursor is the id of the newest.

Sources: OpenAI's published description (API 2.3.0, 2026-08-21), FineTuningJob and
FineTuningJobEvent; its guide on reinforcement fine-tuning, a copy (`train_mean_reward` and
`full_valid_mean_reward` in the data of an event).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from unitune.backends.protocol import Event, State, Status
from unitune.models import TunedModel
from unitune.security.json_fields import Fields
from unitune_providers.openai.server import key_of

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


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure of steps.

    Args:
        name: Ours.
        training: The vendor's names of it on training rows; the first that is there is told.
        validation: Likewise on validation rows: the whole file says more than one batch of it.
    """

    name: str
    training: tuple[str, ...]
    validation: tuple[str, ...]


MEASURES = (
    Measured(
        "loss",
        ("train_loss", "training_loss"),
        ("full_valid_loss", "valid_loss", "validation_loss"),
    ),
    Measured(
        "reward",
        ("train_mean_reward", "train_reward_mean"),
        ("full_valid_mean_reward", "valid_mean_reward", "valid_reward_mean"),
    ),
)


def state_of(job: Fields) -> State:
    """Return a job's state in our words."""
    return STATES.get(job.text("status") or "", State.UNKNOWN)


def status_of(
    job: Fields,
    newest_first: Sequence[Fields],
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
        raw=job.text("status") or "no status",
        events=tuple(our for event in reversed(newest_first) for our in _events(event)),
        cursor=key_of(newest_first[0]) if newest_first else cursor,
        model=model if state is State.SUCCEEDED else None,
        error=error_of(job) if state is State.FAILED else None,
        billed_tokens=job.whole("trained_tokens"),
        epochs=hyperparameters_of(job).whole("n_epochs"),
    )


def hyperparameters_of(job: Fields) -> Fields:
    """Return what was set or chosen: in the job's method, or where older jobs have it."""
    method = job.fields("method")
    inner = method.fields(method.text("type") or "supervised").fields("hyperparameters")
    outer = job.fields("hyperparameters")
    # The vendor replaces `auto` by what it chose, and need not do so in both places at once.
    return Fields({**inner.all, **{n: v for n, v in outer.all.items() if v not in ("auto", None)}})


def error_of(job: Fields) -> str:
    """Return why a job failed, in the vendor's words."""
    error = job.fields("error")
    message, code = error.text("message"), error.text("code")
    if not (message or code):
        return "the vendor gives no reason"
    return " ".join(part for part in (message, f"[{code}]" if code else "") if part)


def _events(event: Fields) -> Iterator[Event]:
    key, time = key_of(event), event.number("created_at") or 0.0
    data = event.fields("data")
    step = _step(event, data)
    if step is None:
        kind = "message" if event.text("level") in ("info", None) else "warning"
        yield Event(key, kind, time, {"text": event.text("message") or "", **data.all})
        return
    told = {measure.name: _first(data, measure.training) for measure in MEASURES}
    validated = {measure.name: _first(data, measure.validation) for measure in MEASURES}
    named = {"step", "total_steps", *(name for one in MEASURES for name in one.training)}
    others = {name: value for name, value in data.all.items() if name not in named}
    yield Event(key, "step", time, {**step, **_known(told), **others})
    if found := _known(validated):
        yield Event(f"{key}:validation", "validation", time, {**step, **found})


def _step(event: Fields, data: Fields) -> dict[str, JsonValue] | None:
    """Return step and steps of a metrics event; None when the event is no such."""
    step = data.whole("step")
    if event.text("type") != "metrics" or step is None:
        return None
    told = OF_STEPS.search(event.text("message") or "")
    steps = data.whole("total_steps") or (int(told["steps"]) if told else None)
    return {"step": step, **({"steps": steps} if steps is not None else {})}


def _first(data: Fields, names: Sequence[str]) -> float | None:
    return next((found for name in names if (found := data.number(name)) is not None), None)


def _known(figures: dict[str, float | None]) -> dict[str, JsonValue]:
    return {name: figure for name, figure in figures.items() if figure is not None}
