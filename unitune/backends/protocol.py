"""Define the interface between unitune and a backend: small, synchronous, stateless and typed.

A backend implements `Backend` and optionally protocols of `unitune.backends.capabilities`. The
ledger holds all durable state, so crash recovery is shared (`unitune.backends.exactly_once`,
`unitune.run`). What is known without calling the backend is its offer (`unitune.backends.offer`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from pydantic import JsonValue

from unitune.models import ChatModel, Start, TunedModel

if TYPE_CHECKING:
    from unitune.job.job import Job

# Beginning of the raw state of a job that stopped without being paused
PUSHED = "run.pushed"  # key prefix of a run's event about an upload of its model
INTERRUPTED = "interrupted"

# Key in the data of a warning that the training made the model worse
WORSE = "worse_than_start"


class State(StrEnum):
    """State of a run."""

    PLANNED = "planned"
    UPLOADING = "uploading"
    SUBMITTING = "submitting"
    UNCERTAIN = "uncertain"
    """The outcome of a create call is unknown; waits for the user."""
    QUEUED = "queued"
    VALIDATING = "validating"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """An unknown state of the vendor; polling continues."""

    @property
    def ended(self) -> bool:
        """True if the run has ended."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


class Guarantee(StrEnum):
    """Way to find a launch again after the answer to its create call was lost."""

    # Idempotency token: submit again with the same key
    TOKEN = "idempotency token"  # noqa: S105 - not a password
    OWN_ID = "own id"  # the caller names the job: submit again; if it exists, adopt it
    FINDABLE = "findable"  # the key is in metadata or labels that can be searched
    SUFFIX_ONLY = "suffix only"  # the key is only part of a name; a single match is adopted


# Guarantees of backends that make one job of two create calls with the same key
SAFE_TO_REPEAT = (Guarantee.TOKEN, Guarantee.OWN_ID)
# Measures of training steps: loss is lower, reward (reinforcement) higher if better. May be absent.
FIGURES: tuple[Literal["loss", "reward"], ...] = ("loss", "reward")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a run at its backend.

    Args:
        key: The backend's key of the event; each key is recorded once.
        kind: step, validation, message, checkpoint or warning.
        time: Seconds since 1970, UTC.
        data: For step and validation: step, steps, loss or reward, tokens, tokens_per_second,
            seconds_left, …, if known; for message and warning: text.
    """

    key: str
    kind: Literal["step", "validation", "message", "checkpoint", "warning"]
    time: float
    data: dict[str, JsonValue] = field(default_factory=dict[str, JsonValue])

    def number(self, name: str) -> float | None:
        """Return a number in the data, or None."""
        value = self.data.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value)


@dataclass(frozen=True, slots=True)
class Status:
    """Result of one poll."""

    state: State  # state as defined by unitune
    raw: str  # state as reported by the backend
    events: tuple[Event, ...] = ()  # events after the cursor, oldest first
    cursor: str = ""  # cursor for the next poll
    model: TunedModel | None = None  # the tuned model; set if the state is succeeded
    error: str | None = None  # reason; set if the state is failed
    billed_tokens: int | None = None  # billed training tokens of all epochs, once known
    billed_usd: Decimal | None = None  # billed amount in US dollars, once known
    epochs: int | None = None  # number of epochs, once the backend has chosen it


@dataclass(frozen=True, slots=True)
class Upload:
    """A file at the backend: its name there and the SHA-256 of its content."""

    ref: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything that a submit needs."""

    key: str  # launch key: run id and attempt; at most 26 characters of ``[a-z0-9-]``
    job: Job  # job to launch
    training: Upload  # uploaded training rows
    validation: Upload | None  # uploaded validation rows, if any
    folder: Path  # the run's folder, for backends that work on this machine
    # Model to continue from, if the offer has the method in `continues`; None for the base model
    start: Start | None = None


class Backend(Protocol):
    """A backend that tunes; constructed without arguments, with keys from the environment."""

    name: ClassVar[str]
    guarantee: ClassVar[Guarantee]

    def upload(self, path: Path, sha256: str) -> Upload:
        """Upload a file in the format that the offer names for the method.

        The backend's name of the file contains its hash, so that an existing file of any run is
        found and not uploaded again.
        """
        ...

    def submit(self, launch: Launch) -> str:
        """Start the training and return the backend's id for it. Never retried blindly.

        The call, including connecting and sending, must end in less than `CREATE_SECONDS` of
        `unitune.run.creating` (two minutes). No other process acts for the run in that time. With
        `Guarantee.FINDABLE` or `SUFFIX_ONLY`, a longer call may create a second job.
        """
        ...

    def find(self, launch_key: str, folder: Path) -> list[str]:
        """Return the ids of jobs with this launch key.

        The run's folder is for backends that work on this machine.
        """
        ...

    def poll(self, job_id: str, cursor: str) -> Status:
        """Return the state and the events since the cursor (empty at first)."""
        ...

    def cancel(self, job_id: str) -> None:
        """Cancel a job; `poll` then shows cancelling and cancelled."""
        ...

    def chat(self, model: str | TunedModel) -> ChatModel:
        """Return a model for requests: an untuned one by its name, or a tuned model.

        Raises:
            NotFoundError: The model does not exist.
            Mismatch: Base, tokenizer or template differ from those of the training.
        """
        ...
