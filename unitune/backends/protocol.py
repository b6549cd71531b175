"""The seam between unitune and whoever tunes: small, synchronous, stateless, typed in and out.

A backend implements `Backend`; what only some can do stands in protocols of its own, in
`unitune.backends.capabilities`. Everything durable is in the ledger, so crash recovery is written
once, in `unitune.backends.exactly_once` and `unitune.run`. Checking is no verb: what is known of a
backend without calling it is its offer (`unitune.backends.offer`), data that is read without
importing the backend.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from pydantic import JsonValue

from unitune.job.job import Job
from unitune.models import ChatModel, Start, TunedModel

# How the raw word begins of a job that stands still although no user paused it
PUSHED = "run.pushed"  # prefix of the keys of events that a model was pushed somewhere
INTERRUPTED = "interrupted"

# Name in the data of a warning that the training has made the model worse
WORSE = "worse_than_start"


class State(StrEnum):
    """Where a run stands."""

    PLANNED = "planned"
    UPLOADING = "uploading"
    SUBMITTING = "submitting"
    UNCERTAIN = "uncertain"
    """A create whose outcome is not known; waits for the user."""
    QUEUED = "queued"
    VALIDATING = "validating"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """A word of the vendor's that we do not know; polling goes on."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


class Guarantee(StrEnum):
    """How a launch is found again when the answer to its create call was lost."""

    TOKEN = "idempotency token"  # noqa: S105 - a word, no password
    """A true idempotency token: resubmit with the same key."""
    OWN_ID = "own id"
    """The caller names the job: resubmit; "exists" means adopt."""
    FINDABLE = "findable"
    """The key stands in metadata or labels that can be searched."""
    SUFFIX_ONLY = "suffix only"
    """The key is only part of a name; a single match is adopted."""


# Of backends that make one job of two create calls with the same key
SAFE_TO_REPEAT = (Guarantee.TOKEN, Guarantee.OWN_ID)
# What steps are measured by: lower is better, or, in reinforcement, higher. Some have neither.
FIGURES: tuple[Literal["loss", "reward"], ...] = ("loss", "reward")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a run at its backend.

    Args:
        key: The backend's own name of the event; the same key is recorded once.
        kind: step, validation, message, checkpoint or warning.
        time: Seconds since 1970, UTC.
        data: For step and validation: step, steps, loss or reward, tokens, tokens_per_second,
            seconds_left, …, each where it is known; for message and warning: text.
    """

    key: str
    kind: Literal["step", "validation", "message", "checkpoint", "warning"]
    time: float
    data: dict[str, JsonValue] = field(default_factory=dict[str, JsonValue])

    def number(self, name: str) -> float | None:
        """Return a number of the data; None where there is none of that name."""
        value = self.data.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value)


@dataclass(frozen=True, slots=True)
class Status:
    """What one poll saw.

    Args:
        state: In our words.
        raw: In the backend's words.
        events: Those after the cursor, oldest first.
        cursor: Hand it to the next poll.
        model: Set when the state is succeeded.
        error: Set when the state is failed.
        billed_tokens: Trained tokens of all epochs, as the backend bills them, once it says so.
        billed_usd: What it bills, in US dollars, once it says so.
        epochs: How many it makes, once it has chosen.
    """

    state: State
    raw: str
    events: tuple[Event, ...] = ()
    cursor: str = ""
    model: TunedModel | None = None
    error: str | None = None
    billed_tokens: int | None = None
    billed_usd: Decimal | None = None
    epochs: int | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that the backend holds, by its name there, with the SHA-256 of its content."""

    ref: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything that one submit needs.

    Args:
        key: Launch key: run id and attempt; at most 26 characters of ``[a-z0-9-]``.
        job: What to tune and how.
        training: Uploaded training rows.
        validation: Uploaded validation rows, if any.
        folder: The run's folder, for backends that work on this machine.
        start: What to go on from, where the offer says that the method `continues`; None: begin at
            the base model.
    """

    key: str
    job: Job
    training: Upload
    validation: Upload | None
    folder: Path
    start: Start | None = None


class Backend(Protocol):
    """Who tunes. Constructed without arguments; keys come from the environment."""

    name: ClassVar[str]
    guarantee: ClassVar[Guarantee]

    def upload(self, path: Path, sha256: str) -> Upload:
        """Upload a file, in the format that the offer names for the method.

        The file is named by its hash at the backend, so that a file which is there already, by
        whatever run or after whatever interruption, is found and not uploaded again.
        """
        ...

    def submit(self, launch: Launch) -> str:
        """Start the training and return the backend's id for it. Never retried blindly.

        It must be over, with an answer or without one, in less than `CREATE_SECONDS` of
        `unitune.run.creating` (two minutes), connecting and sending included: so long no other
        process acts for the run, even where its ledger is away. With `Guarantee.FINDABLE` or
        `SUFFIX_ONLY` a call that takes longer may make a second job.
        """
        ...

    def find(self, launch_key: str, folder: Path) -> list[str]:
        """Return the ids of jobs that carry this launch key.

        Args:
            launch_key: As in `Launch.key`.
            folder: The run's folder, for backends that work on this machine.
        """
        ...

    def poll(self, job_id: str, cursor: str) -> Status:
        """Return the state and what happened since the cursor (empty at first)."""
        ...

    def cancel(self, job_id: str) -> None:
        """Ask for the end; `poll` then shows cancelling and cancelled."""
        ...

    def chat(self, model: str | TunedModel) -> ChatModel:
        """Return a model to ask: an untuned one by its name, or what a run left behind.

        Raises:
            NotFoundError: There is no such model.
            Mismatch: Base, tokenizer or template are not those of the training.
        """
        ...
