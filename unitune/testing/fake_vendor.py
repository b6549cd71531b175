"""Define the `Script` of a fake job and of batches, and store the fake vendor's files.

A script is given in a job as ``options: {fake: {…}}``. A fake job has no clock and no thread. Its
state is computed from the number of polls (ticks), or from the time if `seconds_per_step` is set.
So jobs continue without a process, and two processes with the same tick see the same state.

A batch is a folder below ``batches`` in the vendor's folder (``UNITUNE_FAKE_DIR``, or else ``fake``
in unitune's home), so it outlives processes. Its requests are answered at once and shown as
scripted in ``batches.json`` (`BatchScript`).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn, Protocol, Self

from pydantic import BaseModel, Field, JsonValue, model_validator

from unitune.backends.capabilities import BatchStatus
from unitune.backends.protocol import Event, State
from unitune.documents import Frozen, Spec
from unitune.errors import BackendError, Unreachable
from unitune.models import ChatModel, Reply, Request, TunedModel
from unitune.workspace.home import home

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


def vendor_folder(otherwise: Path) -> Path:
    """Return the vendor's folder: ``UNITUNE_FAKE_DIR``, or ``fake`` in `otherwise`."""
    chosen = os.environ.get("UNITUNE_FAKE_DIR")
    return Path(chosen).absolute() if chosen else otherwise.absolute() / "fake"


def create_call(faults: tuple[Fault, ...], calls: int, what: str, create: Callable[[], str]) -> str:
    """Create something and return its id, or fail by the fault of this call, if any."""
    fault = faults[calls - 1] if calls <= len(faults) else Fault.NONE
    if fault is Fault.REFUSE:
        raise BackendError(f"the fake refuses this {what}.", status=400)
    if fault is Fault.LOSE_REQUEST:
        raise Unreachable("the fake could not be reached.")
    if fault is Fault.DIE_BEFORE:
        _die()
    made = create()
    if fault is Fault.LOSE_ANSWER:
        raise Unreachable("the fake's answer was lost.")
    if fault is Fault.SERVER_ERROR:
        raise BackendError("the fake stumbled.", status=500)
    if fault is Fault.DIE_AFTER:
        _die()
    return made


def tick(file: Path) -> int:
    """Add one to a counter, a file that only grows, so that no process loses a count."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as growing:
        growing.write(b".")
        growing.flush()
        return growing.tell()


def count(file: Path) -> int:
    """Return the value of a counter."""
    return file.stat().st_size if file.exists() else 0


def write(file: Path, content: BaseModel) -> None:
    """Write a file atomically."""
    draft = file.with_suffix(f".{os.getpid()}")
    draft.write_text(content.model_dump_json(), encoding="utf-8")
    draft.replace(file)


def _die() -> NoReturn:
    os.kill(
        os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM)
    )  # which ends it at once on Windows, too
    raise AssertionError("a killed process continues")


class FakeBatch(Frozen):
    """A batch of the fake vendor; ``batch.json`` in its folder."""

    key: str
    created: float  # seconds since 1970, UTC
    size: int  # number of requests
    replies: dict[str, Reply]  # replies by request id; requests that are never processed have none


class _Chats(Protocol):
    def chat(self, model: str | TunedModel) -> ChatModel: ...


class FakeBatches:
    """Methods of `Batches` for a backend whose models answer."""

    capabilities = ("Batches",)

    def submit_batch(
        self: _Chats, key: str, model: str | TunedModel, requests: Mapping[str, Request]
    ) -> str:
        calls = tick(_folder() / "creates")
        chat = self.chat(model)
        return create_call(_script().submits, calls, "batch", lambda: _created(key, chat, requests))

    def find_batch(self, key: str, since: float) -> list[str]:
        shown = time.time() - _script().shown_after_seconds
        batches = (
            (str(file.parent), _batch(file)) for file in _folder().glob(f"{key}.*/batch.json")
        )
        return sorted(batch_id for batch_id, batch in batches if since <= batch.created <= shown)

    def poll_batch(self, batch_id: str) -> BatchStatus:
        return _status(batch_id, _existing(batch_id), tick(Path(batch_id) / "polls"))

    def fetch_batch(self, batch_id: str) -> Mapping[str, Reply]:
        batch = _existing(batch_id)
        status = _status(batch_id, batch, count(Path(batch_id) / "polls"))
        if status.state != "ended":
            raise BackendError(f"batch {batch_id} is {status.raw}.", status=409)
        return batch.replies if status.raw == "ended" else {}

    def cancel_batch(self, batch_id: str) -> None:
        batch = _existing(batch_id)
        if _status(batch_id, batch, count(Path(batch_id) / "polls")).state == "running":
            (Path(batch_id) / "cancelled").touch()


def _folder() -> Path:
    return vendor_folder(home()) / "batches"


def _script() -> BatchScript:
    file = vendor_folder(home()) / "batches.json"
    if not file.exists():
        return BatchScript()
    return BatchScript.model_validate_json(file.read_text(encoding="utf-8"))


def _created(key: str, chat: ChatModel, requests: Mapping[str, Request]) -> str:
    missing = _script().missing

    async def replies() -> dict[str, Reply]:
        return {
            request_id: await chat.reply(request)
            for request_id, request in requests.items()
            if request.messages[-1].text not in missing
        }

    folder = _folder() / f"{key}.{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    answered = asyncio.run(replies())
    batch = FakeBatch(key=key, created=time.time(), size=len(requests), replies=answered)
    write(folder / "batch.json", batch)
    return str(folder)


def _existing(batch_id: str) -> FakeBatch:
    try:
        return _batch(Path(batch_id) / "batch.json")
    except OSError as error:
        raise BackendError(f"the fake has no batch {batch_id!r}.", status=404) from error


def _batch(file: Path) -> FakeBatch:
    return FakeBatch.model_validate_json(file.read_text(encoding="utf-8"))


def _status(batch_id: str, batch: FakeBatch, polls: int) -> BatchStatus:
    script = _script()
    if (Path(batch_id) / "cancelled").exists():
        return BatchStatus("ended", "cancelled", 0)
    if script.fails and polls > script.polls:
        return BatchStatus("failed", "failed", 0, script.fails)
    if polls > script.polls:
        return BatchStatus("ended", "ended", len(batch.replies))
    return BatchStatus("running", "in_progress", batch.size * polls // (script.polls + 1))
