"""What the fake backend plays: a `Script`, given in a job as ``options: {fake: {…}}``, and more.

A fake job has no clock and no thread: each poll is a tick, and what the job looks like is computed
from the number of ticks, or from the time when `seconds_per_step` is set. So a job goes on while no
process lives, and two processes that read the same tick see the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, JsonValue, model_validator

from unitune.backends.protocol import Event, State
from unitune.security.spec import Spec

STATES = {  # the fake's own words; any other is unknown, as a vendor's new word would be
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
    """What goes wrong in one create call."""

    NONE = "none"
    REFUSE = "refuse"
    """A 400: no job."""
    LOSE_REQUEST = "lose request"
    """No answer, no job."""
    LOSE_ANSWER = "lose answer"
    """No answer, but a job."""
    SERVER_ERROR = "server error"
    """A 500, but a job."""
    DIE_BEFORE = "die before"
    """The calling process is killed; no job."""
    DIE_AFTER = "die after"
    """The calling process is killed; a job."""


class Answers(Spec):
    """What a fake model says."""

    replies: dict[str, str] = Field(default_factory=dict[str, str])
    """Answers by the text of the last user message."""
    errors: dict[str, str] = Field(default_factory=dict[str, str])
    """Requests that fail, by the text of the last user message, with the reason."""
    otherwise: str = "I do not know."
    """The answer to everything else."""


class Script(Spec):
    """How one fake job goes."""

    states: tuple[str, ...] = ("queued",)
    """Words shown before the training runs, one a tick; the fake knows queued, validating_files and
    running, and any other is an unknown word of a vendor."""
    steps: Annotated[int, Field(ge=1)] = 4
    """Training steps, an event each."""
    losses: tuple[float, ...] = ()
    """Loss of each step; a falling curve where it has no value."""
    steps_per_poll: Annotated[int, Field(ge=1)] = 2
    """Steps done between two polls."""
    seconds_per_step: Annotated[float, Field(ge=0)] = 0
    """When set, a tick is this long, a step is done each tick, and polls do not matter."""
    fail_at_step: Annotated[int, Field(ge=1)] | None = None
    """The job fails instead of doing this step; only in the run's first attempt."""
    pause_at_step: Annotated[int, Field(ge=1)] | None = None
    """The job pauses before this step until it is resumed."""
    submits: tuple[Fault, ...] = ()
    """What goes wrong in the run's first create call, its second, …; nothing afterwards."""
    tuned: Answers | None = None
    """What the tuned model says; by default the answers of the training rows."""

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
    """How the fake's batches go; ``batches.json`` in ``UNITUNE_FAKE_DIR``."""

    polls: Annotated[int, Field(ge=0)] = 0
    """Polls that say running, with more requests done each time."""
    fails: str = ""
    """Why they fail as a whole instead of ending; empty: they do not."""
    missing: tuple[str, ...] = ()
    """Requests that are never reached, by the text of the last message."""
    submits: tuple[Fault, ...] = ()
    """What goes wrong in the vendor's first create call, its second, …; nothing afterwards."""
    shown_after_seconds: Annotated[float, Field(ge=0)] = 0
    """How long a search does not show a batch that was made."""


@dataclass(frozen=True, slots=True)
class Moment:
    """How a job stands: the fake's word, and the steps that are done."""

    word: str
    steps: int


def moment(script: Script, ticks: int, *, resumed: bool, first_attempt: bool) -> Moment:
    """Return how a job stands that was not cancelled.

    Args:
        script: How the job goes.
        ticks: Polls so far, or time that has passed; counted from 1.
        resumed: Whether it was paused and resumed.
        first_attempt: Whether `fail_at_step` applies.
    """
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
    """Return everything that happened up to a moment, oldest first."""
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
