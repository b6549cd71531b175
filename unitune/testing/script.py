"""Define the `Script` of a fake job, given in a job as ``options: {fake: {…}}``, and of batches.

A fake job has no clock and no thread. Its state is computed from the number of polls (ticks), or
from the time if `seconds_per_step` is set. So jobs continue without a process, and two processes
with the same tick see the same state.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, JsonValue, model_validator

from unitune.backends.protocol import Event, State
from unitune.documents import Spec

STATES = {  # the fake's own states; any other is unknown, like a vendor's new state
    "queued": State.QUEUED,
    "validating_files": State.VALIDATING,
    "running": State.RUNNING,
    "paused": State.PAUSED,
    "cancelling": State.CANCELLING,
    "cancelled": State.CANCELLED,
    "succeeded": State.SUCCEEDED,
    "failed": State.FAILED,
}


class Fault(StrEnum):
    """Fault of one create call."""

    NONE = "none"
    REFUSE = "refuse"  # a 400: no job
    LOSE_REQUEST = "lose request"  # no answer, no job
    LOSE_ANSWER = "lose answer"  # no answer, but a job
    SERVER_ERROR = "server error"  # a 500, but a job
    DIE_BEFORE = "die before"  # the calling process is killed; no job
    DIE_AFTER = "die after"  # the calling process is killed; a job


class Answers(Spec):
    """Answers of a fake model."""

    replies: dict[str, str] = Field(default_factory=dict[str, str])
    """Answers by the text of the last user message."""
    errors: dict[str, str] = Field(default_factory=dict[str, str])
    """Reasons of failing requests, by the text of the last user message."""
    otherwise: str = "I do not know."
    """Answer to everything else."""


class Script(Spec):
    """Course of a fake job."""

    states: tuple[str, ...] = ("queued",)
    """States shown before the training runs, one per tick: queued, validating_files, running, or
    any other as a vendor's unknown state."""
    steps: Annotated[int, Field(ge=1)] = 4
    """Number of training steps, with one event each."""
    losses: tuple[float, ...] = ()
    """Loss of each step; missing values follow a falling curve."""
    steps_per_poll: Annotated[int, Field(ge=1)] = 2
    """Number of steps between two polls."""
    seconds_per_step: Annotated[float, Field(ge=0)] = 0
    """If set, the length of a tick with one step; polls then have no effect."""
    fail_at_step: Annotated[int, Field(ge=1)] | None = None
    """Step at which the job fails, in the run's first attempt only."""
    pause_at_step: Annotated[int, Field(ge=1)] | None = None
    """Step before which the job pauses until it is resumed."""
    submits: tuple[Fault, ...] = ()
    """Faults of the run's first create call, its second, …; none afterwards."""
    tuned: Answers | None = None
    """Answers of the tuned model; by default those of the training rows."""

    @model_validator(mode="after")
    def _within_the_steps(self) -> Self:
        for name in ("fail_at_step", "pause_at_step"):
            step = getattr(self, name)
            if step is not None and step > self.steps:
                raise ValueError(f"{name} is {step}, but there are only {self.steps} steps")
        return self

    def loss(self, step: int) -> float:
        """Return the loss of a step, counted from 1."""
        return self.losses[step - 1] if step <= len(self.losses) else round(2 / (step + 1), 6)


class BatchScript(Spec):
    """Course of the fake's batches; ``batches.json`` in ``UNITUNE_FAKE_DIR``."""

    polls: Annotated[int, Field(ge=0)] = 0
    """Number of polls that show running, each with more finished requests."""
    fails: str = ""
    """Reason why batches fail as a whole; empty if they end."""
    missing: tuple[str, ...] = ()
    """Requests that are never processed, by the text of the last message."""
    submits: tuple[Fault, ...] = ()
    """Faults of the vendor's first create call, its second, …; none afterwards."""
    shown_after_seconds: Annotated[float, Field(ge=0)] = 0
    """Time until a search lists a new batch."""


@dataclass(frozen=True, slots=True)
class Moment:
    """State of a job in the fake's words, and its finished steps."""

    word: str
    steps: int


def moment(script: Script, ticks: int, *, resumed: bool, first_attempt: bool) -> Moment:
    """Return the state of a job that was not cancelled, after so many polls or time units."""
    if ticks <= len(script.states):
        return Moment(script.states[ticks - 1], 0)
    pace = 1 if script.seconds_per_step else script.steps_per_poll
    done = (ticks - len(script.states)) * pace
    if script.pause_at_step and not resumed and done >= script.pause_at_step:
        return Moment("paused", script.pause_at_step - 1)
    if script.fail_at_step and first_attempt and done >= script.fail_at_step:
        return Moment("failed", script.fail_at_step - 1)
    return Moment("succeeded" if done > script.steps else "running", min(done, script.steps))


def events(script: Script, now: Moment, started: float) -> tuple[Event, ...]:
    """Return all events up to a moment, oldest first."""
    happened = [Event("created", "message", started, {"text": "the fake job was created"})]
    for step in range(1, now.steps + 1):
        time = started + step * script.seconds_per_step
        loss = script.loss(step)
        data: dict[str, JsonValue] = {"step": step, "steps": script.steps, "loss": loss}
        happened.append(Event(f"step-{step}", "step", time, data))
    if now.word == "succeeded":
        loss = script.loss(script.steps)
        last: dict[str, JsonValue] = {"step": script.steps, "loss": loss}
        happened.append(Event("validation", "validation", happened[-1].time, last))
    return tuple(happened)
