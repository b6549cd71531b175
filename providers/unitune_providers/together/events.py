"""How a training at Together stands: its state, and what has happened since the last look.

Messages come from the job's events, losses from its metrics. A cursor holds the time of the newest
event with the keys seen at that time, and the last steps, so that events that share a second, and a
list in another order, lose and repeat nothing. Together does not say when a step was made, so a
step's time is that of the look that first saw it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from pydantic import BaseModel, ConfigDict, JsonValue
from together.types import FinetuneEvent

from unitune.backends.protocol import Event, State

STATES: Mapping[str, State] = {
    "pending": State.QUEUED,
    "queued": State.QUEUED,
    "running": State.RUNNING,
    "compressing": State.RUNNING,
    "uploading": State.RUNNING,
    "cancel_requested": State.CANCELLING,
    "cancelled": State.CANCELLED,
    "error": State.FAILED,
    "user_error": State.FAILED,
    "completed": State.SUCCEEDED,
}
"""Together's words (together 3.1.1); any other is unknown."""
STEP, LOSS, EVAL_LOSS, RATE = (
    "train/global_step",
    "train/loss",
    "eval/loss",
    "train/learning_rate",
)
"""Names in a row of metrics; the description shows the first, second and last."""
FAILURES = ("job_error", "billing_limit")


class Cursor(BaseModel):
    """What polls have seen.

    Args:
        time: Of the newest event, in seconds since 1970.
        keys: Of the events at that time.
        step: Last step with a training loss.
        validated: Last step with a validation loss.
    """

    model_config = ConfigDict(frozen=True)
    time: float = 0.0
    keys: tuple[str, ...] = ()
    step: int = -1
    validated: int = -1

    @classmethod
    def read(cls, text: str) -> Cursor:
        """Return the cursor of a poll; empty text is the beginning."""
        return cls.model_validate_json(text) if text else cls()

    def __str__(self) -> str:
        return self.model_dump_json()


def state_of(word: str | None) -> State:
    """Return a state in our words; no word is none that we know."""
    return STATES.get(word or "", State.UNKNOWN)


def failure(told: Sequence[FinetuneEvent]) -> str:
    """Return why a job failed, in Together's words."""
    bad = [event for event in told if event.type in FAILURES or event.level == "error"]
    reasons = [event.message for event in bad if cast("str | None", event.message)]
    return reasons[-1] if reasons else "together gave no reason"


def news(
    told: Sequence[FinetuneEvent], measured: Sequence[Mapping[str, float | None]], cursor: Cursor
) -> tuple[tuple[Event, ...], Cursor]:
    """Return the events after a cursor, oldest first, and the cursor after them.

    Args:
        told: All events of the job.
        measured: Its metrics, from the cursor's step on.
        cursor: Of the poll before.
    """
    messages = _messages(told)
    new = [message for message in messages if _is_new(message.event, cursor)]
    steps = max((event.total_steps or 0 for event in told), default=0)
    losses = list(_losses(measured, cursor, steps))
    merged = sorted((*losses, *new), key=lambda placed: placed.step)
    return tuple(placed.event for placed in merged), _after(cursor, new, losses)


@dataclass(frozen=True, slots=True)
class _Placed:
    """An event and the step by which it happened; losses stand before messages of their step."""

    event: Event
    step: int


def _is_new(event: Event, cursor: Cursor) -> bool:
    if event.time == cursor.time:
        return event.key not in cursor.keys
    return event.time > cursor.time


def _after(cursor: Cursor, messages: Sequence[_Placed], losses: Sequence[_Placed]) -> Cursor:
    newest = max((message.event.time for message in messages), default=cursor.time)
    keys = tuple(message.event.key for message in messages if message.event.time == newest)
    last = {"step": cursor.step, "validation": cursor.validated}
    for loss in losses:
        last[loss.event.kind] = loss.step
    return Cursor(
        time=newest,
        keys=(*cursor.keys, *keys) if newest == cursor.time else keys,
        step=last["step"],
        validated=last["validation"],
    )


def _messages(told: Iterable[FinetuneEvent]) -> list[_Placed]:
    """Return the messages by time, each once; one without a time has that of the one before."""
    events: dict[str, tuple[Event, int]] = {}
    time = 0.0
    for one in told:
        time = _seconds(one.created_at) or time
        event = _message(one, time)
        events[event.key] = (event, one.step or 0)
    messages: list[_Placed] = []
    step = 0
    for event, own_step in sorted(events.values(), key=lambda pair: pair[0].time):
        step = max(step, own_step)
        messages.append(_Placed(event, step))
    return messages


def _message(event: FinetuneEvent, time: float) -> Event:
    parts = (event.type, event.created_at, event.step, event.message)
    text = "|".join("" if part is None else str(part) for part in parts)
    key = f"event-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    kind = str(event.type or "event")
    data: dict[str, JsonValue] = {"type": kind, "text": event.message or kind}
    if event.step:
        data["step"] = event.step
    if kind == "checkpoint_save":
        return Event(key, "checkpoint", time, data)
    loud = kind in ("warning", *FAILURES) or event.level in ("warning", "error")
    return Event(key, "warning" if loud else "message", time, data)


def _losses(
    measured: Iterable[Mapping[str, float | None]], cursor: Cursor, steps: int
) -> Iterator[_Placed]:
    now, seen = time.time(), {"step": cursor.step, "validation": cursor.validated}
    whole = [{name: value for name, value in row.items() if value is not None} for row in measured]
    for row in sorted((row for row in whole if STEP in row), key=lambda row: row[STEP]):
        step = int(row[STEP])
        data: dict[str, JsonValue] = {"step": step, **({"steps": steps} if steps else {})}
        if LOSS in row and step > seen["step"]:
            seen["step"] = step
            rate: dict[str, JsonValue] = {"learning_rate": row[RATE]} if RATE in row else {}
            yield _Placed(
                Event(f"step-{step}", "step", now, {**data, "loss": row[LOSS], **rate}), step
            )
        if EVAL_LOSS in row and step > seen["validation"]:
            seen["validation"] = step
            lost = {**data, "loss": row[EVAL_LOSS]}
            yield _Placed(Event(f"validation-{step}", "validation", now, lost), step)


def _seconds(moment: str | None) -> float:
    """Return an ISO 8601 time in seconds since 1970; 0 for what is none."""
    try:
        return datetime.fromisoformat(moment or "").timestamp()
    except ValueError:
        return 0.0
